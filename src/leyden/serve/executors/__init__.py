"""How a worker does requests: one at a time, in batches, as streams. Each executor is one loop over the same hooks."""
