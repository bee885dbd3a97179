"""Columns of foreign blocks: the few shapes that values of other formats take here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.format.column import BYTES, FIXED, LIST, NULL, STRINGS, TENSOR, Column, bits_of, ends_of, present_in
from leyden.data.format.dtypes import by_name


@final
@dataclass(slots=True)
class ForeignBlock:
    """Rows of another format, as columns.

    Args:
        rows: How many there are.
        first_row: The first one's number in the dataset.
        columns: One for each leaf of the schema.
    """

    rows: int
    first_row: int
    columns: Sequence[Column]

    def column(self, index: int) -> Column:
        """Return column number `index`."""
        return self.columns[index]


def storage_of(dtype: str) -> np.dtype[Any]:
    """Return numpy's type for values of a dtype of ours."""
    return by_name(dtype).storage


def fixed_column(dtype: str, values: NDArray[Any], validity: NDArray[np.uint8] | None = None) -> Column:
    """Return a column of one shape: values (rows, …)."""
    return Column(
        kind=FIXED, dtype=dtype, dims=values.shape[1:], rows=len(values), values=values.view(storage_of(dtype)), validity=validity
    )


def bytes_column(values: NDArray[np.uint8], offsets: NDArray[np.int64], validity: NDArray[np.uint8] | None = None) -> Column:
    """Return a column of bytes: row i is `values[offsets[i] : offsets[i + 1]]`."""
    return Column(kind=BYTES, dtype="uint8", dims=(), rows=len(offsets) - 1, values=values, offsets=offsets, validity=validity)


def list_column(dtype: str, values: NDArray[Any], offsets: NDArray[np.int64], validity: NDArray[np.uint8] | None = None) -> Column:
    """Return a column of one-dimensional rows: row i is `values[offsets[i] : offsets[i + 1]]`."""
    return Column(
        kind=LIST, dtype=dtype, dims=(), rows=len(offsets) - 1, values=values.view(storage_of(dtype)), offsets=offsets, validity=validity
    )


def strings_column(
    values: NDArray[np.uint8], inner: NDArray[np.int64], offsets: NDArray[np.int64], validity: NDArray[np.uint8] | None = None
) -> Column:
    """Return a column of lists of text: string i is `values[inner[i] : inner[i + 1]]`, row i has those from `offsets[i]`."""
    return Column(
        kind=STRINGS,
        dtype="uint8",
        dims=(),
        rows=len(offsets) - 1,
        values=values,
        offsets=offsets,
        inner_offsets=inner,
        validity=validity,
    )


def array_column(dtype: str, values: NDArray[np.uint8], shapes: NDArray[np.int64]) -> Column:
    """Return a column of arrays of one rank.

    Args:
        dtype: Of all elements.
        values: uint8, the elements of all rows.
        shapes: int64 (rows, rank).
    """
    elements = values.view(storage_of(dtype))
    rows, rank = shapes.shape
    if rows and (shapes == shapes[0]).all():
        dims = tuple(shapes[0].tolist())
        return fixed_column(dtype, elements.reshape(rows, *dims))
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(shapes.prod(axis=1), out=offsets[1:])
    if rank == 1:
        return Column(kind=LIST, dtype=dtype, dims=(), rows=rows, values=elements, offsets=offsets)
    return Column(kind=TENSOR, dtype=dtype, dims=(), rows=rows, values=elements, offsets=offsets, shapes=shapes.astype(np.uint32))


def taken(column: Column, rows: NDArray[np.int64]) -> Column:
    """Return a column of some rows."""
    validity = None if column.validity is None else bits_of(present_in(column)[rows])
    if column.kind == NULL:
        return replace(column, rows=len(rows))
    if column.kind == FIXED:
        return replace(column, rows=len(rows), values=column.values[rows], validity=validity)
    ends = np.asarray(column.offsets)
    lengths = np.diff(ends)[rows]
    picked = np.repeat(ends[rows] - ends_of(lengths)[:-1], lengths) + np.arange(int(lengths.sum()))
    shapes = None if column.shapes is None else column.shapes[rows]
    changed = replace(column, rows=len(rows), offsets=ends_of(lengths), shapes=shapes, validity=validity)
    if column.kind != STRINGS:
        return replace(changed, values=column.values[picked])
    inner = taken(Column(BYTES, "uint8", (), len(np.asarray(column.inner_offsets)) - 1, column.values, column.inner_offsets), picked)
    return replace(changed, values=inner.values, inner_offsets=inner.offsets)
