"""The process in which loggers run: `logger_main` is what a supervisor starts.

```
socket ─► reading thread ─► queue, bounded ─► main thread: process(key, value) of each logger
```
A queue that is full is not read into, so the supervisor sees that the socket takes no more, and drops. DRAIN is the last frame: what
came before it is processed, then the process ends. The end of the socket without DRAIN is the end of the supervisor: what is there is
processed for a second, for nobody would end this process.
"""

import contextlib
import os
import queue
import select
import signal
import socket
import sys
import threading
from typing import Final, final

from leyden.core.log import LogSetup, by_settings, get_logger, show
from leyden.serve.errors import LinkError
from leyden.serve.loggers import LoggerCalls, unpacked
from leyden.serve.wire import Decoder, Kind

ORPHANED: Final = 4  # exit status
LONELY_SECONDS: Final = 1.0
_MOST_WAITING, _READ_BYTES = 1000, 1 << 16
_logger = get_logger(__name__)


def logger_main(packed: bytes, sock: socket.socket, log: LogSetup | None) -> None:
    """Be the logger process; it ends with this function.

    Args:
        packed: The loggers, from `loggers.packed`.
        sock: Its end of a socket pair with the supervisor.
        log: How the process writes its log; by default as the settings say.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # they come to the whole group: the supervisor ends this process, as the last one
        signal.signal(number, signal.SIG_IGN)
    show(log or by_settings())
    inbox = Inbox(sock)
    calls = LoggerCalls(unpacked(packed))
    inbox.start()
    while (value := inbox.next()) is not None:
        calls.process(*value)
    calls.close()
    inbox.close()


@final
class Inbox:
    """What has come and was not processed.

    Args:
        sock: Where it comes from.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._values: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_MOST_WAITING)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._read, name="leyden-logger-inbox", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def next(self) -> tuple[str, bytes] | None:
        """Wait for a value; `None` after the last one."""
        return self._values.get()

    def close(self) -> None:
        """Take note that all was processed."""
        self._is_done.set()
        self._socket.close()

    def _read(self) -> None:
        was_told = self._was_told_to_end()
        self._put(None)
        if not was_told and not self._is_done.wait(LONELY_SECONDS):
            _leave()

    def _was_told_to_end(self) -> bool:
        """Read to the end; return whether that was announced."""
        decoder = Decoder()
        with contextlib.suppress(OSError, LinkError):
            while data := self._socket.recv(_READ_BYTES):
                for frame in decoder.feed(data):
                    if frame.kind is Kind.DRAIN:
                        return True
                    self._put((frame.meta["k"], bytes(frame.body)))
        return False

    def _put(self, value: tuple[str, bytes] | None) -> None:
        """Wait until there is room; not for long once the supervisor is gone."""
        while True:
            is_alone = self._is_alone()
            try:
                self._values.put(value, timeout=LONELY_SECONDS)
                return
            except queue.Full:
                if is_alone:
                    _leave()

    def _is_alone(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def _leave() -> None:
    """End the process at once: its supervisor is gone, and a logger does not come to an end."""
    _logger.warning("the supervisor is gone, and a logger is not done: what it has is lost")
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(ORPHANED)
