"""Leyden: prepare data, train, fine-tune, serve and share models with the same code on a laptop and on a cluster."""

__version__ = "0.1.0"
