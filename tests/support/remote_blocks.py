"""A remote source whose blocks are runs of numbers in one object: what caches and fetches is tested on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leyden.core.errors import CorruptDataError
from leyden.core.storage import Storage, open_storage
from leyden.data.format.table import BlockTable
from leyden.data.read.fetch import Patience, read_range

PER_BLOCK = 1000


def content(blocks: int) -> bytes:
    return b"".join(block_bytes(number) for number in range(blocks))


def block_bytes(number: int) -> bytes:
    return np.full(PER_BLOCK, number, np.int32).tobytes()


class RemoteBlocks:
    """A `BlockSource` and `Remote`: block i is `PER_BLOCK` times the number i."""

    def __init__(self, url: str, options: Mapping[str, object], blocks: int, patience: Patience | None = None) -> None:
        self.url, self.options, self.patience = url, options, patience or Patience(first_seconds=0.001)
        numbers = np.arange(blocks)
        size = 4 * PER_BLOCK
        self.schema = None
        self.table = BlockTable(
            np.zeros(blocks, np.int32), numbers * PER_BLOCK, np.full(blocks, PER_BLOCK), numbers * size, np.full(blocks, size), None
        )
        self.chunk_names = ["numbers.bin"]
        self.digest, self.version = "d" * 32, 1
        self._storage: Storage | None = None

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> Any:
        return self.fetch_run(block, 1)[0]

    def open(self, block: int, buffer: Any) -> Any:
        return np.frombuffer(buffer, np.int32)

    def cache_key(self, block: int) -> str:
        return f"{self.digest}/{block}"

    def cached_bytes(self, block: int) -> int:
        return 4 * PER_BLOCK

    def fetch_run(self, first: int, count: int) -> list[Any]:
        if self._storage is None:
            self._storage = open_storage(self.url, self.options)
        size = 4 * PER_BLOCK
        data = read_range(self._storage, self.chunk_names[0], first * size, count * size, self.patience)
        return [data[start : start + size] for start in range(0, count * size, size)]

    def check(self, block: int, buffer: Any) -> None:
        if bytes(buffer) != block_bytes(block):
            raise CorruptDataError(f"chunk numbers.bin, block {block}: hash")
