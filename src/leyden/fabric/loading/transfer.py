"""Move a batch to a device, whatever it is made of.

A batch that is there already comes back as the same object, and so does every part of it: on the CPU a flat
batch costs one look at each tensor and allocates nothing. Containers are never changed in place; a changed part gets a new parent.
"""

from typing import Any

import torch
from torch import Tensor

from leyden.fabric.trees import is_container, map_children

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
    if kind is dict or kind is list or kind is tuple:
        return map_children(value, lambda item: _move(item, device))
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=device.type not in _BLOCKING_TYPES)
    if isinstance(value, _PLAIN):
        return value
    to = getattr(value, "to", None)
    if callable(to):
        moved = to(device)
        return value if moved is None else moved  # a `to` that works in place and forgot to return itself
    return map_children(value, lambda item: _move(item, device)) if is_container(value) else value
