"""`ControlLine`: what a worker and its supervisor say to each other, over a socket pair.

| frame | from | meta / body |
|---|---|---|
| STATE | worker | `{"state": "ready", "address", "pid", "setup_seconds"}` · `{"state": "failed", "message"}` / its traceback |
| LOG | worker | `{"k": key}` / the value as msgpack |
| DRAIN | supervisor | finish what you have and leave |
| BYE | worker | that is done; the process ends with status 0 |

The end of this line is the end of the worker, at once: whoever was to look after it is gone.
"""

import os
import socket
from collections.abc import Callable
from typing import Any, final

import msgspec

from leyden.core.log import get_logger
from leyden.serve.codec import to_plain
from leyden.serve.errors import LinkError
from leyden.serve.wire import LINK_STREAM, Kind
from leyden.serve.worker_link import WorkerLink

SETUP_FAILED, ORPHANED = 3, 4  # exit statuses
_MOST_UNSENT = 1 << 20  # of values for loggers: beyond it they are dropped
_LAST_WORDS_SECONDS = 5.0
_logger = get_logger(__name__)


@final
class ControlLine:
    """The worker's end.

    Args:
        sock: Of the pair.
        leave: Ends the process at once with a status.
    """

    def __init__(self, sock: socket.socket, leave: Callable[[int], None] = os._exit) -> None:
        self.link = WorkerLink(sock)
        self._leave = leave
        self._encode = msgspec.msgpack.Encoder(enc_hook=to_plain).encode
        self._has_dropped = False
        self.must_drain = False
        self.on_drain: Callable[[], None] = _stay

    def hear(self, _mask: int = 0) -> None:
        """Do what the supervisor says."""
        try:
            frames = self.link.read()
        except LinkError:
            _logger.exception("what came from the supervisor cannot be understood")
            self._leave(ORPHANED)
            return
        if any(frame.kind is Kind.DRAIN for frame in frames):
            self.must_drain = True
            self.on_drain()
        if self.link.is_ended:
            self._leave(ORPHANED)

    def ready(self, facts: dict[str, Any]) -> None:
        """Say that requests are taken."""
        self.link.send(Kind.STATE, LINK_STREAM, {"state": "ready", "pid": os.getpid(), **facts})
        self.link.flush()

    def failed(self, message: str, traceback: str) -> None:
        """Say why this process is about to end, and wait until that is sent."""
        self.link.send(Kind.STATE, LINK_STREAM, {"state": "failed", "message": message[: _MOST_UNSENT // 8]}, _bytes(traceback))
        self.link.flush_all(_LAST_WORDS_SECONDS)

    def bye(self) -> None:
        """Say that all work is done, and wait until that is sent."""
        self.link.send(Kind.BYE, LINK_STREAM)
        self.link.flush_all(_LAST_WORDS_SECONDS)

    def log(self, key: str, value: Any) -> None:
        """Hand a value of the user's to the loggers; one that cannot be sent is told in the log, and harms no request."""
        if self.link.unsent_bytes > _MOST_UNSENT:
            if not self._has_dropped:
                _logger.warning("the loggers are too slow: log(%r, …) and others are dropped", key)
            self._has_dropped = True
            return
        try:
            self.link.send(Kind.LOG, LINK_STREAM, {"k": str(key)}, self._encode(value))
        except Exception as error:  # noqa: BLE001 - the user's value may be anything
            _logger.warning("log(%r, …) cannot be sent: %s", key, error)
        self.link.flush()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _stay() -> None:
    """Do nothing: there is no work yet that could be finished."""
