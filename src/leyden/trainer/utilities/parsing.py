"""Tools for arguments, at their documented path."""

import pickle
from typing import Any

from leyden.fabric.attribute_dict import AttributeDict

__all__ = ["AttributeDict", "is_picklable"]


def is_picklable(obj: Any) -> bool:
    """Return whether an object can be pickled.

    Example:
        >>> is_picklable({"lr": 0.1}), is_picklable(lambda: 0)
        (True, False)
    """
    try:
        pickle.dumps(obj)
    except (pickle.PickleError, AttributeError, RuntimeError, TypeError):  # what pickle and torch's `__reduce__` raise
        return False
    return True
