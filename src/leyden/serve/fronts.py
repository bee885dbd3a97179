"""Front ends as the supervisor sees them: whom to tell what, and what they ask.

`ForkedFronts` are processes that share a listening socket; they are forked, so closures and routes that the user added survive.
`AttachedFronts` are those of an app that somebody else serves, in this process.
"""

import collections
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, final

from leyden.core.log import get_logger
from leyden.serve.errors import LinkError
from leyden.serve.processes import Child, death, die_with_parent, fork, keep_memory
from leyden.serve.wire import Decoder, Kind, encode

_READ_BYTES = 1 << 12
_END_SECONDS = 5.0
_logger = get_logger(__name__)


class ShutdownAsked(NamedTuple):
    """Somebody with the key wants the server to stop."""


class FrontGone(NamedTuple):
    """A front end has ended.

    Args:
        number: Which.
        why: In words.
    """

    number: int
    why: str


FrontEvent = ShutdownAsked | FrontGone


class Fronts(Protocol):
    """The front ends of a server."""

    def start(self, greeting: Callable[[], Iterable[bytes]]) -> None:
        """Start those that are not there, and tell each what there is.

        Args:
            greeting: Returns the frames that tell it.
        """
        ...

    def tell(self, frame: bytes) -> None:
        """Send a frame to all."""
        ...

    def stop(self) -> None:
        """Start none any more: those that are there were told to drain."""
        ...

    def events(self) -> Sequence[FrontEvent]:
        """Return what has happened since the last call, without waiting."""
        ...

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors that become readable when there may be events."""
        ...

    def are_gone(self) -> bool:
        """Return whether none is left."""
        ...

    def close(self) -> None:
        """End those that are left."""
        ...


@final
class _Line:
    """The supervisor's end of a front end's control socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_ended = False
        self._decoder = Decoder()

    def send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # it is gone: its end says so
            self.sock.sendall(frame)

    def asks_for_shutdown(self) -> bool:
        asked = False
        with contextlib.suppress(BlockingIOError, ConnectionResetError, LinkError):
            while data := self.sock.recv(_READ_BYTES, socket.MSG_DONTWAIT):
                asked |= any(frame.kind is Kind.STATE and "shutdown" in frame.meta for frame in self._decoder.feed(data))
            self.is_ended = True
        return asked


@final
class _Process:
    def __init__(self, child: Child, line: _Line) -> None:
        self.child, self.line = child, line


@final
class ForkedFronts:
    """Front ends that are forked from this process, which has no other thread.

    Args:
        count: How many.
        run: What a front end does, given its number and its control socket; it returns when the front end has drained.
        strangers: Returns the file descriptors of this process that are not a front end's.
    """

    def __init__(self, count: int, run: Callable[[int, socket.socket], None], strangers: Callable[[], Iterable[int]]) -> None:
        self._run, self._strangers = run, strangers
        self._processes: dict[int, _Process] = {}
        self._count = count
        self._is_stopping = False

    def start(self, greeting: Callable[[], Iterable[bytes]]) -> None:
        """Start those that are not there, and tell each what there is."""
        for number in range(0 if self._is_stopping else self._count):
            if number not in self._processes:
                self._processes[number] = self._forked(number)
                for frame in greeting():
                    self._processes[number].line.send(frame)

    def _forked(self, number: int) -> _Process:
        ours, theirs = socket.socketpair()
        child = fork(lambda: self._be(number, ours, theirs))
        theirs.close()
        return _Process(child, _Line(ours))

    def _be(self, number: int, ours: socket.socket, theirs: socket.socket) -> None:
        """Be a front end, in the forked process: it holds nothing whose end others wait for."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals the whole group: the supervisor decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent()
        keep_memory()
        ours.close()
        for descriptor in {*self._strangers(), *self.descriptors()}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._run(number, theirs)

    def tell(self, frame: bytes) -> None:
        """Send a frame to all."""
        for process in self._processes.values():
            process.line.send(frame)

    def stop(self) -> None:
        """Start none any more: those that are there were told to drain."""
        self._is_stopping = True

    def events(self) -> Sequence[FrontEvent]:
        """Return what has happened since the last call."""
        found = list[FrontEvent]()
        for number, process in list(self._processes.items()):
            if process.line.asks_for_shutdown():
                found.append(ShutdownAsked())
            if process.child.has_ended():
                del self._processes[number]
                process.line.sock.close()
                found.append(FrontGone(number, death(process.child.status or 0)))
        return found

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors that become readable when there may be events."""
        lines = [process.line.sock.fileno() for process in self._processes.values()]
        return [*lines, *(process.child.descriptor for process in self._processes.values() if process.child.descriptor >= 0)]

    def are_gone(self) -> bool:
        """Return whether none is left."""
        return not self._processes

    def close(self) -> None:
        """End those that are left."""
        for process in self._processes.values():
            process.child.kill()
        for process in self._processes.values():
            process.child.wait(_END_SECONDS)
            process.line.sock.close()
        self._processes.clear()


@final
class AttachedFronts:
    """Front ends in this process, which others serve: each comes with its event loop, and leaves with it. Thread safe."""

    def __init__(self) -> None:
        self._lines = list[_Line]()
        self._coming = collections.deque[_Line]()
        self._greeting: Callable[[], Iterable[bytes]] = list

    def attach(self) -> socket.socket:
        """Return the control socket of one more; wake the supervisor afterwards, which then tells it what there is."""
        ours, theirs = socket.socketpair()
        self._coming.append(_Line(ours))
        return theirs

    def start(self, greeting: Callable[[], Iterable[bytes]]) -> None:
        """Tell those that come what there is."""
        self._greeting = greeting
        self._take_in()

    def tell(self, frame: bytes) -> None:
        """Send a frame to all that are there."""
        for line in self._lines:
            line.send(frame)

    def stop(self) -> None:
        """Do nothing: they end with whoever serves them."""

    def events(self) -> Sequence[FrontEvent]:
        """Return whether one of them was asked for the end."""
        self._take_in()
        asked = [line.asks_for_shutdown() for line in self._lines]
        for line in [line for line in self._lines if line.is_ended]:
            self._lines.remove(line)
            line.sock.close()
        return [ShutdownAsked()] if any(asked) else []

    def _take_in(self) -> None:
        while self._coming:
            line = self._coming.popleft()
            for frame in self._greeting():
                line.send(frame)
            self._lines.append(line)

    def descriptors(self) -> Sequence[int]:
        """Return the descriptors of their control sockets."""
        return [line.sock.fileno() for line in self._lines]

    def are_gone(self) -> bool:
        """Return whether one need not wait for them: whoever serves them stops the supervisor after their requests."""
        return True

    def close(self) -> None:
        """Close their control sockets."""
        for line in [*self._lines, *self._coming]:
            line.sock.close()
        self._lines.clear()


def state_frame(**meta: object) -> bytes:
    """Return a frame that tells a front end something."""
    return bytes(encode(Kind.STATE, 0, dict(meta))[0])


def drain_frame(*, now: bool = False) -> bytes:
    """Return the frame that tells a front end to drain."""
    return bytes(encode(Kind.DRAIN, 0, {"now": True} if now else None)[0])
