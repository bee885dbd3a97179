"""What a run is made of: hooks, plan, clock, position, triggers, stops. Knows no user class."""
