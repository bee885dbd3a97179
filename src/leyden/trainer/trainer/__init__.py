"""The facade, its arguments and its states."""
