"""Where the drivers of a job run."""
