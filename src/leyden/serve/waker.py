"""`Waker`: wakes a loop that waits for file descriptors, from any thread and from signal handlers."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

_READ_BYTES = 64
_ENDING = (signal.SIGTERM, signal.SIGINT)


@final
class Waker:
    """A pair of sockets: what is written to the one lets a `poll` of the other return.

    Example:
        >>> waker = Waker()
        >>> waker.wake()
        >>> waker.heard(), waker.heard()
        (True, False)
        >>> waker.close()
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.settimeout(0)
        self._theirs.settimeout(0)

    def wake(self) -> None:
        """Let the loop look at once at what has happened; nothing after `close`."""
        with contextlib.suppress(OSError):  # full: it is awake
            self._theirs.send(b"\0")

    def fileno(self) -> int:
        """Return the file descriptor that the loop waits for."""
        return self._ours.fileno()

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors that no forked process may hold."""
        return (self._ours.fileno(), self._theirs.fileno())

    def heard(self) -> bool:
        """Return whether it was woken since the last call."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while self._ours.recv(_READ_BYTES):
                found = True
        return found

    @contextlib.contextmanager
    def signals(self, told: Callable[[signal.Signals], None]) -> Iterator[None]:
        """Wake the loop at SIGTERM and SIGINT, while the context lasts, where signals come: in the main thread.

        Args:
            told: Called with each of them first.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _: Any) -> None:
            told(signal.Signals(number))

        before = {number: signal.signal(number, handle) for number in _ENDING}
        descriptor = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Close both sockets."""
        self._ours.close()
        self._theirs.close()
