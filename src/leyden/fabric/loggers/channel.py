"""`Channel`: the bounded queue between one logger and its sink, and the rules for what is kept when the sink fails.

Draining has two stages, so that neither a bad entry nor a back-end that is down costs more than it must: `prepare` turns
one entry into what is written (an error drops that entry), `write` takes all that are ready (an `OSError` keeps them for
the next try, any other error drops them). Errors are logged once a minute; training never sees them.

`put` takes no lock: it may be called from a signal handler, and while another thread drains.
"""

import logging
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from leyden.fabric.loggers.values import resolve

LIMIT = 10_000
REPORT_SECONDS = 60.0
ROOM_SECONDS = 10.0  # how long a full queue holds its caller up before the back-end counts as down

Row = tuple[float, int, dict[str, Any]]
"""Wall time in seconds, step, name → number (or what `values.resolve` turns into one)."""
Entry = Row | Callable[[], Any]

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """What a channel drains into. Called by one thread at a time, not always the same."""

    def prepare(self, entry: Any) -> Any:
        """Return what `write` takes for one entry; values of rows are numbers by now."""
        ...

    def write(self, prepared: list[Any]) -> None:
        """Write all of it or nothing.

        Raises:
            OSError: The back-end is down or full: the same list comes again.
        """
        ...


class Channel:
    """A queue that one logger fills and one thread at a time drains. Made by `WriterThread.open`.

    Args:
        sink: Where entries go.
        label: What messages call the logger.
        wake: Starts a round of the thread.
        observe: Told the step and the numbers of each row.
        wake_at: How many waiting entries wake the thread before its second is over.
        limit: How many entries wait at most.
        is_remote: Whether the sink may hang for long, so that callers must not drain it themselves.
    """

    def __init__(
        self,
        sink: Sink,
        label: str,
        *,
        wake: Callable[[], None],
        observe: Callable[[int, dict[str, Any]], None],
        wake_at: int = LIMIT,
        limit: int = LIMIT,
        is_remote: bool = False,
    ) -> None:
        self.pending: deque[Entry] = deque()
        self.label = label
        self.is_remote = is_remote
        self.closed = False
        self.dropped = 0
        self._sink = sink
        self._wake = wake
        self._observe = observe
        self._wake_at = max(1, min(wake_at, limit // 2))
        self._limit = limit
        self._ready: list[Any] = []
        self._is_down = False
        self._has_warned = False
        self._reported_at = -REPORT_SECONDS
        self._lock = threading.Lock()  # not re-entrant: a signal handler must not drain inside a drain

    def put(self, entry: Entry) -> None:
        """Queue an entry; waits only where `limit` entries wait already and the back-end is not down."""
        self.pending.append(entry)
        if len(self.pending) >= self._wake_at:
            self._crowded()

    @property
    def num_waiting(self) -> int:
        """How many entries are not written yet."""
        return len(self.pending) + len(self._ready)

    def drain(self, patience: float = -1.0) -> bool:
        """Write what waits, in this thread. Return whether nothing of it is left.

        Args:
            patience: Seconds to wait for another thread that is draining this channel; -1 waits for ever.
        """
        if not self._lock.acquire(timeout=patience):
            return False
        try:
            return self._prepare_and_write()
        finally:
            self._lock.release()

    def close(self) -> int:
        """Give up what still waits, and return how many entries were dropped in all."""
        self.closed = True
        self.dropped += self.num_waiting
        self.pending.clear()
        self._ready = []
        return self.dropped

    def hold(self, patience: float) -> bool:
        """Keep others from draining until `let_go`; return whether that worked within `patience` seconds."""
        return self._lock.acquire(timeout=patience)

    def let_go(self) -> None:
        """Undo `hold`."""
        self._lock.release()

    def abandon(self) -> None:
        """Forget everything, in a forked child: the parent writes it."""
        self.closed = True
        self.pending = deque()
        self._ready = []
        self._lock = threading.Lock()

    def _crowded(self) -> None:
        waiting = len(self.pending)
        if waiting == self._wake_at:
            self._wake()
        elif waiting > self._limit:
            self._make_room()

    def _make_room(self) -> None:
        if not self._is_down:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"{self.label}: {self._limit} entries wait to be written, so logging waits too. Log less often, "
                    "or look for what slows the back-end down.",
                    stacklevel=5,
                )
            if self.is_remote:
                self._wait_for_room()
            else:
                self.drain(patience=ROOM_SECONDS)
            self._is_down = self._is_down or len(self.pending) > self._limit
        while len(self.pending) > self._limit:
            try:
                self.pending.popleft()
            except IndexError:  # the thread was faster
                return
            self.dropped += 1

    def _wait_for_room(self) -> None:
        self._wake()
        deadline = time.monotonic() + ROOM_SECONDS
        while len(self.pending) > self._limit and not self._is_down and time.monotonic() < deadline:
            time.sleep(0.001)  # no condition variable: the caller may be a signal handler

    def _prepare_and_write(self) -> bool:
        for _ in range(min(len(self.pending), self._limit - len(self._ready))):
            try:
                self._ready.append(self._prepare(self.pending.popleft()))
            except Exception as error:  # noqa: BLE001 - a boundary: whatever an entry does, the next ones are written
                self.dropped += 1
                self._report(error, "an entry is dropped")
        if not self._ready:
            return True
        try:
            self._sink.write(self._ready)
        except OSError as error:
            self._is_down = True
            self._report(error, f"{self.num_waiting} entries wait for the next try")
            return False
        except Exception as error:  # noqa: BLE001 - a boundary: a back-end's failure must not end training
            self.dropped += len(self._ready)
            self._report(error, f"{len(self._ready)} entries are dropped")
        self._is_down = False
        self._ready = []
        return True

    def _prepare(self, entry: Entry) -> Any:
        if isinstance(entry, tuple):
            wall_time, step, values = entry
            values = {name: resolve(name, value) for name, value in values.items()}
            self._observe(step, values)
            entry = (wall_time, step, values)
        return self._sink.prepare(entry)

    def _report(self, error: Exception, consequence: str) -> None:
        now = time.monotonic()
        if now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            _log.warning("%s failed; %s. Training goes on. %s: %s", self.label, consequence, type(error).__name__, error, exc_info=error)
