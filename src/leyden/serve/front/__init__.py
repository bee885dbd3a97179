"""The front end: HTTP on one side, frames to workers on the other, a router between them."""
