"""What a tray holds: one column per leaf, in one of three forms, sliced without a copy.

| form | for | a batch of it is |
|---|---|---|
| `Dense` | numbers, and arrays that all have one shape | a slice |
| `Ragged` | arrays of several shapes, lists of numbers | a slice of the elements; reshaped where its shapes are equal |
| `Ragged`, dtype `BINARY` | bytes, where views of them are asked for | a list of memoryviews |
| `Objects` | text, bytes, decoded media, anything else | a slice of the list |
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arena = Callable[[int], "memoryview | None"]
Nulls = NDArray[np.bool_] | None
BINARY = "binary"


class Dense(NamedTuple):
    """Rows of one shape.

    Args:
        values: (rows, *shape); zeros where a row is null.
        nulls: bool (rows,), or `None` if no row is null.
        dtype: The dtype's name, which numpy's type does not say of `bfloat16` and `float8`.
    """

    values: NDArray[Any]
    nulls: Nulls = None
    dtype: str = ""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.values)

    def slice(self, start: int, stop: int) -> "Dense":
        """Return some of the rows, as views."""
        return Dense(self.values[start:stop], _cut(self.nulls, start, stop), self.dtype)

    def row(self, index: int) -> NDArray[Any] | None:
        """Return one row as an array, without a dimension if it is a number."""
        return None if self.nulls is not None and self.nulls[index] else self.values[index, ...]


class Ragged(NamedTuple):
    """Rows of several shapes and one rank; those of rank 1 need no `shapes`.

    Args:
        values: The elements of all rows.
        offsets: int64 (rows + 1,), where rows begin in `values`.
        shapes: int64 (rows, rank), or `None` if the rank is 1.
        nulls: bool (rows,), or `None` if no row is null.
        dtype: As of `Dense`.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]
    shapes: NDArray[np.int64] | None = None
    nulls: Nulls = None
    dtype: str = ""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.offsets) - 1

    def slice(self, start: int, stop: int) -> "Ragged | Dense":
        """Return some of the rows as views; they are `Dense` if they have one shape."""
        offsets, shapes, nulls = self.offsets[start : stop + 1], _cut(self.shapes, start, stop), _cut(self.nulls, start, stop)
        shape = None if self.dtype == BINARY else _common_shape(offsets, shapes)
        if shape is not None and (nulls is None or not nulls.any()):
            return Dense(self.values[offsets[0] : offsets[-1]].reshape(len(offsets) - 1, *shape), None, self.dtype)
        return Ragged(self.values, offsets, shapes, nulls, self.dtype)

    def views(self, start: int, stop: int) -> list[memoryview | None]:
        """Return some of the rows as views of their elements."""
        data, ends = self.values.data, self.offsets[start : stop + 1].tolist()
        found: list[memoryview | None] = [data[a:b] for a, b in pairwise(ends)]
        for index in [] if self.nulls is None else np.flatnonzero(self.nulls[start:stop]).tolist():
            found[index] = None
        return found

    def row(self, index: int) -> NDArray[Any] | None:
        """Return one row as an array."""
        if self.nulls is not None and self.nulls[index]:
            return None
        values = self.values[self.offsets[index] : self.offsets[index + 1]]
        return values if self.shapes is None else values.reshape(self.shapes[index])


class Objects(NamedTuple):
    """Rows that are Python objects; a null is `None`.

    Args:
        values: The rows.
        kind: What they are.
    """

    values: list[Any]
    kind: Literal["str", "bytes", "list", "object"] = "object"

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.values)

    def slice(self, start: int, stop: int) -> "Objects":
        """Return some of the rows."""
        return Objects(self.values[start:stop], self.kind)

    def row(self, index: int) -> Any:
        """Return one row."""
        return self.values[index]


TrayColumn = Dense | Ragged | Objects


def allocate(shape: tuple[int, ...], dtype: np.dtype[Any], arena: Arena | None) -> NDArray[Any]:
    """Return an array that lies where `arena` says, if it says so; its content is anything."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    place = arena(size) if arena is not None and size else None
    return np.empty(shape, dtype) if place is None else np.frombuffer(place, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)


def stack(rows: list[Any], nulls: Nulls, arena: Arena | None) -> TrayColumn:
    """Return decoded arrays as a column: dense if their shapes are equal, ragged if their ranks are, else as objects."""
    present = [row for row in rows if row is not None]
    if not present or any(not isinstance(row, np.ndarray) or row.dtype != present[0].dtype for row in present):
        return Objects(rows)
    first = present[0]
    if all(row.shape == first.shape for row in present):
        out = allocate((len(rows), *first.shape), first.dtype, arena)
        for index, row in enumerate(rows):
            out[index] = 0 if row is None else row
        return Dense(out, nulls, first.dtype.name)
    if any(row.ndim != first.ndim or row.ndim == 0 for row in present):
        return Objects(rows)
    shapes = np.array([(0,) * first.ndim if row is None else row.shape for row in rows], np.int64)
    offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
    out = allocate((int(offsets[-1]),), first.dtype, arena)
    for index, row in enumerate(rows):
        if row is not None:
            out[offsets[index] : offsets[index + 1]] = row.reshape(-1)
    return Ragged(out, offsets, shapes if first.ndim > 1 else None, nulls, first.dtype.name)


def _common_shape(offsets: NDArray[np.int64], shapes: NDArray[np.int64] | None) -> tuple[int, ...] | None:
    if shapes is not None:
        return tuple(shapes[0].tolist()) if len(shapes) and (shapes == shapes[0]).all() else None
    lengths = np.diff(offsets)
    return (int(lengths[0]),) if len(lengths) and (lengths == lengths[0]).all() else None


def _cut(array: Any, start: int, stop: int) -> Any:
    return None if array is None else array[start:stop]
