"""Collections of loaders: a list or a mapping given where one loader is expected, and batches in the same shape.

Only lists, tuples and mappings are looked into: a loader may well be a dataclass or another container itself.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any


def is_collection(value: Any) -> bool:
    """Return whether a value given as loaders holds loaders, instead of being one."""
    return isinstance(value, (list, tuple, Mapping))


def flattened(collection: Any) -> list[Any]:
    """Return the loaders in a collection, in order; of one loader, that.

    Example:
        >>> flattened({"a": range(1), "b": [range(2), range(3)]})
        [range(0, 1), range(0, 2), range(0, 3)]
    """
    if not is_collection(collection):
        return [collection]
    children = collection.values() if isinstance(collection, Mapping) else collection
    return [leaf for child in children for leaf in flattened(child)]


def filled(shape: Any, leaves: Iterable[Any]) -> Any:
    """Return a collection of the shape of `shape` that holds `leaves`.

    Example:
        >>> filled({"a": 0, "b": [0, 0]}, "xyz")
        {'a': 'x', 'b': ['y', 'z']}
    """
    return _filled(shape, iter(leaves))


def mapped(collection: Any, function: Callable[[Any], Any]) -> Any:
    """Return a collection of the same shape with `function` applied to each loader."""
    return filled(collection, [function(leaf) for leaf in flattened(collection)])


def _filled(shape: Any, leaves: Iterator[Any]) -> Any:
    kind = type(shape)
    if kind is list:
        return [_filled(child, leaves) for child in shape]
    if kind is dict:
        return {key: _filled(child, leaves) for key, child in shape.items()}
    if not is_collection(shape):
        return next(leaves)
    if isinstance(shape, Mapping):
        items = {key: _filled(child, leaves) for key, child in shape.items()}
        if not isinstance(shape, MutableMapping):
            return items
        result = copy.copy(shape)  # keeps order and default factory of a subclass
        result.update(items)
        return result
    children = [_filled(child, leaves) for child in shape]
    return kind._make(children) if hasattr(kind, "_make") else kind(children)
