"""Casting what flows through a forward: only floating tensors, nesting kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from leyden.fabric.trees import map_leaves


def cast_floating(data: Any, dtype: torch.dtype) -> Any:
    """Return `data` with every floating tensor in `dtype`; integer, boolean and complex tensors stay as they are.

    Example:
        >>> cast_floating({"x": torch.zeros(1), "y": torch.zeros(1, dtype=torch.long)}, torch.float64)["x"].dtype
        torch.float64
    """

    def cast(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return map_leaves(data, cast)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make `dtype` torch's default inside; restored also after exceptions."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
