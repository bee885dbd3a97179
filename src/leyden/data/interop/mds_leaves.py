"""MDS's encodings: what they are here, and how columns are made of their bytes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from leyden.core.errors import ConfigError
from leyden.data.errors import SchemaError
from leyden.data.format.column import Column, bytes_column_of
from leyden.data.interop.columns import array_column, bytes_column, fixed_column
from leyden.data.interop.spans import Spans

BLOBS = {
    "bytes": "bytes", "str": "str", "str_decimal": "str", "json": "json", "pil": "pil", "jpeg": "jpeg", "png": "image", "pkl": "pickle",
    "jpeg_array": "jpeg_array", "jpegarray": "jpeg_array",
}  # fmt: skip
SCALARS = frozenset({"uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"})
VALUE_DTYPES = {
    8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32",
    64: "uint64", 65: "int64", 66: "float64",
}  # fmt: skip
IMAGE_LISTS = frozenset({"list[jpeg]", "list[png]"})


class MdsLeaf(NamedTuple):
    """One column of an MDS dataset.

    Args:
        node: Type, dtype, shape and library, as a schema says them.
        read: Makes the column of some rows.
    """

    node: dict[str, Any]
    read: Callable[[Spans], Column]


def mds_leaf(encoding: str, first: Callable[[], memoryview]) -> MdsLeaf:
    """Return what an encoding means.

    Args:
        encoding: Such as `"str"` or `"ndarray:float32:3,4"`.
        first: Returns the first row's bytes, where arrays may say their dtype.

    Raises:
        ConfigError: It is not read.
    """
    kind, _, detail = encoding.partition(":")
    if kind in BLOBS:
        return MdsLeaf({"type": BLOBS[kind]}, _read_blob)
    if kind in NUMBERS:
        return MdsLeaf({"type": NUMBERS[kind][0]}, NUMBERS[kind][1])
    if kind in SCALARS:
        return MdsLeaf({"type": "array", "dtype": kind, "shape": [], "of": "scalar"}, partial(_read_scalar, kind))
    if kind == "ndarray":
        return _array_leaf(detail, first)
    if encoding in IMAGE_LISTS:
        return MdsLeaf({"type": "jpeg_array"}, _read_image_list)
    raise ConfigError(f"the MDS encoding {encoding!r} is not read; read are {', '.join(sorted({*BLOBS, *SCALARS, 'int', 'ndarray'}))}.")


def _read_blob(spans: Spans) -> Column:
    return bytes_column(*spans.joined())


def _read_image_list(spans: Spans) -> Column:
    return bytes_column(*spans.skip(4).joined())  # a u32 that is always zero comes first


def _read_scalar(dtype: str, spans: Spans) -> Column:
    return fixed_column(dtype, spans.fixed(np.dtype(dtype).newbyteorder("<"))[:, 0])


def _read_int_text(spans: Spans) -> Column:
    return bytes_column_of([bytes(spans.row(row)) for row in range(spans.rows)])  # decimal digits are JSON, of any length


def _read_float_text(spans: Spans) -> Column:
    return fixed_column("float64", np.array([float(bytes(spans.row(row))) for row in range(spans.rows)], np.float64))


NUMBERS = {
    "int": ("int", partial(_read_scalar, "int64")),
    "str_int": ("json", _read_int_text),
    "str_float": ("float", _read_float_text),
}


def _array_leaf(detail: str, first: Callable[[], memoryview]) -> MdsLeaf:
    dtype, _, dims = detail.partition(":")
    shape = [int(dim) for dim in dims.split(",")] if dims else None
    known = dtype or VALUE_DTYPES[first()[0]]
    node = {"type": "array", "dtype": known, "shape": shape, "of": "numpy"}
    return MdsLeaf(node, partial(_read_arrays, known, shape, is_dtype_stored=not dtype))


def _read_arrays(dtype: str, shape: list[int] | None, spans: Spans, *, is_dtype_stored: bool) -> Column:
    if is_dtype_stored:
        _same(spans, dtype)
        spans = spans.skip(1)
    if shape is not None:
        return array_column(dtype, spans.joined()[0], np.tile(np.array(shape, np.int64), (spans.rows, 1)))
    head = spans.fixed("u1")[:, 0].astype(np.int64)
    ranks, widths = head >> 2, 1 << (head & 3)
    if len(set(ranks.tolist())) > 1:
        raise SchemaError(f"arrays of an MDS column have ranks {sorted(set(ranks.tolist()))} in one block; read is one rank.")
    rank = int(ranks[0]) if len(ranks) else 1
    shapes = np.empty((spans.rows, rank), np.int64)
    starts, sizes = spans.starts + 1 + ranks * widths, spans.sizes - 1 - ranks * widths
    for width in set(widths.tolist()):  # the shape is as narrow as its largest dimension allows
        rows = np.flatnonzero(widths == width)
        part = Spans(spans.data, spans.starts[rows] + 1, spans.sizes[rows] - 1)
        shapes[rows] = part.fixed(f"<u{width}", rank).astype(np.int64)
    return array_column(dtype, Spans(spans.data, starts, sizes).joined()[0], shapes)


def _same(spans: Spans, dtype: str) -> None:
    codes = {VALUE_DTYPES.get(code, str(code)) for code in set(spans.fixed("u1")[:, 0].tolist())}
    if codes - {dtype}:
        raise SchemaError(f"arrays of an MDS column have dtypes {sorted(codes)} in one block; the first row's was {dtype}.")
