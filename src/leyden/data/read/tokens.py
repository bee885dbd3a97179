"""`TokenWindows`: rows that are windows of one long stream of tokens, across documents, blocks and chunks.

Window i holds tokens [iB, iB + B) of the stream; it belongs to the block with its first token and may reach into the
next ones. Windows that begin in one block begin B tokens apart, so inside a block they are the rows of a matrix that
needs no copy, and a window is copied once: from the map of the file to its place in the tray, cast on the way.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.data.format.table import BlockTable
from leyden.data.read.blocks import KeptBlock
from leyden.data.read.columns import Arena, Dense, allocate
from leyden.data.read.gather import FIXED, Group, groups, storage
from leyden.data.read.source import Column

_WIDE = 256  # tokens of a window, from which on a slice per window beats numpy's take and scatter (measured: 150 to 300)


@final
class TokenWindows:
    """The windows of a token dataset.

    Args:
        table: The blocks, with their `tokens`.
        block_size: Tokens in a window, B.
        has_documents: Whether each token's document and its position in it are wanted too.

    Raises:
        ConfigError: The stream is shorter than one window.
    """

    def __init__(self, table: BlockTable, block_size: int, *, has_documents: bool = False) -> None:
        tokens = _tokens_of(table)
        self.block_size = block_size
        self.has_documents = has_documents
        self._start = np.concatenate([np.zeros(1, np.int64), np.cumsum(tokens)])
        self._first_stored_row = table.first_row
        total = int(self._start[-1])
        if total < block_size:
            raise ConfigError(f"block_size={block_size} is larger than this dataset of {total} tokens: take a smaller one.")
        self.num_rows = total // block_size
        first = np.minimum(-(-self._start // block_size), self.num_rows)
        self.table = table._replace(first_row=first[:-1], rows=np.diff(first))
        offset = first[:-1] * block_size - self._start[:-1]
        self._first_offset = offset.tolist()  # of a block's first window, in its tokens
        self._inside = np.maximum(0, (tokens - offset) // block_size)  # windows that end in the block that they begin in

    def blocks_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the blocks that windows need, each once, in the order of need."""
        first, last = self._block_of(rows * self.block_size), self._block_of((rows + 1) * self.block_size - 1)
        reach = int((last - first).max(initial=0)) + 1
        both = np.minimum(first[:, None] + np.arange(reach), last[:, None]).reshape(-1)
        unique, where = np.unique(both, return_index=True)
        return unique[np.argsort(where)]

    def gather(
        self, open_block: Callable[[int], KeptBlock], rows: NDArray[np.int64], dtype: str, arena: Arena | None = None
    ) -> list[Dense]:
        """Return the windows as one array (rows, B), and if wanted their documents and positions.

        Args:
            open_block: Opens a block by its number.
            rows: Numbers of windows, in any order.
            dtype: Of the result; blocks may store smaller ones.
            arena: Where the array shall lie.
        """
        size = self.block_size
        out = allocate((len(rows), size), storage(dtype), arena)
        crossing: list[int] = []
        for group in groups(open_block, self.table.first_row, rows):
            inside = int(self._inside[group.number])
            windows = self._windows(group, inside)
            if size < _WIDE:
                is_inside = group.rows < inside
                crossing += group.places[~is_inside].tolist()
                out[group.places[is_inside]] = windows[group.rows[is_inside]]
                continue
            for place, row in zip(group.places.tolist(), group.rows.tolist(), strict=True):
                if row < inside:
                    out[place] = windows[row]
                else:
                    crossing.append(place)
        for place in crossing:
            self._copy_crossing(open_block, int(rows[place]), out[place])
        tokens = Dense(out, None, dtype)
        return [tokens, *self._documents(open_block, rows, arena)] if self.has_documents else [tokens]

    def _windows(self, group: Group, inside: int) -> NDArray[np.int64]:
        """Return the windows of a block as a matrix; a view."""
        memo = group.block.memo
        found = memo.get(self.block_size)
        if found is None:
            offset = self._first_offset[group.number]
            values = _flat(group.block.column(0))
            found = memo[self.block_size] = values[offset : offset + inside * self.block_size].reshape(inside, self.block_size)
        return found

    def _copy_crossing(self, open_block: Callable[[int], KeptBlock], row: int, out: NDArray[np.int64]) -> None:
        position, filled = row * self.block_size, 0
        block = int(self._block_of(np.array([position]))[0])
        while filled < self.block_size:
            values = _flat(open_block(block).column(0))
            begin = position + filled - int(self._start[block])
            piece = values[begin : begin + self.block_size - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            block += 1

    def _documents(self, open_block: Callable[[int], KeptBlock], rows: NDArray[np.int64], arena: Arena | None) -> list[Dense]:
        documents = allocate((len(rows), self.block_size), np.dtype(np.int64), arena)
        positions = allocate((len(rows), self.block_size), np.dtype(np.int64), arena)
        for place, row in enumerate(rows.tolist()):
            at = np.arange(row * self.block_size, (row + 1) * self.block_size)
            blocks = self._block_of(at)
            for block in np.unique(blocks).tolist():
                mine = blocks == block
                offsets = _document_offsets(open_block(block).column(0))
                local = at[mine] - self._start[block]
                document = np.searchsorted(offsets, local, side="right") - 1
                documents[place, mine] = document + self._first_stored_row[block]
                positions[place, mine] = local - offsets[document]
        return [Dense(documents, None, "int64"), Dense(positions, None, "int64")]

    def _block_of(self, token: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._start, token, side="right") - 1


def _flat(column: Column) -> NDArray[np.int64]:
    return column.values.reshape(-1)


def _document_offsets(column: Column) -> NDArray[np.int64] | Sequence[int]:
    if column.kind == FIXED:
        return np.arange(column.rows + 1) * int(np.prod(column.dims, dtype=np.int64))
    if column.offsets is None:
        raise AssertionError("documents are lists of tokens")
    return column.offsets


def _tokens_of(table: BlockTable) -> NDArray[np.int64]:
    if not len(table.rows):
        return np.zeros(0, np.int64)  # all were deleted: nothing says any more what they were
    if table.tokens is None:
        raise ConfigError("TokensLoader reads datasets that were written with item_loader=TokensLoader(); this one holds samples.")
    return table.tokens


class WindowLeaf(NamedTuple):
    """What a window is in the schema of those who read windows: an array of one shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    type: str = "array"
    nullable: bool = False
    of: str = "torch"


def window_schema(windows: TokenWindows, dtype: str) -> tuple[dict[str, Any], list[WindowLeaf]]:
    """Return the tree and the leaves of windows: a tensor, or with documents a dict of three."""
    shape = (windows.block_size,)
    if not windows.has_documents:
        return {"kind": "leaf", "name": ""}, [WindowLeaf("", dtype, shape)]
    leaves = [WindowLeaf("tokens", dtype, shape), WindowLeaf("document", "int64", shape), WindowLeaf("position", "int64", shape)]
    keys = [leaf.name for leaf in leaves]
    return {"kind": "dict", "keys": keys, "children": [{"kind": "leaf", "name": name} for name in keys]}, leaves
