"""`ControlLine`: what a worker and its supervisor say to each other, over a socket pair.

| frame | from | meta / body |
|---|---|---|
| STATE | worker | `{"state": "ready", "address", "pid", "setup_seconds"}` · `{"state": "failed", "message"}` / its traceback |
| LOG | worker | `{"k": key}`, and `"d"`: how many were dropped before it / the value as msgpack |
| DRAIN | supervisor | finish what you have and leave |
| BYE | worker | that is done; the process ends with status 0 |

The end of this line is the end of the worker, at once: whoever was to look after it is gone.
"""

import os
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any, final

from leyden.core.errors import ConfigError
from leyden.core.log import get_logger
from leyden.serve.errors import LinkError
from leyden.serve.log_values import pack
from leyden.serve.wire import LINK_STREAM, Kind
from leyden.serve.worker_link import WorkerLink

SETUP_FAILED, ORPHANED = 3, 4  # exit statuses
_MOST_UNSENT = 1 << 20  # of values for loggers: beyond it they are dropped
_MOST_KEY, _MOST_TOLD = 1000, 100
_LAST_WORDS_SECONDS = 5.0
_logger = get_logger(__name__)


@final
class ControlLine:
    """The worker's end.

    Args:
        sock: Of the pair.
        leave: Ends the process at once with a status.

    Attributes:
        must_drain: Whether the supervisor has said DRAIN.
        on_drain: Called when it says that.
    """

    def __init__(self, sock: socket.socket, leave: Callable[[int], None] = os._exit) -> None:
        self.link = WorkerLink(sock)
        self._leave = leave
        self._lock = threading.Lock()  # hooks may log from threads of their own
        self._refused: set[str] = set()  # keys whose values cannot be sent
        self._dropped = self._untold = 0  # values: in all, and since the last that was sent
        self._is_waiting = False
        self.must_drain = False
        self.on_drain: Callable[[], None] = _stay
        self._on_unsent: Callable[[bool], None] = _ignore

    def wait_with(self, on_unsent: Callable[[bool], None]) -> None:
        """Call a function with whether something waits until the socket takes it: then `hear` is to be called when it does."""
        with self._lock:
            self._on_unsent = on_unsent
            if self._is_waiting:
                on_unsent(True)  # noqa: FBT003 - a callback's signature

    def hear(self, mask: int = selectors.EVENT_READ) -> None:
        """Do what the supervisor says, and send what waits."""
        if mask & selectors.EVENT_WRITE:
            with self._lock:
                self._flush()
        if not mask & selectors.EVENT_READ:
            return
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
        with self._lock:
            self.link.send(Kind.STATE, LINK_STREAM, {"state": "ready", "pid": os.getpid(), **facts})
            self._flush()

    def failed(self, message: str, traceback: str) -> None:
        """Say why this process is about to end, and wait until that is sent."""
        with self._lock:
            self.link.send(Kind.STATE, LINK_STREAM, {"state": "failed", "message": message[: _MOST_UNSENT // 8]}, _bytes(traceback))
            self.link.flush_all(_LAST_WORDS_SECONDS)

    def bye(self) -> None:
        """Say that all work is done, and wait until that is sent."""
        with self._lock:
            self.link.send(Kind.BYE, LINK_STREAM, {"d": self._untold} if self._untold else None)
            self.link.flush_all(_LAST_WORDS_SECONDS)

    def log(self, key: str, value: Any) -> None:
        """Hand a value of the user's to the loggers; one that cannot be sent is told in the log, and harms no request."""
        try:
            packed, name = pack(value), _key(key)
        except ConfigError as error:
            if repr(key) not in self._refused and len(self._refused) < _MOST_TOLD:
                self._refused.add(repr(key))  # once for each key: hooks run for each request
                _logger.warning("log(%r, …) is dropped, and others of this key that are like it: %s", key, error)
            return
        with self._lock:
            self._send(name, packed)

    def _send(self, key: str, packed: bytes) -> None:
        if self.link.unsent_bytes > _MOST_UNSENT:
            if not self._dropped:
                _logger.warning("values are logged faster than they can be taken away: log(%r, …) and others are dropped", key)
            self._dropped += 1
            self._untold += 1
            return
        meta: dict[str, Any] = {"k": key}
        if self._untold:
            meta["d"], self._untold = self._untold, 0
        self.link.send(Kind.LOG, LINK_STREAM, meta, packed)
        self._flush()

    def _flush(self) -> None:
        self.link.flush()
        is_waiting = self.link.unsent_bytes > 0
        if is_waiting != self._is_waiting and not self.link.is_ended:
            self._is_waiting = is_waiting
            self._on_unsent(is_waiting)


def _key(key: Any) -> str:
    name = str(key).encode("utf-8", "backslashreplace").decode()
    if len(name) > _MOST_KEY:
        raise ConfigError(f"its name has {len(name):,} characters, and {_MOST_KEY:,} are taken")
    return name


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _stay() -> None:
    """Do nothing: there is no work yet that could be finished."""


def _ignore(_: bool) -> None:  # noqa: FBT001 - a callback's signature
    """Do nothing: nobody waits for the socket yet."""
