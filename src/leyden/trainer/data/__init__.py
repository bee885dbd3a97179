"""Where loaders come from, how several become one, and where a run stands in them."""
