"""Looking at a dataset, checking it, mending it, turning it into another format."""
