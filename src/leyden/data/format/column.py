"""`Column`: the values of one leaf in one block, in the memory layout of Arrow.

| kind | rows are | where |
|---|---|---|
| `NULL` | `None` | nowhere |
| `FIXED` | scalars, or arrays of one shape | `values` (rows, *dims) |
| `BYTES` | text, files, JSON, `.npy` | `values[offsets[i] : offsets[i + 1]]` |
| `LIST` | one-dimensional, of any length | the same, in elements |
| `TENSOR` | arrays of one rank | the same, reshaped to `shapes[i]` |
| `STRINGS` | lists of text | strings `offsets[i] : offsets[i + 1]`, each found through `inner_offsets` |
"""

import dataclasses
import itertools
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

NULL, FIXED, BYTES, LIST, TENSOR, STRINGS = range(6)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """The values of one leaf in one block.

    Args:
        kind: `NULL`, `FIXED`, `BYTES`, `LIST`, `TENSOR` or `STRINGS`.
        dtype: The name of the elements' type.
        dims: The shape of a row, of kind fixed.
        rows: How many rows there are.
        values: All elements: (rows, *dims) of kind fixed, else flat.
        offsets: int64 (rows + 1,), where rows begin.
        inner_offsets: int64, where strings begin.
        shapes: uint32 (rows, rank), of tensors.
        validity: uint8, a bit for each row that is not null; `None` if none is.
        is_npy: Whether the bytes are `.npy` files.
    """

    kind: int
    dtype: str
    dims: tuple[int, ...]
    rows: int
    values: NDArray[Any]
    offsets: NDArray[np.int64] | None = None
    inner_offsets: NDArray[np.int64] | None = None
    shapes: NDArray[np.uint32] | None = None
    validity: NDArray[np.uint8] | None = None
    is_npy: bool = False

    def is_null(self, row: int) -> bool:
        """Return whether a row is `None`."""
        if self.kind == NULL:
            return True
        return self.validity is not None and not self.validity[row >> 3] >> (row & 7) & 1

    def row(self, row: int) -> Any:
        """Return the stored value of a row: `None`, a scalar or an array, bytes as uint8, a list of uint8 arrays of text."""
        if self.is_null(row):
            return None
        if self.kind == FIXED:
            return self.values[row]
        assert self.offsets is not None  # noqa: S101 - every other kind has them
        start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
        if self.kind == STRINGS:
            assert self.inner_offsets is not None  # noqa: S101 - the same
            ends = self.inner_offsets[start : stop + 1].tolist()
            return [self.values[a:b] for a, b in itertools.pairwise(ends)]
        found = self.values[start:stop]
        return found if self.shapes is None else found.reshape(self.shapes[row])


def bits_of(present: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
    """Return the bitmap of a validity column; `None` if every row is there."""
    return None if present.all() else np.packbits(present, bitorder="little")


def present_in(column: Column) -> NDArray[np.bool_]:
    """Return bool (rows,), whether each row is not null."""
    if column.kind == NULL:
        return np.zeros(column.rows, np.bool_)
    if column.validity is None:
        return np.ones(column.rows, np.bool_)
    return np.unpackbits(column.validity, count=column.rows, bitorder="little").astype(np.bool_)


def ends_of(lengths: Any) -> NDArray[np.int64]:
    """Return offsets, one more than there are lengths, beginning with 0."""
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def bytes_column_of(parts: list[bytes | None], *, is_npy: bool = False) -> Column:
    """Return a column of bytes, null where a part is `None`."""
    present = np.array([part is not None for part in parts], np.bool_)
    joined = np.frombuffer(b"".join(part for part in parts if part is not None), np.uint8)
    offsets = ends_of([0 if part is None else len(part) for part in parts])
    return Column(BYTES, "uint8", (), len(parts), joined, offsets, validity=bits_of(present), is_npy=is_npy)
