"""`Supply`: from "these blocks will be needed" to "they are at hand", in order of need and with bounded look-ahead.

Blocks that are needed one after another and lie side by side are fetched with one request of up to 8 MB. The first
request of a stream is one block, so that the first batch does not wait for bytes it does not need.
"""

import collections
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.errors import ChunkWaitTimeoutError
from leyden.data.read.cached import CachedSource
from leyden.data.read.fetch import AHEAD, URGENT, Fetcher

JOINED_BYTES = 8_000_000


@final
class Supply:
    """The blocks of one remote source that are on their way. Thread safe.

    Args:
        source: Where they come from, and go to.
        fetcher: Its threads.
    """

    def __init__(self, source: CachedSource, fetcher: Fetcher) -> None:
        self._source = source
        self._fetcher = fetcher
        self._coming: dict[int, Future[Any]] = {}
        self._early: set[Future[Any]] = set()  # those that nobody waits for yet
        self._lock = threading.Lock()
        self._has_started = False

    def ahead(self, blocks: Sequence[int], *, is_urgent: bool = False) -> None:
        """Start to fetch blocks that are neither here nor on their way; returns at once.

        Args:
            blocks: In order of need.
            is_urgent: Whether somebody waits for them now.
        """
        with self._lock:
            wanted = [block for block in blocks if block not in self._coming]
            for first, count in self._joined(wanted):
                future = self._fetcher.submit(lambda first=first, count=count: self._bring(first, count), URGENT if is_urgent else AHEAD)
                self._early.add(future)
                for block in range(first, first + count):
                    self._coming[block] = future
            if is_urgent:
                for future in {self._coming[block] for block in blocks}:
                    self._early.discard(future)
                    self._fetcher.hurry(future)

    def ready(self, blocks: Sequence[int], timeout: float | None = None) -> None:
        """Wait until blocks are here.

        Args:
            blocks: Their numbers.
            timeout: Seconds for all of them.

        Raises:
            ChunkWaitTimeoutError: They did not come in time.
            StorageError: One could not be fetched.
        """
        missing = [block for block in blocks if not self._source.is_here(block)]
        self.ahead(missing, is_urgent=True)
        with self._lock:
            futures = {block: self._coming[block] for block in missing if block in self._coming}
        deadline = None if timeout is None else time.monotonic() + timeout
        for block, future in futures.items():
            try:
                future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except FutureTimeoutError as error:
                raise ChunkWaitTimeoutError(f"block {block} did not arrive within {timeout} s.") from error

    def forget(self) -> None:
        """Let go of fetches that were asked for ahead, have not begun, and nobody waits for."""
        with self._lock:
            gone = {future for future in self._early if future.cancel()}
            self._early.clear()
            self._coming = {block: future for block, future in self._coming.items() if future not in gone}

    def num_coming(self) -> int:
        """Return how many blocks are on their way."""
        return len(self._coming)

    def _bring(self, first: int, count: int) -> None:
        try:
            self._source.bring(first, count)
        finally:
            with self._lock:
                for block in range(first, first + count):
                    future = self._coming.pop(block, None)
                    if future is not None:
                        self._early.discard(future)

    def _joined(self, blocks: Sequence[int]) -> Iterable[tuple[int, int]]:
        """Return runs of neighbours; the very first is a single block."""
        table = self._source.table
        first, count, held = -1, 0, 0
        for block in blocks:
            size = int(table.stored_bytes[block])
            fits = count and block == first + count and table.chunk[block] == table.chunk[first] and held + size <= JOINED_BYTES
            if fits and self._has_started:
                count, held = count + 1, held + size
                continue
            if count:
                self._has_started = True
                yield first, count
            first, count, held = block, 1, size
        if count:
            self._has_started = True
            yield first, count


@final
class LookAhead:
    """Keeps the blocks of the rows to come on their way, up to a number of bytes that nobody has used yet.

    Args:
        stored_bytes: int64 (blocks,), of each block.
        budget_bytes: How far to look ahead.
        most_rows: How many rows at most, whatever their blocks are: some sources come again and again, or never.
    """

    def __init__(self, stored_bytes: NDArray[np.int64], budget_bytes: int, most_rows: int = 2**20) -> None:
        self._bytes = stored_bytes
        self.budget_bytes = budget_bytes
        self._most_rows = most_rows
        self._last_need: dict[int, int] = {}  # of each block that is ahead, in rows from the start
        self._ahead: collections.deque[tuple[int, list[int]]] = collections.deque()  # what each stretch of rows needs
        self._outstanding = self._used = self._planned = 0

    def is_satisfied(self) -> bool:
        """Return whether enough is on its way: the budget, or all blocks, or those of very many rows."""
        return (
            self._outstanding >= self.budget_bytes
            or len(self._last_need) == len(self._bytes)
            or self._planned - self._used > self._most_rows
        )

    def ask(self, position: int, blocks: Sequence[int]) -> list[int]:
        """Return those blocks, needed at `position`, that are not ahead already, and count them as on their way."""
        new = [block for block in blocks if block not in self._last_need]
        self._last_need.update(dict.fromkeys(blocks, position))
        self._outstanding += int(self._bytes[new].sum()) if new else 0
        self._ahead.append((position, list(blocks)))
        self._planned = position
        return new

    def use(self, position: int) -> None:
        """Take note that all rows before `position` were read: blocks that none of the rows to come needs make room for others."""
        self._used = position
        while self._ahead and self._ahead[0][0] < position:
            needed_at, blocks = self._ahead.popleft()
            for block in blocks:
                if self._last_need.get(block) == needed_at:
                    del self._last_need[block]
                    self._outstanding -= int(self._bytes[block])
