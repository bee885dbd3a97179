"""`BlockSource`: what every format is to the code above it.

A source is a table of blocks (where each lies and how many rows it has) and two acts: `fetch` brings a block's bytes,
`open` makes columns of them. Order, cache, loader and datasets are written once, on this.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class BlockTable(NamedTuple):
    """Every block of a version, in row order, as arrays of equal length `blocks`; never one Python object per block.

    Args:
        chunk: int32 (blocks,), the number of the chunk that holds the block.
        first_row: int64 (blocks,), the block's first stored row in the dataset.
        rows: int64 (blocks,), how many stored rows it has.
        offset: int64 (blocks,), where its bytes begin in the chunk.
        stored_bytes: int64 (blocks,), how many there are.
        tokens: int64 (blocks,) of a token dataset, else `None`.
    """

    chunk: NDArray[np.int32]
    first_row: NDArray[np.int64]
    rows: NDArray[np.int64]
    offset: NDArray[np.int64]
    stored_bytes: NDArray[np.int64]
    tokens: NDArray[np.int64] | None


class Column(Protocol):
    """The values of one leaf in one block, as `leyden.data.format.column.Column` holds them."""

    kind: int
    dtype: str
    rows: int


class Block(Protocol):
    """An opened block."""

    rows: int
    first_row: int

    def column(self, index: int) -> Any:
        """Return column number `index` of the schema's leaves, checked and decoded; read only."""
        ...


class BlockSource(Protocol):
    """A version of a dataset in some format. Safe to use from several threads; pickles as configuration."""

    schema: Any
    table: BlockTable
    chunk_names: Sequence[str]
    digest: str
    version: int

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> Any:
        """Return the block's bytes, from disk as a map, else from storage; with `columns`, at least what these need.

        Raises:
            CorruptDataError: The chunk is shorter than the manifest says, or was replaced.
        """
        ...

    def open(self, block: int, buffer: Any) -> Block:
        """Return the block that `buffer`, from `fetch`, holds."""
        ...
