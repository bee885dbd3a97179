"""Errors at their documented path."""

from leyden.core.errors import ConfigError
from leyden.trainer.engine.stop import SIGTERMException

MisconfigurationException = ConfigError

__all__ = ["MisconfigurationException", "SIGTERMException"]
