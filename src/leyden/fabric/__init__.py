"""Fabric: five lines scale a plain PyTorch loop."""
