"""What sources of row by row formats share: how chunks are cut into blocks, and the buffer that travels from `fetch` to `open`."""

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.read.source import BlockTable

BLOCK_BYTES = 2 * 2**20
HEAD_BYTES = 8


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
