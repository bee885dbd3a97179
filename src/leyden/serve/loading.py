"""What holds while a user's file is imported: no server starts in it, and options of the command line replace arguments.

A worker imports the file whose classes it is sent, and `leyden serve` imports it to find the server. A file that starts a server
at its top level would start another one in each of them: so it is refused there, with the way out.
"""

import contextlib
import functools
import inspect
import multiprocessing.process
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec

from leyden.core.errors import StateError

GUARD = 'Start the server below `if __name__ == "__main__":`, because worker processes import the script.'
P = ParamSpec("P")


class _Importing(NamedTuple):
    replacements: Mapping[str, Any]


_importing: ContextVar[_Importing | None] = ContextVar("leyden_serve_importing", default=None)


@contextlib.contextmanager
def importing(replacements: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Import a user's file in this context.

    Args:
        replacements: Arguments of each `LitServer` that it makes, whatever it gives for them.

    Example:
        >>> with importing():
        ...     refuse_while_importing()
        Traceback (most recent call last):
        leyden.core.errors.StateError: a server was started while the script was imported. Start the server below ...
    """
    token = _importing.set(_Importing(replacements or {}))
    try:
        yield
    finally:
        _importing.reset(token)


def replacements() -> Mapping[str, Any]:
    """Return the arguments that are replaced where this is called."""
    state = _importing.get()
    return {} if state is None else state.replacements


def refuse_while_importing() -> None:
    """Refuse to start a server while a worker or the command line imports the file that starts it.

    Raises:
        StateError: It is imported.
    """
    is_inheriting = getattr(multiprocessing.process.current_process(), "_inheriting", False)  # `spawn` imports `__main__` in a worker
    if _importing.get() is not None or is_inheriting:
        raise StateError(f"a server was started while the script was imported. {GUARD}")


def replaceable(init: Callable[P, None]) -> Callable[P, None]:
    """Let `importing` replace arguments of an `__init__`."""

    @functools.wraps(init)
    def replaced(*args: P.args, **kwargs: P.kwargs) -> None:
        given = replacements()
        if not given:
            init(*args, **kwargs)
            return
        bound = inspect.signature(init).bind(*args, **kwargs)
        bound.arguments.update(given)
        init(*bound.args, **bound.kwargs)

    return replaced
