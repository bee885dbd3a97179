"""What is in a checkpoint, and how a run becomes what it was."""
