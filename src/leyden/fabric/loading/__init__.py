"""Loaders: which sample goes where and when, and how to go on at exactly the next one."""
