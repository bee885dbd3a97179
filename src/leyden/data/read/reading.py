"""`Reading`: a source at work in this process: its opened blocks, what its leaves become, and its fetches."""

import sys
import threading
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.forks import restart_after_fork
from leyden.data.format.table import BlockTable
from leyden.data.read.blocks import KeptBlock, OpenBlocks
from leyden.data.read.cached import CachedSource
from leyden.data.read.fetch import Fetcher
from leyden.data.read.row import Binary, Output, Samples
from leyden.data.read.source import BlockSource
from leyden.data.read.supply import Supply
from leyden.data.read.tokens import TokenWindows


@final
class Reading:
    """A source at work. Thread safe; pickles as configuration: threads, maps and opened blocks are of one process.

    Args:
        source: Where blocks come from.
        samples: What its leaves become.
        windows: Of a token dataset that is read by windows.
        ram_bytes: How much decoded data is held.
        connections: Requests at once, of a remote source.
    """

    def __init__(
        self, source: BlockSource, samples: Samples, windows: TokenWindows | None = None, *, ram_bytes: int = 2**30, connections: int = 16
    ) -> None:
        self.source = source
        self.samples = samples
        self.windows = windows
        self._ram_bytes = ram_bytes
        self._connections = connections
        self._start()

    def _start(self) -> None:
        restart_after_fork(self)
        self.restart()

    def restart(self) -> None:
        """Begin anew, without threads and opened blocks."""
        self._blocks = OpenBlocks(self.source, self._ram_bytes)
        self._fetcher: Fetcher | None = None
        self._supply: Supply | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("source", "samples", "windows", "_ram_bytes", "_connections")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def table(self) -> BlockTable:
        """The blocks, with the rows that this reading has: windows, of tokens."""
        return self.source.table if self.windows is None else self.windows.table

    @property
    def row_bytes(self) -> int:
        """About how large a stored row is."""
        return int(self.table.stored_bytes.sum()) // max(1, int(self.table.rows.sum()))

    @property
    def cache_bytes(self) -> int:
        """How much the cache holds of what is fetched; without an end if nothing is."""
        return self.source.cache_bytes if isinstance(self.source, CachedSource) else sys.maxsize

    @property
    def is_remote(self) -> bool:
        """Whether blocks must be fetched."""
        return isinstance(self.source, CachedSource)

    @property
    def is_private(self) -> bool:
        """Whether blocks are fetched into this process's memory, where no other finds them."""
        return isinstance(self.source, CachedSource) and not self.source.is_shared

    @property
    def token_dtype(self) -> str:
        """The dtype of windows of tokens."""
        return self.samples.leaves[0].dtype or "int64"

    def open_block(self, number: int) -> KeptBlock:
        """Return a block, opened."""
        return self._blocks.open(number)

    def blocks_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the blocks that hold rows, each once, in the order of need."""
        if self.windows is not None:
            return self.windows.blocks_of(rows)
        blocks = np.searchsorted(self.table.first_row, rows, side="right") - 1
        unique, where = np.unique(blocks, return_index=True)
        return unique[np.argsort(where)]

    def ahead(self, blocks: Sequence[int]) -> None:
        """Start to fetch those blocks that are not at hand; nothing happens if the source is local."""
        if self.is_remote:
            self.supply.ahead([block for block in blocks if not self._blocks.has(block)])

    def ready(self, blocks: Sequence[int], timeout: float | None = None) -> None:
        """Wait until blocks are at hand; nothing happens if the source is local."""
        if self.is_remote:
            self.supply.ready([block for block in blocks if not self._blocks.has(block)], timeout)

    @property
    def supply(self) -> Supply:
        """The fetches of a remote source; its threads start at first use."""
        with self._lock:
            if self._supply is None:
                if not isinstance(self.source, CachedSource):
                    raise AssertionError("a local source needs no supply")
                self._fetcher = Fetcher(self._connections)
                self._supply = Supply(self.source, self._fetcher)
            return self._supply

    def forget_ahead(self) -> None:
        """Let go of fetches that were asked for ahead and have not begun."""
        with self._lock:
            supply = self._supply
        if supply is not None:
            supply.forget()

    def never_fetch(self) -> None:
        """Take note that this process must not touch the object store: what is not in the cache raises `EvictedError`."""
        if isinstance(self.source, CachedSource):
            self.source.may_fetch = False

    def with_output(self, output: Output) -> "Reading":
        """Return another reading of the same source, whose arrays become torch tensors or numpy arrays."""
        return self._with_samples(self.samples.with_output(output))

    def with_binary(self, binary: Binary) -> "Reading":
        """Return another reading of the same source, whose bytes are objects or views."""
        samples = self.samples.with_binary(binary)
        return self if samples.wanted == self.samples.wanted else self._with_samples(samples)

    def _with_samples(self, samples: Samples) -> "Reading":
        return Reading(self.source, samples, self.windows, ram_bytes=self._ram_bytes, connections=self._connections)

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            fetcher, self._fetcher, self._supply = self._fetcher, None, None
        if fetcher is not None:
            fetcher.close()
