"""`LoggerProcess`: the supervisor's end of the process in which loggers run. Nothing here waits for it.

Values that it does not take at once wait in memory, up to a bound; beyond it they are dropped, so that a slow logger costs nobody
anything but its own values. A process that has died is started again; what it had not processed is lost with it.
"""

import contextlib
import multiprocessing
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, final

from leyden.core.errors import StateError
from leyden.core.log import get_logger, shown
from leyden.serve.engines.local import GUARD
from leyden.serve.logger_main import logger_main
from leyden.serve.processes import Child, death, let_go
from leyden.serve.wire import Kind, encode

MOST_BYTES: Final = 4 << 20
FIRST_BACKOFF: Final = 0.1
LONGEST_BACKOFF: Final = 10.0
HEALTHY_SECONDS: Final = 60.0
_JOIN_BYTES: Final = 64 << 10  # that are handed to the kernel together
_END_SECONDS: Final = 5.0
_logger = get_logger(__name__)


@final
class LoggerProcess:
    """Starts it, feeds it, and starts it again. Everything but `start` and `close` returns at once.

    Args:
        packed: The loggers, from `loggers.packed`.
        most_bytes: Of values that wait.
    """

    def __init__(self, packed: bytes, *, most_bytes: int = MOST_BYTES) -> None:
        self._packed, self._most_bytes = packed, most_bytes
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._child: Child | None = None
        self._socket: socket.socket | None = None
        self._waiting = deque[bytes]()
        self._waiting_bytes = 0
        self._sending = memoryview(b"")  # what the kernel has taken a part of: whole frames
        self._started_at, self._crashes = 0.0, 0
        self._due: float | None = 0.0  # when it is to be started
        self._is_draining = False

    @property
    def pid(self) -> int | None:
        """Its number; `None` while it is not there."""
        return None if self._child is None else self._child.pid

    @property
    def is_gone(self) -> bool:
        """Whether it has done what was to be done, or will not."""
        return self._child is None and (self._is_draining or self._due is None)

    # -- values --------------------------------------------------------------------------------------------------------

    def take(self, key: str, value: bytes) -> bool:
        """Send a value with the next `tend`; return whether there is room for it.

        Args:
            key: Its name.
            value: As msgpack.
        """
        if self._waiting_bytes > self._most_bytes:
            return False
        self._push(b"".join(encode(Kind.LOG, 0, {"k": key}, value)))
        return True

    def drain(self) -> None:
        """Let it process what it has, and end."""
        if not self._is_draining:
            self._is_draining = True
            self._push(b"".join(encode(Kind.DRAIN, 0)))

    def _push(self, frame: bytes) -> None:
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)

    # -- the loop of the supervisor --------------------------------------------------------------------------------------

    def tend(self, now: float) -> None:
        """Note its end, start it if that is due, and send what it takes."""
        if self._child is not None and self._child.has_ended():
            self._ended(now)
        if self._child is None and self._due is not None and now >= self._due:
            self._start(now)
        if self._socket is not None:
            self._flush(self._socket)

    def _start(self, now: float) -> None:
        ours, theirs = socket.socketpair()
        process = self._context.Process(target=logger_main, args=(self._packed, theirs, shown()), name="loggers")
        try:
            process.start()
        except OSError:
            ours.close()
            self._retry(now)
            _logger.exception("the logger process cannot be started")
            return
        except RuntimeError as error:
            ours.close()
            raise StateError(f"the logger process cannot be started here: {error}. {GUARD}") from error
        finally:
            theirs.close()
        ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._process, self._socket, self._started_at, self._due = process, ours, now, None
        self._child = Child(process.pid or 0, process.sentinel)

    def _ended(self, now: float) -> None:
        status = self._child.status if self._child is not None else 0
        self._forget()
        if self._is_draining and not self._waiting:
            self._due = None
            if status:
                _logger.error("the logger process %s at the end: what it had not processed is lost", death(status))
            return
        self._retry(now)
        _logger.error("the logger process %s and is started again; what it had not processed is lost", death(status or 0))

    def _retry(self, now: float) -> None:
        self._crashes = 1 if self._started_at and now - self._started_at >= HEALTHY_SECONDS else self._crashes + 1
        self._due = now + min(FIRST_BACKOFF * 2 ** (self._crashes - 1), LONGEST_BACKOFF)

    def _forget(self) -> None:
        self._waiting_bytes -= len(self._sending)
        self._sending = memoryview(b"")  # its first bytes are gone with the process
        if self._socket is not None:
            self._socket.close()
        let_go(self._process, None if self._child is None else self._child.status)
        self._child = self._socket = self._process = None

    def _flush(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):  # full, or gone: then its end says so
            while self._sending or self._waiting:
                if not self._sending:
                    self._sending = memoryview(self._joined())
                sent = sock.send(self._sending)
                self._sending = self._sending[sent:]
                self._waiting_bytes -= sent

    def _joined(self) -> bytes:
        frames, size = list[bytes](), 0
        while self._waiting and size < _JOIN_BYTES:
            frames.append(self._waiting.popleft())
            size += len(frames[-1])
        return b"".join(frames)

    def polled(self) -> Sequence[tuple[int, int]]:
        """Return file descriptors, and which events of each are waited for."""
        found = list[tuple[int, int]]()
        if self._child is not None and self._child.descriptor >= 0:
            found.append((self._child.descriptor, select.POLLIN))
        if self._socket is not None and (self._sending or self._waiting):
            found.append((self._socket.fileno(), select.POLLOUT))
        return found

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors that no other process may hold."""
        ours = [] if self._socket is None else [self._socket.fileno()]
        return ours if self._child is None or self._child.descriptor < 0 else [*ours, self._child.descriptor]

    def next_wakeup(self) -> float | None:
        """Return when it is to be started; `None` if never."""
        return self._due if self._child is None else None

    def close(self) -> None:
        """End it at once."""
        self._due = None
        if self._child is not None:
            self._child.kill()
            self._child.wait(_END_SECONDS)
            self._forget()
