"""`read_range` with retries, and `Fetcher`: a few threads that fetch in order of need.

Retried are answers that another try may mend (429, 5xx, timeouts, resets, short bodies), five times, after a random time
below a bound that doubles ("full jitter": many readers that failed together do not come back together). A refusal or a
missing object is raised at once.
"""

import heapq
import itertools
import random
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, final

from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import CorruptDataError, StorageError
from leyden.core.failpoints import failpoint
from leyden.core.storage.storage import Storage

URGENT, AHEAD = 0, 1
_JOIN_SECONDS = 5.0
_FINAL_CAUSES = ("PermissionDeniedError", "UnauthenticatedError", "NotSupportedError", "InvalidPathError")
_FINAL_SIGNS = ("status code: 403", "status code: 401", "no credentials were found", "it ends before the bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How often and after how long a request is tried again.

    Args:
        retries: How often, after the first try.
        first_seconds: The bound of the first wait; it doubles with each.
        longest_seconds: The bound of any wait.
        clock: What waits.
        draw: Returns a random number in [0, 1).
    """

    retries: int = 5
    first_seconds: float = 0.1
    longest_seconds: float = 10.0
    clock: Clock = field(default_factory=SystemClock)
    draw: Callable[[], float] = random.random

    def wait(self, attempt: int) -> None:
        """Wait before try number `attempt + 1`."""
        self.clock.sleep(self.draw() * min(self.first_seconds * 2**attempt, self.longest_seconds))


def read_range(storage: Storage, key: str, start: int, length: int, patience: Patience | None = None) -> bytes:
    """Return exactly `length` bytes from `start` of an object, trying again where that may help; raises as `read_ranges`."""
    return read_ranges(storage, key, [(start, length)], patience)[0]


def read_ranges(storage: Storage, key: str, spans: Sequence[tuple[int, int]], patience: Patience | None = None) -> list[bytes]:
    """Return parts of an object, each given by its start and length, trying again where that may help.

    Raises:
        NotFoundError: There is no such object.
        CorruptDataError: It is shorter.
        StorageError: Access is refused, or no try succeeded; the message holds key, range, tries and the last answer.
    """
    patience = patience or Patience()
    for attempt in range(patience.retries + 1):
        try:
            failpoint("fetch.request")
            return storage.read_ranges(key, spans)
        except StorageError as error:
            if is_final(error):
                raise
            if attempt == patience.retries:
                kind = CorruptDataError if isinstance(error, CorruptDataError) else StorageError
                first, last = spans[0][0], sum(spans[-1])
                raise kind(
                    f"{storage.url}/{key}: bytes {first:,} to {last:,} could not be read in {attempt + 1} tries. The last answer: {error}"
                ) from error
        patience.wait(attempt)
    raise AssertionError("unreachable: the last try returns or raises")


def is_final(error: StorageError) -> bool:
    """Return whether another try cannot help: access is refused, or the object is too short."""
    return type(error.__cause__).__name__ in _FINAL_CAUSES or any(sign in str(error) for sign in _FINAL_SIGNS)


@final
class _Queue:
    """Tasks by priority, then in the order they came; what the threads of a `Fetcher` hold instead of it."""

    def __init__(self) -> None:
        self._tasks: list[tuple[int, int, Future[Any], Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False
        self._idle = 0  # threads that wait for a task

    def add(self, priority: int, task: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._changed:
            if self._is_closed:
                future.cancel()
                return future
            heapq.heappush(self._tasks, (priority, next(self._numbers), future, task))
            self._changed.notify()
        return future

    def hurry(self, future: "Future[Any]") -> None:
        """Put a task that waits before all that are not urgent."""
        with self._changed:
            for place, (priority, _, waiting, task) in enumerate(self._tasks):
                if waiting is future and priority != URGENT:
                    self._tasks[place] = (URGENT, next(self._numbers), waiting, task)
                    heapq.heapify(self._tasks)
                    return

    def is_behind(self) -> bool:
        with self._changed:
            return len(self._tasks) > self._idle

    def take(self) -> "tuple[Future[Any], Callable[[], Any]] | None":
        with self._changed:
            self._idle += 1
            while not self._tasks and not self._is_closed:
                self._changed.wait()
            self._idle -= 1
            if self._is_closed:
                return None
            _, _, future, task = heapq.heappop(self._tasks)
            return future, task

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            for _, _, future, _ in self._tasks:
                future.cancel()
            self._tasks.clear()
            self._changed.notify_all()


@final
class Fetcher:
    """Threads that run tasks in order of need. They start when the first task comes, and end with `close` or with this object.

    Args:
        connections: How many tasks run at once.
    """

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._queue = _Queue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, self._queue.close)

    def submit(self, task: Callable[[], Any], priority: int = AHEAD) -> "Future[Any]":
        """Run a task soon: an urgent one before all that are not. The future is cancelled if the fetcher is closed."""
        future = self._queue.add(priority, task)
        with self._lock:
            if self._queue.is_behind() and len(self._threads) < self._connections:
                name = f"leyden-fetch-{len(self._threads)}"
                self._threads.append(threading.Thread(target=_run, args=(self._queue,), name=name, daemon=True))
                self._threads[-1].start()
        return future

    def hurry(self, future: "Future[Any]") -> None:
        """Make a task urgent that was submitted as one for later; one that runs already is left alone."""
        if not future.running() and not future.done():
            self._queue.hurry(future)

    def close(self) -> None:
        """End the threads, after the tasks they are at."""
        self._finalizer()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_SECONDS)


def _run(queue: _Queue) -> None:
    while (taken := queue.take()) is not None:
        future, task = taken
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001 - the boundary of a thread: whoever waits gets it
                future.set_exception(error)
        del future, task, taken  # or the last block stays in memory while the thread waits
