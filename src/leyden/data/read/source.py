"""`BlockSource`: what every format is to the code above it.

A source is a table of blocks (where each lies and how many rows it has) and two acts: `fetch` brings a block's bytes,
`open` makes columns of them. Order, cache, loader and datasets are written once, on this.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leyden.data.format.table import BlockTable


class Leaf(Protocol):
    """A leaf of the schema, as `leyden.data.format.schema.Leaf`."""

    name: str
    type: str
    nullable: bool
    dtype: str | None
    shape: Any
    of: str | None


class Column(Protocol):
    """The values of one leaf in one block, as `leyden.data.format.column.Column` holds them.

    `kind` is 0 null, 1 fixed, 2 bytes, 3 list, 4 tensor, 5 strings.
    """

    @property
    def kind(self) -> int:
        """How the rows lie."""
        ...

    @property
    def dtype(self) -> str:
        """The elements' dtype."""
        ...

    @property
    def dims(self) -> Sequence[int]:
        """The shape of a row, of kind fixed."""
        ...

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def values(self) -> NDArray[Any]:
        """All elements: (rows, *dims) of kind fixed, else flat."""
        ...

    @property
    def offsets(self) -> NDArray[np.int64] | None:
        """int64 (rows + 1,), where rows begin: in `values`, of strings in `inner_offsets`."""
        ...

    @property
    def inner_offsets(self) -> NDArray[np.int64] | None:
        """int64, where strings begin in `values`."""
        ...

    @property
    def shapes(self) -> NDArray[np.uint32] | None:
        """uint32 (rows, rank), of tensors."""
        ...

    @property
    def validity(self) -> NDArray[np.uint8] | None:
        """A bit for each row that is not null; `None` if none is."""
        ...


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
