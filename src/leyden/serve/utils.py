"""What LitServe's documentation imports from a module of this name; it is in `leyden.serve.testing`."""

from leyden.serve.testing import wrap_litserve_start

__all__ = ["wrap_litserve_start"]
