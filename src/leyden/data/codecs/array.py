"""Array files: `.npy` version 1.0 without pickle, for the rows whose ranks differ, and arrays made of raw bytes."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.optional import require


def to_npy(array: NDArray[Any]) -> bytes:
    """Return an array as a `.npy` file of version 1.0."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array).reshape(array.shape), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def from_npy(data: Any) -> NDArray[Any]:
    """Return the array of a `.npy` file."""
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def of_raw(data: bytes, dtype: Any) -> Any:
    """Return a one-dimensional tensor, or array if `dtype` is numpy's, of raw little-endian bytes.

    Raises:
        ConfigTypeError: No dtype was given.
        ConfigError: The bytes are no whole number of items.
    """
    if dtype is None:
        raise ConfigTypeError("Tensor(path=… or bytes=…) needs dtype=…, for example dtype=torch.int64: raw bytes do not tell it.")
    is_torch = type(dtype).__module__ == "torch"
    size = dtype.itemsize if is_torch else np.dtype(dtype).itemsize
    if len(data) % size:
        raise ConfigError(f"Tensor(bytes=…) of {len(data)} bytes: not a multiple of the {size} bytes of a {dtype}.")
    if not is_torch:
        return np.frombuffer(data, dtype).copy()
    torch = require("torch", purpose="Tensor(dtype=torch.…)")
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def cast(array: Any, dtype: Any) -> Any:
    """Return the array or tensor as `dtype`, which may be numpy's or torch's."""
    if dtype is None:
        return array
    if type(dtype).__module__ == "torch":
        torch = require("torch", purpose="Tensor(dtype=torch.…)")
        return torch.as_tensor(array).to(dtype)
    return array.numpy(force=True).astype(dtype) if hasattr(array, "detach") else np.asarray(array).astype(dtype)
