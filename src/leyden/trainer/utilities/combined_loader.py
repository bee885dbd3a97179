"""`CombinedLoader` at its documented path."""

from leyden.trainer.data.combined import CombinedLoader

__all__ = ["CombinedLoader"]
