"""Classes of named tuples as they were written: one for each name and fields, of which values can be sent to other processes."""

from collections import namedtuple
from collections.abc import Sequence
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1024)
def named(name: str, fields: tuple[str, ...]) -> Any:
    """Return the class of a name and fields; the same one each time.

    Example:
        >>> import pickle
        >>> point = named("Point", ("x", "y"))(1, 2)
        >>> pickle.loads(pickle.dumps(point)) == point, type(pickle.loads(pickle.dumps(point))) is named("Point", ("x", "y"))
        (True, True)
    """
    made: Any = namedtuple(name, fields)  # type: ignore[misc]
    made.__reduce__ = _reduced
    return made


def _reduced(self: Any) -> tuple[Any, ...]:
    return (_made, (type(self).__name__, self._fields, tuple(self)))


def _made(name: str, fields: tuple[str, ...], values: Sequence[Any]) -> Any:
    return named(name, fields)(*values)
