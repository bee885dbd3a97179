"""How many samples a batch holds: size 0 of its first tensor."""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from leyden.core.errors import ConfigError


def batch_size_of(batch: Any) -> int | None:
    """Return the size of the first tensor in a batch, however nested; `None` where there is none.

    Example:
        >>> import torch
        >>> batch_size_of({"ids": torch.zeros(8, 3)}), batch_size_of(["a", "b"])
        (8, None)
    """
    return next(_sizes(batch), None)


def infer_batch_size(batch: Any) -> int:
    """Return the weight of a batch in the mean of an epoch; warn where its tensors disagree.

    Raises:
        ConfigError: There is no tensor to tell from.
    """
    if type(batch) in (list, tuple) and (alike := _plain_size(batch)):
        return alike
    sizes = _sizes(batch)
    size = next(sizes, None)
    if size is None:
        raise ConfigError(
            f"`self.log` could not infer the batch_size from a {type(batch).__name__} without tensors, and the mean of an epoch is "
            "weighted by it. Pass it: self.log(..., batch_size=batch_size)."
        )
    if any(other != size for other in sizes):
        warnings.warn(
            f"`self.log` inferred batch_size={size} from an ambiguous collection: its tensors differ in their first dimension. "
            "Pass it where that is wrong: self.log(..., batch_size=batch_size).",
            stacklevel=2,
        )
    return size


def _plain_size(batch: Sequence[Any]) -> int:
    """Return the size of a flat batch of tensors that agree, and 0 for any other; without the calls that a walk takes."""
    size = 0
    for part in batch:
        if type(part) is not Tensor or not part.ndim or (size and part.shape[0] != size):
            return 0
        size = part.shape[0]
    return size


def _sizes(value: Any) -> Iterator[int]:
    if isinstance(value, Tensor):
        yield value.shape[0] if value.ndim else 1
        return
    if isinstance(value, Mapping):
        children: Any = value.values()
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        children = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        children = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    else:
        return
    for child in children:
        yield from _sizes(child)
