"""`Spans`: where one leaf of every row lies in a buffer, and the ways to make arrays of it without a loop per value."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import CorruptDataError


class Spans(NamedTuple):
    """One leaf of each row, somewhere in a buffer.

    Args:
        data: uint8, the buffer.
        starts: int64 (rows,), where each value begins.
        sizes: int64 (rows,), how many bytes it has.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts)

    def row(self, index: int) -> memoryview:
        """Return one value's bytes."""
        start = int(self.starts[index])
        return self.data.data[start : start + int(self.sizes[index])]

    def skip(self, count: int) -> "Spans":
        """Return the spans without their first `count` bytes."""
        return Spans(self.data, self.starts + count, self.sizes - count)

    def fixed(self, dtype: Any, count: int = 1) -> NDArray[Any]:
        """Return (rows, count) values of `dtype` from the beginning of each span; little-endian unless `dtype` says otherwise."""
        wanted = np.dtype(dtype)
        width = wanted.itemsize * count
        if self.rows and (self.sizes < width).any():
            raise CorruptDataError(f"a row holds {int(self.sizes.min())} bytes where {width} are needed")
        if not self.rows or not width:
            return np.empty((self.rows, count), wanted)
        gathered = self.data[self.starts[:, None] + np.arange(width)]
        return np.ascontiguousarray(gathered).view(wanted).reshape(self.rows, count)

    def joined(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return all values one after the other, and the rows + 1 offsets between them."""
        offsets = np.zeros(self.rows + 1, np.int64)
        np.cumsum(self.sizes, out=offsets[1:])
        if self.rows and np.array_equal(self.starts[1:], self.starts[:-1] + self.sizes[:-1]):  # side by side already
            first = int(self.starts[0])
            return self.data[first : first + int(offsets[-1])].copy(), offsets
        view = self.data.data
        ends = self.starts + self.sizes
        parts = [view[start:end] for start, end in zip(self.starts.tolist(), ends.tolist(), strict=True)]
        return np.frombuffer(b"".join(parts), np.uint8), offsets


def split_rows(data: NDArray[np.uint8], offsets: NDArray[np.int64], leaves: int) -> list[Spans]:
    """Return the spans of each leaf of rows that begin with the u32 sizes of their leaves.

    Args:
        data: uint8, the buffer.
        offsets: int64 (rows + 1,), where rows begin and the last one ends.
        leaves: How many leaves a row has.

    Raises:
        CorruptDataError: The sizes do not add up to the row.
    """
    whole = Spans(data, offsets[:-1], np.diff(offsets))
    sizes = whole.fixed("<u4", leaves).astype(np.int64)
    if whole.rows and (sizes.sum(axis=1) + 4 * leaves != whole.sizes).any():
        raise CorruptDataError("the sizes of a row's leaves do not add up to the row")
    starts = offsets[:-1, None] + 4 * leaves + np.cumsum(sizes, axis=1) - sizes
    return [Spans(data, starts[:, leaf].copy(), sizes[:, leaf].copy()) for leaf in range(leaves)]
