"""From the order of rows to batches: inline, in threads, in processes."""
