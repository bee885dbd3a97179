"""Front ends as the supervisor sees them: whom to tell what, and what they ask.

`ForkedFronts` are processes that share a listening socket; they are forked, so closures and routes that the user added survive.
`AttachedFronts` are those of an app that somebody else serves, in this process.
"""

import collections
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, final

from leyden.core.log import get_logger
from leyden.serve.effects import WorkerId
from leyden.serve.errors import LinkError
from leyden.serve.processes import Child, death, die_with_parent, forget_spawned, fork, keep_memory
from leyden.serve.wire import Decoder, Frame, Kind, encode

_READ_BYTES, _WRITE_BYTES = 1 << 12, 1 << 16
_MOST_UNSENT = 1 << 20  # of values for loggers that a front end does not take: beyond it they are dropped
_END_SECONDS = 5.0
_logger = get_logger(__name__)


class ShutdownAsked(NamedTuple):
    """Somebody with the key wants the server to stop."""


class FrontGone(NamedTuple):
    """A front end has ended.

    Args:
        number: Which.
        why: In words.
        could_not_start: Whether it left by itself before it took a request.
    """

    number: int
    why: str
    could_not_start: bool = False


class WakeAsked(NamedTuple):
    """A request waits for an API that has no worker."""

    api: int


class WorkerSilent(NamedTuple):
    """A worker has said nothing for so long, though it has requests.

    Args:
        worker: Which.
        at: Its address: another one may have its number by now.
        seconds: For how long.
    """

    worker: WorkerId
    at: str
    seconds: float


class KillAsked(NamedTuple):
    """A worker goes on with what it was told to leave.

    Args:
        worker: Which.
        at: Its address: another one may have its number by now.
    """

    worker: WorkerId
    at: str


FrontEvent = ShutdownAsked | WakeAsked | WorkerSilent | KillAsked | FrontGone


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

    def log(self, frame: bytes) -> bool:
        """Send a value for loggers to all with the next `events`; return whether each has room for it."""
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

    def writing(self) -> Sequence[int]:
        """Return those of them for which something waits to be sent."""
        ...

    def are_serving(self) -> bool:
        """Return whether all take requests."""
        ...

    def are_gone(self) -> bool:
        """Return whether none is left."""
        ...

    def close(self) -> None:
        """End those that are left."""
        ...


@final
class _Line:
    """The supervisor's end of a front end's control socket. It never waits: what the other end does not take yet is kept."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.sock = sock
        self.is_ended = self.is_serving = self.is_leaving = False
        self.unsent = bytearray()
        self._decoder = Decoder()

    def send(self, frame: bytes) -> None:
        """Send a frame, after those that wait."""
        self.unsent += frame
        self.flush()

    def log(self, frame: bytes) -> bool:
        """Send a frame with the next `flush`, if not too much waits."""
        if len(self.unsent) > _MOST_UNSENT:
            return False
        self.unsent += frame
        return True

    def flush(self) -> None:
        """Send what is taken now."""
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                try:
                    sent = self.sock.send(self.unsent[:_WRITE_BYTES])
                except (BrokenPipeError, ConnectionResetError):  # it is gone: its end says so
                    sent = len(self.unsent)
                del self.unsent[:sent]

    def heard(self) -> list[FrontEvent]:
        found = list[FrontEvent]()
        with contextlib.suppress(BlockingIOError, ConnectionResetError, LinkError):
            while data := self.sock.recv(_READ_BYTES):
                frames = self._decoder.feed(data)
                self.is_serving |= any("serving" in frame.meta for frame in frames)
                self.is_leaving |= any("leaving" in frame.meta for frame in frames)
                found += [event for frame in frames if (event := _event(frame)) is not None]
            self.is_ended = True
        return found


def _event(frame: Frame) -> FrontEvent | None:
    """Return what a front end says: `front/process.py` has the table."""
    match frame.meta:
        case {"shutdown": _}:
            return ShutdownAsked()
        case {"wake": api}:
            return WakeAsked(api)
        case {"silent": worker, "at": at, "seconds": seconds}:
            return WorkerSilent(WorkerId(*worker), at, seconds)
        case {"kill": worker, "at": at}:
            return KillAsked(WorkerId(*worker), at)
    return None


@final
class _Process:
    def __init__(self, child: Child, line: _Line) -> None:
        self.child, self.line = child, line


@final
class ForkedFronts:
    """Front ends that are forked from this process, which has no other thread.

    Args:
        count: How many.
        make: Makes what they have in common, before the first one is forked, and returns what a front end does, given its number
            and its control socket; that returns when the front end has drained.
        strangers: Returns the file descriptors of this process that are not a front end's.
        listener: Where they take connections; closed here once they do not any more, so that nobody connects and waits in vain.
        share_logs: Whether front ends know of each other's numbers, so that one of them gets the values for loggers.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[], Callable[[int, socket.socket], None]],
        strangers: Callable[[], Iterable[int]],
        listener: socket.socket,
        *,
        share_logs: bool = False,
    ) -> None:
        self._make, self._strangers, self._listener, self._share_logs = make, strangers, listener, share_logs
        self._run: Callable[[int, socket.socket], None] | None = None
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
        run = self._run = self._run or self._make()
        ours, theirs = socket.socketpair()
        child = fork(lambda: self._be(run, number, ours, theirs))
        theirs.close()
        return _Process(child, _Line(ours))

    def _be(self, run: Callable[[int, socket.socket], None], number: int, ours: socket.socket, theirs: socket.socket) -> None:
        """Be a front end, in the forked process: it holds nothing whose end others wait for."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals the whole group: the supervisor decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent()
        keep_memory()
        ours.close()
        forget_spawned()
        for descriptor in {*self._strangers(), *self.descriptors()}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        run(number, theirs)

    def tell(self, frame: bytes) -> None:
        """Send a frame to all."""
        for process in self._processes.values():
            process.line.send(frame)

    def log(self, frame: bytes) -> bool:
        """Send a value for loggers to all, or to the first one."""
        lines = [self._processes[number].line for number in sorted(self._processes)]
        taken = [line.log(frame) for line in (lines[:1] if self._share_logs else lines)]
        return all(taken)

    def stop(self) -> None:
        """Start none any more: those that are there were told to drain."""
        self._is_stopping = True
        self._let_go()

    def _let_go(self) -> None:
        """Close the listener, once it is the end and a front end takes no connections any more: both may come first."""
        if self._is_stopping and any(process.line.is_leaving for process in self._processes.values()):
            self._listener.close()

    def events(self) -> Sequence[FrontEvent]:
        """Return what has happened since the last call."""
        found = list[FrontEvent]()
        for number, process in list(self._processes.items()):
            process.line.flush()
            found += process.line.heard()
            self._let_go()
            if process.child.has_ended():
                del self._processes[number]
                process.line.sock.close()
                status = process.child.status or 0
                found.append(FrontGone(number, death(status), could_not_start=status >= 0 and not process.line.is_serving))
        return found

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors that become readable when there may be events."""
        lines = [process.line.sock.fileno() for process in self._processes.values()]
        return [*lines, *(process.child.descriptor for process in self._processes.values() if process.child.descriptor >= 0)]

    def writing(self) -> Sequence[int]:
        """Return the control sockets for which something waits to be sent."""
        return [process.line.sock.fileno() for process in self._processes.values() if process.line.unsent]

    def are_serving(self) -> bool:
        """Return whether all take requests."""
        return len(self._processes) == self._count and all(process.line.is_serving for process in self._processes.values())

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

    def log(self, frame: bytes) -> bool:
        """Send a value for loggers to the first one: they are one process, with one set of loggers."""
        return all(line.log(frame) for line in self._lines[:1])

    def stop(self) -> None:
        """Do nothing: they end with whoever serves them."""

    def events(self) -> Sequence[FrontEvent]:
        """Return what they have said since the last call."""
        self._take_in()
        for line in self._lines:
            line.flush()
        found = [event for line in self._lines for event in line.heard()]
        for line in [line for line in self._lines if line.is_ended]:
            self._lines.remove(line)
            line.sock.close()
        return found

    def _take_in(self) -> None:
        while self._coming:
            line = self._coming.popleft()
            for frame in self._greeting():
                line.send(frame)
            self._lines.append(line)

    def descriptors(self) -> Sequence[int]:
        """Return the descriptors of their control sockets."""
        return [line.sock.fileno() for line in self._lines]

    def writing(self) -> Sequence[int]:
        """Return those for which something waits to be sent."""
        return [line.sock.fileno() for line in self._lines if line.unsent]

    def are_serving(self) -> bool:
        """Return whether one need not wait for them: they come when whoever serves them is ready."""
        return True

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


def log_frame(api: int, key: str, value: bytes) -> bytes:
    """Return a frame that hands a value to the loggers of a front end."""
    return b"".join(encode(Kind.LOG, 0, {"k": key, "a": api}, value))


def drain_frame(*, now: bool = False) -> bytes:
    """Return the frame that tells a front end to drain."""
    return bytes(encode(Kind.DRAIN, 0, {"now": True} if now else None)[0])
