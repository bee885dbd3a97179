"""Who holds a unit lives: drivers say so by beats, and others compare what they hear with their own clock.

Wall clocks of two machines are never compared. A beat is a count; whoever sees that it has not changed for a minute of its own
monotonic clock takes the driver for dead, whatever it does: a process that is stopped, or swaps, is as gone as one that was killed.
If it comes back, what it says late counts for nothing, since the first record of a unit wins.
"""

import contextlib
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, final

from leyden.core.clock import Clock
from leyden.core.errors import StorageError
from leyden.data.read.owner import Owner
from leyden.data.write.journal import ENDED, Journal

BEAT_SECONDS, DEAD_SECONDS = 10.0, 60.0


@final
class Heartbeat:
    """Says that a driver lives, once before it begins and then from a thread; at the end, that it has left.

    Args:
        journal: Where it is said.
        driver: The driver's id.
        seconds: Between two beats.
    """

    def __init__(self, journal: Journal, driver: str, seconds: float) -> None:
        self._journal, self._driver, self._seconds = journal, driver, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="leyden-beat", daemon=True)

    def __enter__(self) -> None:
        self._say(0)
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._say(ENDED)  # if this fails, the others wait for our beat to stand still

    def _repeat(self) -> None:
        count = 1
        while not self._ended.wait(self._seconds):
            self._say(count)
            count += 1

    def _say(self, count: int) -> None:
        with contextlib.suppress(StorageError):  # the next one may get through
            self._journal.beat(self._driver, count)


@final
class Liveness:
    """Tells whether the holder of a lease still works.

    Args:
        journal: Where beats are.
        clock: Our own, to see that a beat has not changed.
        dead_seconds: For how long it may not change.
    """

    def __init__(self, journal: Journal, clock: Clock, dead_seconds: float = DEAD_SECONDS) -> None:
        self._journal, self._clock, self._dead_seconds = journal, clock, dead_seconds
        self._seen: dict[str, tuple[int, float]] = {}

    def is_dead(self, holder: Mapping[str, Any]) -> bool:
        """Return whether there is evidence that a driver is gone."""
        here = Owner.here()
        owner = Owner(int(holder["pid"]), str(holder["start"]), str(holder["boot"]))
        if owner.boot == here.boot and here.boot and not owner.is_alive():
            return True
        driver, now = str(holder["driver"]), self._clock.monotonic()
        count = self._journal.beat_of(driver)
        if count == ENDED:
            return True
        seen = self._seen.get(driver)
        if seen is None or seen[0] != count:
            self._seen[driver] = count, now
            return False
        return now - seen[1] > self._dead_seconds
