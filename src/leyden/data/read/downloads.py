"""`Downloads`: whole files of a storage, in parallel, with a deadline, ranges for large ones, and a second try for slow ones."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, final

from leyden.core.errors import StorageError
from leyden.core.forks import restart_after_fork
from leyden.core.storage import Storage, open_storage
from leyden.data.read.fetch import AHEAD, URGENT, Fetcher, read_range
from leyden.data.read.indexer import FileMetadata


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadPolicy:
    """How files are downloaded.

    Args:
        connections: Requests at once.
        hedge_seconds: After how long a second, equal request is sent, and the first answer taken; 0 is never.
        timeout_seconds: For one file.
        range_threshold_bytes: From which size on a file is fetched in parallel ranges; 0 is never.
        range_bytes: Of such a range.
    """

    connections: int = 16
    hedge_seconds: float = 0.0
    timeout_seconds: float = 120.0
    range_threshold_bytes: int = 0
    range_bytes: int = 8 * 2**20


@final
class Downloads:
    """Files below a root. Pickles as configuration; the client is made in the process that uses it.

    Args:
        url: The root.
        options: Of the storage.
        policy: How.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None, policy: DownloadPolicy) -> None:
        self.url, self.options, self.policy = url, options, policy
        restart_after_fork(self)
        self.restart()

    def restart(self) -> None:
        """Begin anew, without a client and threads."""
        self._storage: Storage | None = None
        self._fetcher: Fetcher | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options, "policy": self.policy}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def _threads(self) -> Fetcher:
        if self._fetcher is None:
            self._fetcher = Fetcher(self.policy.connections)
        return self._fetcher

    def start(self, file: FileMetadata, *, is_urgent: bool = True) -> Callable[[], bytes]:
        """Start to download a file, and return what waits for it.

        Raises:
            StorageError: On waiting: it could not be read, or not in time.
        """
        policy = self.policy
        priority = URGENT if is_urgent else AHEAD
        is_cut = policy.range_threshold_bytes and file.size > policy.range_threshold_bytes
        step = policy.range_bytes if is_cut else max(file.size, 1)
        spans = [(start, min(step, file.size - start)) for start in range(0, file.size, step)]
        parts = [(span, self._submit(file, span, priority)) for span in spans]

        def finish() -> bytes:
            deadline = time.monotonic() + policy.timeout_seconds
            return b"".join(self._result(file, span, future, deadline) for span, future in parts)

        return finish

    def close(self) -> None:
        """End the threads."""
        if self._fetcher is not None:
            self._fetcher.close()
            self._fetcher = None

    def _submit(self, file: FileMetadata, span: tuple[int, int], priority: int) -> "Future[Any]":
        if self._storage is None:
            self._storage = open_storage(self.url, self.options)
        storage = self._storage
        return self._threads.submit(lambda: read_range(storage, file.path, *span), priority)

    def _result(self, file: FileMetadata, span: tuple[int, int], future: "Future[Any]", deadline: float) -> bytes:
        if self.policy.hedge_seconds:
            try:
                return future.result(min(self.policy.hedge_seconds, max(0.0, deadline - time.monotonic())))
            except FutureTimeoutError:
                future = self._first_of(future, self._submit(file, span, URGENT), deadline)
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError as error:
            raise StorageError(
                f"{self.url}/{file.path}: it did not arrive within {self.policy.timeout_seconds} s. Raise download_timeout=…, or look "
                "at the network."
            ) from error

    def _first_of(self, first: "Future[Any]", second: "Future[Any]", deadline: float) -> "Future[Any]":
        done, _ = wait([first, second], max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
        good = [future for future in done if future.exception() is None]
        return good[0] if good else second if first in done else first
