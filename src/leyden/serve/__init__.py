"""Any model as a fast, well-behaved HTTP service. What stands so far are the parts without input and output: see the status page."""
