"""`OpenBlocks`: the blocks that a process has at hand, opened and decoded once, up to a number of bytes.

What a block costs is what it holds beside its map: decompressed buffers and decoded text. Blocks of plain local files
cost nothing but their Python objects, and are kept by number.
"""

import collections
import mmap
import threading
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.read.source import Block, BlockSource, Column

_MOST_BLOCKS = 4096
_SHRINK_EVERY = 8  # blocks opened
_FLOOR_BYTES = 512  # of a block's Python objects


@final
class KeptBlock:
    """An opened block that remembers its columns, and the text of its ASCII columns.

    Args:
        block: What `BlockSource.open` returned.
    """

    def __init__(self, block: Block) -> None:
        self.rows = block.rows
        self.first_row = block.first_row
        self._block = block
        self._columns: dict[int, Column] = {}
        self._texts: dict[int, str | None] = {}
        self.memo: dict[Any, Any] = {}  # views that others have made of it
        self.extra_bytes = _FLOOR_BYTES

    def column(self, index: int) -> Column:
        """Return column number `index`, checked and decoded."""
        column = self._columns.get(index)
        if column is None:
            column = self._block.column(index)
            self._columns[index] = column
            if not _is_mapped(column.values):
                self.extra_bytes += column.values.nbytes
        return column

    def text(self, index: int) -> str | None:
        """Return all text of a column of bytes, or `None` if it is not ASCII: only then characters are bytes."""
        if index not in self._texts:
            data = self.column(index).values.tobytes()
            self._texts[index] = data.decode("ascii") if data.isascii() else None
            self.extra_bytes += len(data)
        return self._texts[index]


@final
class OpenBlocks:
    """The opened blocks of a source; those that were not used for the longest time make room. Thread safe.

    Args:
        source: Where blocks come from.
        budget_bytes: How much decoded data may be held.
        columns: Which columns are fetched; `None` is all.
    """

    def __init__(self, source: BlockSource, budget_bytes: int, columns: "tuple[int, ...] | None" = None) -> None:
        self._source = source
        self._budget = budget_bytes
        self._columns = columns
        self._kept: collections.OrderedDict[int, KeptBlock] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._opened = 0

    def open(self, number: int) -> KeptBlock:
        """Return a block, from what is kept or from the source."""
        with self._lock:
            kept = self._kept.get(number)
            if kept is not None:
                self._kept.move_to_end(number)
                return kept
        opened = KeptBlock(self._source.open(number, self._source.fetch(number, self._columns)))
        with self._lock:
            kept = self._kept.setdefault(number, opened)
            self._opened += 1
            if self._opened % _SHRINK_EVERY == 0:
                self._shrink()
            return kept

    def has(self, number: int) -> bool:
        """Return whether a block is open already."""
        return number in self._kept

    def drop(self, number: int) -> None:
        """Forget a block."""
        with self._lock:
            self._kept.pop(number, None)

    def _shrink(self) -> None:
        # Costs grow after a block is opened, so they are summed anew, now and then.
        held = sum(kept.extra_bytes for kept in self._kept.values())
        while len(self._kept) > 1 and (held > self._budget or len(self._kept) > _MOST_BLOCKS):
            held -= self._kept.popitem(last=False)[1].extra_bytes


def _is_mapped(array: NDArray[Any]) -> bool:
    """Return whether an array is a view of a map, and costs no memory of its own."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.base is None:
            return False
        owner = owner.base
    return isinstance(owner, memoryview) and isinstance(owner.obj, mmap.mmap)
