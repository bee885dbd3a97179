"""Mapping a function over the tensors of a nested collection, whatever it is made of.

An unchanged part comes back as the same object, so nothing is allocated where nothing happens. Containers are never
changed in place; a changed part gets a new parent.
"""

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from torch import Tensor

_PLAIN = (str, bytes, int, float, complex, type(None), type)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Return `value` with `function` applied to every tensor in it.

    Looks into mappings, lists, tuples, named tuples, deques and dataclasses; the rest is returned as it is.

    Example:
        >>> import torch
        >>> map_tensors({"x": torch.ones(1), "name": "a"}, lambda tensor: tensor + 1)
        {'x': tensor([2.]), 'name': 'a'}
    """
    return map_leaves(value, lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf)


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return `value` with `function` applied to everything in it that is no container."""
    kind = type(value)
    if kind is Tensor or isinstance(value, (Tensor, *_PLAIN)):
        return function(value)
    if kind is list or kind is tuple:  # the arguments of every forward under a mixed precision: no generator, no second call
        items = [map_leaves(item, function) for item in value]
        for new, old in zip(items, value, strict=True):
            if new is not old:
                return kind(items)
        return value
    if not is_container(value):
        return function(value)
    return map_children(value, lambda item: map_leaves(item, function))


def is_container(value: Any) -> bool:
    """Return whether `map_children` looks into `value`."""
    return isinstance(value, (Mapping, list, tuple, deque)) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def map_children(value: Any, child: Callable[[Any], Any]) -> Any:
    """Return a container with `child` applied to each thing directly in it; itself if nothing changed."""
    if isinstance(value, Mapping):
        return _mapping(value, child) if value else value
    return _sequence(value, child) if isinstance(value, (list, tuple, deque)) else _dataclass(value, child)


def leaves(value: Any) -> list[Any]:
    """Return everything in `value` that is no container, in order."""
    found: list[Any] = []

    def note(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    map_leaves(value, note)
    return found


def _all_same(new: Any, old: Any) -> bool:
    return all(one is other for one, other in zip(new, old, strict=True))


def _mapping(value: Mapping[Any, Any], child: Callable[[Any], Any]) -> Any:
    changed = {key: new for key, item in value.items() if (new := child(item)) is not item}
    if not changed:
        return value
    if type(value) is dict:
        return {key: changed.get(key, item) for key, item in value.items()}
    if not isinstance(value, MutableMapping):
        return type(value)({**value, **changed})  # pyrefly: ignore[bad-argument-count] - by convention a mapping is built from one
    result = copy.copy(value)  # keeps order, default factory and attributes of a subclass
    for key, item in changed.items():
        result[key] = item
    return result


def _sequence(value: Any, child: Callable[[Any], Any]) -> Any:
    items = [child(item) for item in value]
    if _all_same(items, value):
        return value
    if isinstance(value, tuple):
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    result = copy.copy(value)
    for position, item in enumerate(items):
        result[position] = item
    return result


def _dataclass(value: Any, child: Callable[[Any], Any]) -> Any:
    changed = {}
    for field in dataclasses.fields(value):
        if hasattr(value, field.name):  # a field without a value: `init=False` and never set
            item = getattr(value, field.name)
            new = child(item)
            if new is not item:
                changed[field.name] = new
    if not changed:
        return value
    result = copy.copy(value)
    for name, item in changed.items():
        object.__setattr__(result, name, item)  # also where the class is frozen
    return result
