"""The ground floor: what every part shares. Torch-free, and quick to import."""
