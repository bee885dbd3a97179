"""Move a batch to a device, whatever it is made of.

A batch that is there already comes back as the same object, and so does every part of it: on the CPU a flat
batch costs one look at each tensor and allocates nothing. Containers are never changed in place; a changed part gets a new parent.
"""

import copy
import dataclasses
from collections import deque
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

# Copies to these are over when the call returns, whatever is asked; `non_blocking` would only be misleading there.
_BLOCKING_TYPES = ("cpu", "mps")
_PLAIN = (str, bytes, int, float, complex, type(None), type)


def move_data_to_device(batch: Any, device: str | int | torch.device) -> Any:
    """Return `batch` with every tensor on `device`.

    Looks into dicts and other mappings, lists, tuples, named tuples, deques and dataclasses; anything else that has a
    method `to` is moved by it; the rest is returned as it is. Copies to accelerators do not block.

    Args:
        batch: A tensor, or a nested collection.
        device: Where to, as `torch.device` takes it.

    Example:
        >>> move_data_to_device({"x": torch.zeros(2), "name": "a"}, "meta")["x"].device.type
        'meta'
    """
    if not isinstance(device, torch.device):
        device = torch.device(device)
    kind = type(batch)
    if kind is Tensor:
        return batch if batch.device == device else _move(batch, device)
    if kind is list or kind is tuple or kind is dict:  # what the default collate function makes: no call per item
        for item in batch.values() if kind is dict else batch:
            if type(item) is not Tensor or item.device != device:
                return _move(batch, device)
        return batch
    return _move(batch, device)


def _move(value: Any, device: torch.device) -> Any:
    kind = type(value)
    if kind is dict:
        return _moved_dict(value, device)
    if kind is list or kind is tuple:
        items = [_move(item, device) for item in value]
        return value if _all_same(items, value) else kind(items)
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=device.type not in _BLOCKING_TYPES)
    if isinstance(value, _PLAIN):
        return value
    to = getattr(value, "to", None)
    if callable(to):
        moved = to(device)
        return value if moved is None else moved  # a `to` that works in place and forgot to return itself
    return _moved_container(value, device)


def _all_same(new: Any, old: Any) -> bool:
    return all(one is other for one, other in zip(new, old, strict=True))


def _moved_dict(value: dict[Any, Any], device: torch.device) -> dict[Any, Any]:
    items = {key: _move(item, device) for key, item in value.items()}
    return value if _all_same(items.values(), value.values()) else items


def _moved_container(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        changed = {key: moved for key, item in value.items() if (moved := _move(item, device)) is not item}
        if not changed:
            return value
        if not isinstance(value, MutableMapping):
            return type(value)({**value, **changed})  # pyrefly: ignore[bad-argument-count] - by convention a mapping is built from one
        result = copy.copy(value)  # keeps order, default factory and attributes of a subclass
        for key, item in changed.items():
            result[key] = item
        return result
    if isinstance(value, (list, tuple, deque)):
        return _moved_sequence(value, device)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _moved_dataclass(value, device)
    return value


def _moved_sequence(value: Any, device: torch.device) -> Any:
    items = [_move(item, device) for item in value]
    if _all_same(items, value):
        return value
    if isinstance(value, tuple):
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    result = copy.copy(value)
    for position, item in enumerate(items):
        result[position] = item
    return result


def _moved_dataclass(value: Any, device: torch.device) -> Any:
    changed = {}
    for field in dataclasses.fields(value):
        if hasattr(value, field.name):  # a field without a value: `init=False` and never set
            item = getattr(value, field.name)
            moved = _move(item, device)
            if moved is not item:
                changed[field.name] = moved
    if not changed:
        return value
    result = copy.copy(value)
    for name, item in changed.items():
        object.__setattr__(result, name, item)  # also where the class is frozen
    return result
