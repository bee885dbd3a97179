"""Columns cut and joined: what packing does to rows that are stored already, without making samples of them.

Joining gives what a `LeafBuilder` makes of the same rows: arrays of one shape lie as a matrix, others as a list or as tensors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.data.codecs.array import from_npy, to_npy
from leyden.data.format.builder import smallest_token_dtype
from leyden.data.format.column import BYTES, FIXED, LIST, NULL, STRINGS, TENSOR, Column, bits_of, bytes_column_of, ends_of, present_in
from leyden.data.format.dtypes import by_name
from leyden.data.format.leaves import VARIABLE_BYTES, json_text
from leyden.data.format.schema import Leaf

_LARGEST_RANK = 8
_WIDE, _NARROW = 8, 1  # bytes that a Python number counts for, and a bool


def costs_of(column: Column, leaf: Leaf) -> NDArray[np.int64]:
    """Return int64 (rows,), how many bytes each row counts for when blocks are filled."""
    costs = _costs_of_present(column, leaf)
    if column.validity is not None:
        costs[~present_in(column)] = VARIABLE_BYTES
    return costs


def _costs_of_present(column: Column, leaf: Leaf) -> NDArray[np.int64]:
    if column.kind == NULL:
        return np.full(column.rows, VARIABLE_BYTES)
    if column.kind == FIXED and leaf.type != "array":
        return np.full(column.rows, _NARROW if leaf.type == "bool" else _WIDE)
    if column.is_npy:
        return np.array([0 if array is None else array.nbytes + 8 * array.ndim for array in _arrays_of(column)], np.int64)
    return _costs_of_strings(column) if column.kind == STRINGS else _costs_of_lengths(column, leaf)


def _costs_of_lengths(column: Column, leaf: Leaf) -> NDArray[np.int64]:
    lengths, rank = _lengths(column)
    if column.kind == BYTES:
        return VARIABLE_BYTES + lengths
    if leaf.type == "list":
        return VARIABLE_BYTES + lengths * (_NARROW if column.dtype == "bool" else _WIDE)
    return lengths * by_name(leaf.dtype or column.dtype).storage.itemsize + 8 * rank


def _costs_of_strings(column: Column) -> NDArray[np.int64]:
    if column.offsets is None or column.inner_offsets is None:
        raise AssertionError("lists of text have both offsets")
    starts = column.inner_offsets[column.offsets]
    return VARIABLE_BYTES + np.diff(column.offsets) * VARIABLE_BYTES + np.diff(starts)


def _lengths(column: Column) -> tuple[NDArray[np.int64], int]:
    """Return the elements of each row, and the rank of a row."""
    if column.kind == FIXED:
        return np.full(column.rows, int(np.prod(column.dims, dtype=np.int64))), len(column.dims)
    if column.offsets is None:
        raise AssertionError("rows of any length have offsets")
    return np.diff(column.offsets), 1 if column.shapes is None else int(column.shapes.shape[1])


def cut(column: Column, start: int, stop: int) -> Column:
    """Return rows `start` to `stop`, as views where that is possible."""
    if start == 0 and stop == column.rows:
        return column
    validity = None if column.validity is None else bits_of(present_in(column)[start:stop])
    if column.kind == NULL:
        return Column(NULL, "none", (), stop - start, column.values)
    if column.kind == FIXED:
        return Column(FIXED, column.dtype, column.dims, stop - start, column.values[start:stop], validity=validity)
    if column.offsets is None:
        raise AssertionError("rows of any length have offsets")
    low, high = int(column.offsets[start]), int(column.offsets[stop])
    offsets, values, inner = column.offsets[start : stop + 1] - low, column.values[low:high], column.inner_offsets
    if column.kind == STRINGS and inner is not None:
        values, inner = column.values[int(inner[low]) : int(inner[high])], inner[low : high + 1] - inner[low]
    shapes = None if column.shapes is None else column.shapes[start:stop]
    return Column(column.kind, column.dtype, (), stop - start, values, offsets, inner, shapes, validity, column.is_npy)


def joined(parts: Sequence[Column], leaf: Leaf, token_dtype: str | None = None) -> Column:
    """Return the rows of all parts as one column.

    Args:
        parts: At least one.
        leaf: What all of them are.
        token_dtype: Of a token dataset: `auto`, or the type that numbers are stored in.
    """
    kinds = {part.kind for part in parts} - {NULL}
    rows = sum(part.rows for part in parts)
    if not kinds:
        return Column(NULL, "none", (), rows, np.empty(0, np.uint8))
    if leaf.type == "array" and token_dtype is None:
        return _joined_arrays(parts, str(leaf.dtype))
    if kinds == {FIXED}:
        return _joined_fixed(parts)
    if kinds == {BYTES} or leaf.type == "json":
        return _joined_bytes([_as_json(part) for part in parts])
    if STRINGS in kinds:  # a block of empty lists does not know of what
        return _joined_strings(parts)
    return _joined_lists(parts, token_dtype)


def _joined_fixed(parts: Sequence[Column]) -> Column:
    known = [part for part in parts if part.kind == FIXED]
    dtype = next((part.dtype for part in known if part.dtype == "float64"), known[0].dtype)  # int with float is float
    storage, dims = by_name(dtype).storage, known[0].dims
    values = [part.values if part.kind == FIXED else np.zeros((part.rows, *dims), storage) for part in parts]
    whole = np.concatenate([each.astype(storage, copy=False) for each in values])
    return Column(FIXED, dtype, dims, len(whole), whole, validity=_validity(parts))


def _joined_bytes(parts: Sequence[Column]) -> Column:
    values = np.concatenate([part.values for part in parts if part.kind != NULL])
    is_npy = any(part.is_npy for part in parts)
    return Column(BYTES, "uint8", (), sum(part.rows for part in parts), values, _offsets(parts), validity=_validity(parts), is_npy=is_npy)


def _joined_strings(parts: Sequence[Column]) -> Column:
    known = [part for part in parts if part.kind == STRINGS]
    lengths = np.concatenate([np.diff(part.inner_offsets) for part in known if part.inner_offsets is not None])
    values = np.concatenate([part.values for part in known])
    rows = sum(part.rows for part in parts)
    return Column(STRINGS, "uint8", (), rows, values, _offsets(parts), ends_of(lengths), validity=_validity(parts))


def _joined_lists(parts: Sequence[Column], token_dtype: str | None) -> Column:
    filled = [part for part in parts if part.kind != NULL and part.values.size]
    values = np.concatenate([part.values.reshape(-1) for part in filled]) if filled else np.empty(0, np.int64)
    dtype = filled[0].dtype if filled else "int64"
    if token_dtype is not None:
        dtype = smallest_token_dtype(values) if token_dtype == "auto" else token_dtype  # noqa: S105 - no secret
        values = values.astype(by_name(dtype).storage, copy=False)
    return Column(LIST, dtype, (), sum(part.rows for part in parts), values, _offsets(parts), validity=_validity(parts))


def _joined_arrays(parts: Sequence[Column], dtype: str) -> Column:
    known = [part for part in parts if part.kind != NULL]
    if len({(part.kind, part.dims, part.dtype) for part in known}) == 1 and known[0].kind == FIXED:
        return _joined_fixed(parts)
    if any(part.is_npy for part in known):
        return _rebuilt([row for part in parts for row in _arrays_of(part)], dtype)
    lengths = np.concatenate([_lengths(part)[0] if part.kind != NULL else np.zeros(part.rows, np.int64) for part in parts])
    shapes = [_shapes_of(part) for part in known]
    if len({each.shape[1] for each in shapes}) > 1:
        return _rebuilt([row for part in parts for row in _arrays_of(part)], dtype)
    values = np.concatenate([part.values.reshape(-1) for part in known])
    rows, validity = len(lengths), _validity(parts)
    present = np.concatenate([present_in(part) for part in parts])
    every = np.zeros((rows, shapes[0].shape[1]), np.uint32)
    every[np.concatenate([np.full(part.rows, part.kind != NULL) for part in parts])] = np.concatenate(shapes)
    lengths[~present] = 0
    own = every[present]
    if len(own) == rows and (own == own[0]).all() and own.shape[1] <= _LARGEST_RANK:
        dims = tuple(own[0].tolist())
        return Column(FIXED, dtype, dims, rows, values.reshape(rows, *dims))
    every[~present] = 0
    kept = None if own.shape[1] == 1 else every
    values = _without_nulls(parts, values) if validity is not None else values
    return Column(LIST if kept is None else TENSOR, dtype, (), rows, values, ends_of(lengths), shapes=kept, validity=validity)


def _without_nulls(parts: Sequence[Column], values: NDArray[Any]) -> NDArray[Any]:
    """Return the elements of rows that are there: a matrix holds zeros for those that are not."""
    if not any(part.kind == FIXED and part.validity is not None for part in parts):
        return values
    flat = [
        part.values[present_in(part)].reshape(-1) if part.kind == FIXED else part.values.reshape(-1) for part in parts if part.kind != NULL
    ]
    return np.concatenate(flat)


def _rebuilt(rows: list[Any], dtype: str) -> Column:
    """Return a column of arrays, one by one: some are stored as files because their ranks differ."""
    shapes = {row.shape for row in rows if row is not None}
    if len({len(shape) for shape in shapes}) > 1 or any(len(shape) > _LARGEST_RANK for shape in shapes):
        return bytes_column_of([None if row is None else to_npy(row) for row in rows], is_npy=True)
    return _joined_arrays([_single(row, dtype) for row in rows], dtype)


def _single(row: Any, dtype: str) -> Column:
    if row is None:
        return Column(NULL, "none", (), 1, np.empty(0, np.uint8))
    return Column(FIXED, dtype, row.shape, 1, row[None])


def _arrays_of(part: Column) -> list[Any]:
    rows = [part.row(row) for row in range(part.rows)]
    return [None if row is None else from_npy(row.data) for row in rows] if part.is_npy else rows


def _shapes_of(part: Column) -> NDArray[np.uint32]:
    if part.kind == FIXED:
        return np.tile(np.array(part.dims, np.uint32), (part.rows, 1)).reshape(part.rows, len(part.dims))
    return part.shapes if part.shapes is not None else _lengths(part)[0].astype(np.uint32)[:, None]


def as_leaf(column: Column, leaf: Leaf) -> Column:
    """Return a column of one block as its leaf says: where lists met other values in later blocks, all of them are JSON."""
    return _as_json(column) if leaf.type == "json" else column


def _as_json(part: Column) -> Column:
    """Return lists of numbers or text as JSON, which other rows of the leaf are."""
    if part.kind in {BYTES, NULL}:
        return part
    texts: list[bytes | None] = []
    for row in range(part.rows):
        found = part.row(row)
        if found is None:
            texts.append(None)
        elif part.kind == STRINGS:
            texts.append(json_text([bytes(text).decode("utf-8", "surrogatepass") for text in found]))
        else:
            texts.append(json_text(found.tolist()))
    return bytes_column_of(texts)


def _offsets(parts: Sequence[Column]) -> NDArray[np.int64]:
    lengths = [np.zeros(part.rows, np.int64) if part.kind == NULL else _lengths(part)[0] for part in parts]
    return ends_of(np.concatenate(lengths))


def _validity(parts: Sequence[Column]) -> NDArray[np.uint8] | None:
    if all(part.validity is None and part.kind != NULL for part in parts):
        return None
    return bits_of(np.concatenate([present_in(part) for part in parts]))
