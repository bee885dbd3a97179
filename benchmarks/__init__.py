"""One file for each claim about speed or size; `make bench` runs them beside the peer they claim to beat."""
