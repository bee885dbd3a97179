"""Reading: from a dataset on a disk or in a bucket to columns in memory, and to samples."""
