"""What sources of row by row formats share: how chunks are cut into blocks, and the buffer that travels from `fetch` to `open`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.codecs.serializer import Serializer
from leyden.data.format.schema import Schema
from leyden.data.format.table import BlockTable
from leyden.data.interop.columns import ForeignBlock
from leyden.data.interop.files import ForeignFiles

BLOCK_BYTES = 2 * 2**20
HEAD_BYTES = 8


class ForeignSource(ABC):
    """A `BlockSource` of another format, and what the node cache asks of one that lies elsewhere."""

    version = 1
    schema: Schema
    table: BlockTable
    chunk_names: Sequence[str]
    digest: str
    files: ForeignFiles
    serializers: Mapping[str, Serializer] = {}  # of leaves that only this format has

    @abstractmethod
    def fetch(self, block: int, columns: Sequence[int] | None = None) -> bytes:
        """Return a buffer that holds all that `open` needs."""

    @abstractmethod
    def open(self, block: int, buffer: Any) -> ForeignBlock:
        """Return the columns of a buffer of `fetch`."""

    @property
    def is_local(self) -> bool:
        """Whether the files can be mapped here, so that no cache is needed."""
        return self.files.is_local

    def cache_key(self, block: int) -> str:
        """Return a name that says the block's content."""
        return f"{self.digest}/{block}"

    def cached_bytes(self, block: int) -> int | None:
        """Return `None`: how long a buffer is shows when it is made."""
        del block
        return None

    def fetch_run(self, first: int, count: int) -> Sequence[bytes]:
        """Return the buffers of blocks that lie side by side."""
        return [self.fetch(block) for block in range(first, first + count)]

    def check(self, block: int, buffer: Any) -> None:  # noqa: B027 - most formats have no hashes
        """Do nothing: formats with hashes were checked when the file was read."""


@final
class Plan:
    """Chunks cut into runs of about 2 MiB; where a run begins in bytes is a guess, as only the chunk's own header says it.

    Args:
        rows: int64 (chunks,), rows in each.
        stored_bytes: int64 (chunks,), bytes of each.
        step: Blocks begin at multiples of so many rows of their chunk.
    """

    def __init__(self, rows: NDArray[np.int64], stored_bytes: NDArray[np.int64], step: int = 1) -> None:
        per_row = stored_bytes / np.maximum(rows, 1)
        most = np.maximum(1, (BLOCK_BYTES // np.maximum(per_row, 1)).astype(np.int64))
        most = np.maximum(1, most // step) * step
        blocks = -(-rows // most)
        chunk = np.repeat(np.arange(len(rows), dtype=np.int32), blocks)
        number = np.arange(len(chunk)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        self.starts = number * most[chunk]
        count = np.minimum(most[chunk], rows[chunk] - self.starts)
        offset = (self.starts * per_row[chunk]).astype(np.int64)
        self.table = BlockTable(
            chunk=chunk,
            first_row=(np.cumsum(rows) - rows)[chunk] + self.starts,
            rows=count,
            offset=offset,
            stored_bytes=((self.starts + count) * per_row[chunk]).astype(np.int64) - offset,
            tokens=None,
        )

    def place(self, block: int) -> tuple[int, int, int]:
        """Return a block's chunk, its first row in the chunk, and its rows."""
        return int(self.table.chunk[block]), int(self.starts[block]), int(self.table.rows[block])


def pack_items(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> bytes:
    """Return a buffer of items: `u32 rows | u32 0 | i64 offset[rows + 1] | items`."""
    return np.array([len(offsets) - 1, 0], "<u4").tobytes() + offsets.astype("<i8").tobytes() + data.tobytes()


def unpack_items(buffer: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the items of a buffer of `pack_items` and where they begin."""
    data = np.frombuffer(buffer, np.uint8)
    rows = int(data[:4].view("<u4")[0])
    head = HEAD_BYTES + 8 * (rows + 1)
    return data[head:], data[HEAD_BYTES:head].view("<i8")
