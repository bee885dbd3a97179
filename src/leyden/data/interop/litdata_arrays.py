"""LitData's arrays: which code is which dtype, and headers that give a dtype and a shape.

`tensor` leaves have big-endian u32 headers and torch's codes, `numpy` leaves little-endian ones and numpy's; the values
are little-endian in both. Aliases have codes of their own: the higher one is what LitData writes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.core.optional import require
from leyden.data.errors import SchemaError
from leyden.data.format.column import Column
from leyden.data.interop.columns import array_column, storage_of
from leyden.data.interop.spans import Spans

TORCH_NAMES = (
    "float32", "float32", "float64", "float64", "complex64", "complex64", "complex128", "complex128", "float16", "float16",
    "bfloat16", "uint8", "int8", "int16", "int16", "int32", "int32", "int64", "int64", "bool", "uint16",
)  # fmt: skip
NUMPY_NAMES = (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64",
    "complex128", "bool",
)  # fmt: skip
TORCH_CODES = {name: code for code, name in enumerate(TORCH_NAMES)}
NUMPY_CODES = {name: code for code, name in enumerate(NUMPY_NAMES)}
MOST_DIMENSIONS = 64


class Header(NamedTuple):
    """What an array's header says.

    Args:
        dtype: The name of the dtype.
        shape: The shape.
        size: How many bytes the header has.
    """

    dtype: str
    shape: tuple[int, ...]
    size: int


def dtype_of(kind: str, code: int) -> str:
    """Return the dtype of a code.

    Args:
        kind: `"tensor"` or `"numpy"`: whose codes.
        code: The number.

    Raises:
        ConfigError: Values of that dtype are no numbers: objects, strings, structures.
        CorruptDataError: Nobody writes this code.
    """
    names = TORCH_NAMES if kind == "tensor" else NUMPY_NAMES
    if 0 <= code < len(names):
        return names[code]
    if kind == "numpy" and code <= 17:
        raise ConfigError(f"numpy arrays with LitData's code {code} hold objects, text or structures, which are not read.")
    raise CorruptDataError(f"an array has the dtype code {code}; LitData's go from 0 to {len(names) - 1}")


def header_of(kind: str, data: Any) -> Header:
    """Return what the header of a `tensor` or `numpy` leaf says."""
    order = ">u4" if kind == "tensor" else "<u4"
    view = np.frombuffer(data, np.uint8)
    code, rank = view[:8].view(order).tolist() if len(view) >= 8 else (-1, -1)
    if not 0 <= rank <= MOST_DIMENSIONS or len(view) < 8 + 4 * rank:
        raise CorruptDataError(f"an array's header is damaged: {bytes(view[:16])!r}")
    return Header(dtype_of(kind, code), tuple(view[8 : 8 + 4 * rank].view(order).tolist()), 8 + 4 * rank)


def pack(kind: str, array: NDArray[Any], dtype: str) -> bytes:
    """Return a `tensor` or `numpy` leaf of an array, whose numpy type may stand for `dtype`.

    Raises:
        ConfigError: LitData has no code for the dtype.
    """
    order = ">u4" if kind == "tensor" else "<u4"
    header = np.array([code_of(kind, dtype), array.ndim, *array.shape], order)
    return header.tobytes() + np.ascontiguousarray(array).tobytes()


def code_of(kind: str, dtype: str) -> int:
    """Return LitData's code of a dtype."""
    codes = TORCH_CODES if kind == "tensor" else NUMPY_CODES
    if dtype not in codes:
        raise ConfigError(f"LitData has no {kind} leaf of {dtype}; it has {', '.join(sorted(codes))}. Convert the array before writing.")
    return codes[dtype]


def tensor_of(data: bytes) -> Any:
    """Return the torch tensor of a `tensor` leaf."""
    torch = require("torch", purpose="tensors of LitData's datasets")
    header = header_of("tensor", data)
    values = torch.frombuffer(bytearray(data[header.size :]), dtype=getattr(torch, header.dtype)) if len(data) > header.size else None
    return torch.empty(header.shape, dtype=getattr(torch, header.dtype)) if values is None else values.reshape(header.shape)


def read_headed(kind: str, dtype: str, spans: Spans) -> Column:
    """Return the column of `tensor` or `numpy` leaves, all of which must have one dtype and one rank.

    Raises:
        SchemaError: A row has another dtype or rank.
    """
    if not spans.rows:
        return array_column(dtype, np.empty(0, np.uint8), np.empty((0, 1), np.int64))
    first = header_of(kind, spans.row(0))
    words = spans.fixed(">u4" if kind == "tensor" else "<u4", 2 + len(first.shape)).astype(np.int64)
    ranks = set(words[:, 1].tolist())
    dtypes = {dtype_of(kind, code) for code in set(words[:, 0].tolist())}
    if dtypes != {dtype} or len(ranks) > 1:
        raise SchemaError(
            f"arrays of a leaf differ in one block: dtypes {sorted(dtypes)}, ranks {sorted(ranks)}, where {dtype} and rank "
            f"{len(first.shape)} came first. Convert the dataset in LitData to arrays of one dtype and rank."
        )
    return array_column(dtype, spans.skip(first.size).joined()[0], words[:, 2:])


def read_bare(dtype: str, spans: Spans) -> Column:
    """Return the column of `no_header_…` leaves: one dimension, the dtype is in the leaf's name."""
    values, _ = spans.joined()
    return array_column(dtype, values, spans.sizes[:, None] // storage_of(dtype).itemsize)
