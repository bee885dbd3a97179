"""Loggers with an app: their `process` is called in the front end, in a thread; `mounts.py` has their apps.

Each front end gets every value, so that an app shows the same numbers whichever front end is asked.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from leyden.core.log import get_logger
from leyden.serve.loggers import Logger, LoggerCalls

_MOST_WAITING: Final = 10_000
_END_SECONDS: Final = 2.0
_logger = get_logger(__name__)


@final
class MountedLoggers:
    """The thread that hands values to loggers.

    Args:
        loggers: Those with an app.
        count: Called with the number of an API whose value was dropped.
    """

    def __init__(self, loggers: Sequence[Logger], count: Callable[[int], None]) -> None:
        self._loggers, self._count = loggers, count
        self._calls = LoggerCalls(loggers)
        self._values: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_MOST_WAITING)
        self._has_dropped = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Call the loggers while the context lasts, and with what has come by its end."""
        if not self._loggers:
            yield
            return
        thread = threading.Thread(target=self._work, name="leyden-loggers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(queue.Full):
                self._values.put(None, timeout=_END_SECONDS)
            thread.join(_END_SECONDS)

    def take(self, api: int, key: str, value: bytes) -> None:
        """Hand over a value; one that there is no room for is dropped.

        Args:
            api: The number of its API.
            key: Its name.
            value: As msgpack.
        """
        try:
            self._values.put_nowait((key, value))
        except queue.Full:
            self._count(api)
            if not self._has_dropped:
                _logger.warning("a mounted logger is too slow: %r and other values are dropped; /metrics counts them", key)
            self._has_dropped = True

    def _work(self) -> None:
        while (value := self._values.get()) is not None:
            self._calls.process(*value)
        self._calls.close()
