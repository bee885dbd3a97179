"""Arguments of users, checked one by one: what is not accepted is named, with what is.

A value comes back as it is to be used, so that a check stands where the argument is stored: `self.size = whole("size", size, 1)`.
"""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number that is large enough; numpy's as Python's.

    Raises:
        ConfigError: It is not.

    Example:
        >>> whole("lanes", 64, 1)
        64
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ConfigError(f"{name}={value!r} is not accepted: it takes a whole number ≥ {least}.")
    return int(value)


def number(name: str, value: Any, least: float) -> float:
    """Return a number that is large enough.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= least:
        raise ConfigError(f"{name}={value!r} is not accepted: it takes a number ≥ {least:g}.")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return a number above 0.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise ConfigError(f"{name}={value!r} is not accepted: it takes a number > 0.")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """Return True or False.

    Raises:
        ConfigTypeError: It is neither.
    """
    if not isinstance(value, bool):
        raise ConfigTypeError(f"{name}={value!r} is not accepted: it takes True or False.")
    return value


def one_of(name: str, value: Any, choices: Sequence[str]) -> Any:
    """Return a word that is one of the choices.

    Raises:
        ConfigError: It is not.

    Example:
        >>> one_of("output", "numpy", ("torch", "numpy"))
        'numpy'
    """
    if value not in choices:
        near = closest(value, choices) if isinstance(value, str) else ""
        raise ConfigError(f"{name}={value!r} is not accepted: it takes one of {listed(choices)}.{near}")
    return value
