"""What a user's function takes. Looked at once per run, never per batch."""

import inspect
from collections.abc import Callable
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def positional_count(function: Callable[..., Any]) -> int | None:
    """Return how many positional arguments a bound function takes; `None` for any number, or where nobody knows.

    Example:
        >>> positional_count(lambda batch, batch_idx: None), positional_count(lambda *args: None)
        (2, None)
    """
    try:
        parameters = inspect.signature(_users(function)).parameters.values()
    except (TypeError, ValueError):  # functions written in C
        return None
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return sum(parameter.kind in _POSITIONAL for parameter in parameters)


def parameter(function: Callable[..., Any], name: str) -> inspect.Parameter | None:
    """Return the parameter of that name, or `None`."""
    try:
        return inspect.signature(_users(function)).parameters.get(name)
    except (TypeError, ValueError):
        return None


def takes_anything(function: Callable[..., Any]) -> bool:
    """Return whether a function takes `*args` or `**kwargs`, or nobody knows what it takes."""
    try:
        kinds = {parameter.kind for parameter in inspect.signature(_users(function)).parameters.values()}
    except (TypeError, ValueError):
        return True
    return bool(kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


def _users(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method that a strategy wrapped and bound again (FSDP does): of the outer one `inspect` drops an argument too many."""
    while inspect.ismethod(function) and inspect.ismethod(inner := getattr(function, "__wrapped__", None)):
        function = inner
    return function
