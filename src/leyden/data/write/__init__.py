"""Writing: durable jobs that turn inputs into a new version of a dataset."""
