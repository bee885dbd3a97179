"""The loops: plain functions over one `RunState`."""
