"""Formats of others, read as block sources and written by the same jobs."""
