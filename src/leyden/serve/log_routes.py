"""`LogRoutes`: where values go that workers hand to loggers: to the logger process, and to front ends with mounted apps."""

from collections.abc import Callable, Sequence
from typing import final

from leyden.core.log import get_logger
from leyden.serve.engines.base import Logged
from leyden.serve.fronts import Fronts, log_frame
from leyden.serve.logger_process import LoggerProcess

_logger = get_logger(__name__)


@final
class LogRoutes:
    """Hands values on, and counts those that were dropped. The supervisor tends it; nothing here waits.

    Args:
        process: For loggers without an app; `None` if there are none.
        reaches_fronts: Whether there are loggers with an app.
    """

    def __init__(self, process: LoggerProcess | None = None, *, reaches_fronts: bool = False) -> None:
        self._process, self._reaches_fronts = process, reaches_fronts
        self.dropped = 0

    def take(self, event: Logged, fronts: Fronts, count: Callable[[int], None]) -> None:
        """Hand a value on.

        Args:
            event: The value.
            fronts: The front ends.
            count: Called with how many values were dropped, if any.
        """
        dropped = event.dropped
        if event.value:
            is_taken = self._process is None or self._process.take(event.key, event.value)
            if self._reaches_fronts:
                is_taken = fronts.log(log_frame(event.api, event.key, event.value)) and is_taken
            if not is_taken:
                dropped += 1
                if self.dropped == 0:
                    _logger.warning("the loggers are too slow: %r and other values are dropped; /metrics counts them", event.key)
        if dropped:
            self.dropped += dropped
            count(dropped)

    def tend(self, now: float) -> None:
        """Look after the logger process."""
        if self._process is not None:
            self._process.tend(now)

    def polled(self) -> Sequence[tuple[int, int]]:
        """Return file descriptors, and which events of each are waited for."""
        return () if self._process is None else self._process.polled()

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors that no other process may hold."""
        return () if self._process is None else self._process.descriptors()

    def next_wakeup(self) -> float | None:
        """Return when there is something to do."""
        return None if self._process is None else self._process.next_wakeup()

    @property
    def pid(self) -> int | None:
        """The number of the logger process; `None` if there is none."""
        return None if self._process is None else self._process.pid

    def drain(self) -> None:
        """Let what was logged be processed, as nothing more comes."""
        if self._process is not None:
            self._process.drain()

    @property
    def are_done(self) -> bool:
        """Whether that is so."""
        return self._process is None or self._process.is_gone

    def close(self) -> None:
        """End the logger process at once."""
        if self.dropped:
            _logger.warning("%d values for loggers were dropped in all", self.dropped)
        if self._process is not None:
            self._process.close()
