"""What `leyden serve` does: finds the server in a file, checks it, starts it again when the file changes, packs it into an image."""
