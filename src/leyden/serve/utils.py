"""What LitServe's documentation imports from a module of this name; each is at home elsewhere."""

from leyden.serve.debugging import set_trace, set_trace_if_debug
from leyden.serve.logging import configure_logging
from leyden.serve.loops import LitAPIStatus
from leyden.serve.testing import wrap_litserve_start

__all__ = ["LitAPIStatus", "configure_logging", "set_trace", "set_trace_if_debug", "wrap_litserve_start"]
