"""Changes of a finished dataset, one file each: every change writes new files first, then commits a version that names them."""
