"""Errors at their documented path."""

from leyden.core.errors import ConfigError

MisconfigurationException = ConfigError
