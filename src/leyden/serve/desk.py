"""`Desk`: what a worker has in front of it: its links, the requests that came over them, and which of them are next.

One `look` reads everything that has come: requests are put down, cancellations and read bytes are noted, connections are made
and ended. Executors never see a link; what they answer goes through `Answers`. An executor may cause a look in the middle of a
batch (when it asks whether a request was cancelled), so a look never calls an executor.

A front end says HELLO, gets HELLO and READY, and sends requests; LAST_OF_BATCH ends what it wants computed together. A worker
that is to leave says DRAIN, each front end answers with DRAIN after its last request (one that does not is given a second),
and gets BYE when all of its requests are answered.
"""

import functools
import hmac
import math
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, final

from leyden.core.log import get_logger
from leyden.serve.errors import LinkError
from leyden.serve.executors.requests import GONE, TOO_LATE, Request
from leyden.serve.faults import Fault
from leyden.serve.wire import LAST_OF_BATCH, LINK_STREAM, MAX_PAYLOAD_BYTES, Frame, Kind
from leyden.serve.worker_link import WorkerLink

VERSION = 1
GLANCE_SECONDS = 0.001
GRACE_SECONDS = 1.0
_MOST_UNSENT = 4 << 20  # of a front end that does not read: its next batches wait
_BACKLOG = 128
_REQ = Kind.REQ  # a member of an enum costs 0.3 µs in Python 3.11
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_EXPIRED = Fault(504, "queue.expired", "Request timed out")
_logger = get_logger(__name__)


class Greeting(NamedTuple):
    """What a worker says of itself.

    Args:
        name: Its own, for logs.
        token: What front ends must say; empty if they need none.
        ready: The meta of READY.
    """

    name: str
    token: str
    ready: dict[str, Any]


@final
class Front:
    """A front end that is connected."""

    __slots__ = ("batches", "is_dirty", "is_greeted", "is_leaving", "is_watched", "link", "name", "number", "open", "owed")

    def __init__(self, number: int, link: WorkerLink) -> None:
        self.number, self.link, self.name = number, link, f"front end {number}"
        self.open = list[Request]()  # a batch that is not complete
        self.batches: deque[list[Request]] = deque()
        self.owed = 0  # requests that are not answered
        self.is_greeted = self.is_leaving = False
        self.is_dirty = self.is_watched = False  # has something to send; waits until the socket takes it


@final
class Desk:
    """The links of a worker and the requests that it holds.

    Args:
        listener: Where front ends connect.
        greeting: What they are told.
        max_batch_size: How many requests are computed together.
    """

    def __init__(self, listener: socket.socket, greeting: Greeting, max_batch_size: int) -> None:
        self._greeting, self._max_batch_size = greeting, max_batch_size
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._fronts: dict[int, Front] = {}
        self._turns: deque[Front] = deque()  # whose batch is taken next
        self._requests: dict[int, Request] = {}
        self._dirty: list[Front] = []
        self._next_front = 1
        self._looked = 0.0
        self._is_draining = self._has_leavers = False
        self._drain_by = math.inf  # by then a front end has said that it sends nothing more
        self.on_dirty: Callable[[], object] | None = None  # called when there is something to flush
        self.on_drain: Callable[[float], object] | None = None  # called with the seconds after which a look is due
        self.refuse: Callable[[Request, Fault], None] = _forget
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.watch(listener, self._accept)

    def watch(self, source: Any, heard: Callable[[int], None]) -> None:
        """Call a function whenever something can be read."""
        self._selector.register(source, _READ, heard)

    def watch_writing(self, source: Any, is_waiting: bool) -> None:  # noqa: FBT001 - a callback's signature
        """Call the function of a source also when it can be written to, or no longer."""
        self._selector.modify(source, _READ | _WRITE if is_waiting else _READ, self._selector.get_key(source).data)

    def fileno(self) -> int:
        """Return what can be read when a `look` has something to see (Linux, macOS)."""
        return self._selector.fileno()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the connections that are still there."""
        for front in self._fronts.values():
            front.link.close()

    # -- looking ---------------------------------------------------------------------------------------------------

    def look(self, timeout: float | None = 0.0) -> None:
        """Send what is to be sent, and take in what has come.

        Args:
            timeout: How long to wait for something to come; `None` is as long as it takes.
        """
        self.settle()
        found = self._selector.select(self._patience(timeout) if self._is_draining else timeout)
        self._looked = time.monotonic()
        for key, mask in found:
            key.data(mask)
        if self._has_leavers:
            self._see_off()

    def settle(self) -> None:
        """Send what is to be sent, and see off who is owed nothing any more."""
        self.flush()
        if self._has_leavers:
            self._see_off()

    def glance(self) -> None:
        """Look, if the last time was more than a millisecond ago."""
        if time.monotonic() - self._looked >= GLANCE_SECONDS:
            self.look()

    def _patience(self, timeout: float | None) -> float | None:
        """Return how long to wait while leaving: not after the last front end has gone, nor beyond the grace."""
        left = 0.0 if self.is_done else self._drain_by - time.monotonic()
        if left <= 0:
            return 0.0 if self.is_done else timeout
        return left if timeout is None else min(left, timeout)

    def _accept(self, _mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # whoever knocked has gone again
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PAYLOAD_BYTES)  # a whole frame at once, if the system allows it
        front = Front(self._next_front, WorkerLink(sock))
        self._next_front += 1
        self._fronts[front.number] = front
        self._turns.append(front)
        self._selector.register(front.link, _READ, functools.partial(self._hear, front))

    def _hear(self, front: Front, mask: int) -> None:
        if mask & _WRITE:
            self._flush(front)
        if mask & _READ:
            try:
                for frame in front.link.read():
                    self._take_in(front, frame)
            except LinkError as error:
                _logger.error("%s: %s", front.name, error)
                front.link.is_ended = True
        if front.link.is_ended:
            self._close(front)

    def _take_in(self, front: Front, frame: Frame) -> None:
        kind = frame.kind
        if not front.is_greeted:
            self._greet(front, frame)
        elif kind is _REQ:
            self._put_down(front, frame)
        elif kind is Kind.CANCEL:
            request = self._requests.get(front.number << 32 | frame.stream)
            if request is not None:  # else it was answered while this came
                self._cancel(front, request)
        elif kind is Kind.WINDOW:
            self._was_read(front, frame)
        elif kind is Kind.PING:
            self.send(front, Kind.PONG, LINK_STREAM)
        elif kind is Kind.DRAIN:
            front.is_leaving = True
            self._has_leavers = True
        elif kind is Kind.BYE:
            front.link.is_ended = True
        elif kind is not Kind.PONG:
            raise LinkError(f"{front.name} sent a {kind.name}, which only workers send. The link is closed.")

    def _greet(self, front: Front, frame: Frame) -> None:
        meta = frame.meta
        if frame.kind is not Kind.HELLO:
            raise LinkError(f"{front.name} sent a {frame.kind.name} before its HELLO. The link is closed.")
        if meta.get("v") != VERSION:
            front.link.send(Kind.ERROR, LINK_STREAM, {"s": 426, "c": "link.version", "m": f"This worker speaks version {VERSION}."})
            front.link.flush()
            raise LinkError(f"{front.name} speaks version {meta.get('v')!r}, and this worker {VERSION}. The link is closed.")
        if not hmac.compare_digest(str(meta.get("token", "")).encode(), self._greeting.token.encode()):
            raise LinkError(f"{front.name} has another token. The link is closed.")
        front.name, front.is_greeted = str(meta.get("id", front.name)), True
        self.send(front, Kind.HELLO, LINK_STREAM, {"v": VERSION, "role": "worker", "id": self._greeting.name})
        self.send(front, Kind.READY, LINK_STREAM, self._greeting.ready)
        if self._is_draining:
            self.send(front, Kind.DRAIN, LINK_STREAM)

    # -- requests --------------------------------------------------------------------------------------------------

    def _put_down(self, front: Front, frame: Frame) -> None:
        number, meta = front.number << 32 | frame.stream, frame.meta
        if number in self._requests or frame.stream == LINK_STREAM:
            raise LinkError(f"{front.name} sent a request of number {frame.stream}, which is in use. The link is closed.")
        request = Request(number, frame.body, meta.get("ct", ""), facts=meta, look=self.glance)
        if "q" in meta:
            request.expires = self._looked + _seconds(front, meta, "q")
        if "d" in meta:
            request.deadline = self._looked + _seconds(front, meta, "d")
        self._requests[number] = request
        front.owed += 1
        front.open.append(request)
        if frame.flags & LAST_OF_BATCH:
            front.batches.append(front.open)
            front.open = []

    def _cancel(self, front: Front, request: Request) -> None:
        request.cancel()
        if not request.has_begun:
            self.refuse(request, GONE)

    def _was_read(self, front: Front, frame: Frame) -> None:
        request, count = self._requests.get(front.number << 32 | frame.stream), frame.meta.get("n")
        if not isinstance(count, int) or count < 0:
            raise LinkError(f"{front.name} says that n={count!r} bytes were read. The link is closed.")
        if request is not None:
            request.unread_bytes = max(0, request.unread_bytes - count)
            if request.on_read is not None:
                request.on_read()

    def take(self, most: int | None = None) -> list[Request]:
        """Return requests to compute together, now begun; none if there are none.

        A batch of one front end, and those of others as far as they fit; who came first this time comes last next time.

        Args:
            most: How many; by default the size of a batch. A batch that is larger is taken in parts.
        """
        most = self._max_batch_size if most is None else most
        taken = list[Request]()
        for _ in range(len(self._turns)):
            front = self._turns[0]
            self._turns.rotate(-1)
            if front.batches and front.link.unsent_bytes <= _MOST_UNSENT:
                self._take_from(front, most, taken)
                if len(taken) == most:
                    break
        return taken

    def take_singles(self, most: int) -> list[Request]:
        """Return requests to compute one after the other, now begun; none if there are none.

        Args:
            most: How many.
        """
        taken = list[Request]()
        for _ in range(len(self._turns)):
            front = self._turns[0]
            self._turns.rotate(-1)
            batches = front.batches if front.link.unsent_bytes <= _MOST_UNSENT else ()
            while batches and len(taken) < most:
                for request in batches.popleft():
                    if self._can_begin(request):
                        request.has_begun = True
                        taken.append(request)
        return taken

    def _take_from(self, front: Front, most: int, taken: list[Request]) -> None:
        batches = front.batches
        while batches:
            batch = [request for request in batches.popleft() if self._can_begin(request)]
            if not batch:
                continue
            left = most - len(taken)
            if len(batch) > left:
                fits = 0 if taken else left
                batches.appendleft(batch[fits:])
                batch = batch[:fits]
            for request in batch:
                request.has_begun = True
            taken += batch
            return

    def _can_begin(self, request: Request) -> bool:
        """Return whether a request is still to be computed; one that is too late is answered."""
        if request.number not in self._requests:  # cancelled, and answered then
            return False
        if request.expires == request.deadline == math.inf:
            return True
        now = self._looked  # a millisecond ago, at most
        if now < request.expires and now < request.deadline:
            return True
        self.refuse(request, TOO_LATE if now >= request.deadline else _EXPIRED)
        return False

    @property
    def has_waiting(self) -> bool:
        """Whether a batch is there that was not taken."""
        return any(front.batches for front in self._turns)

    # -- answers ---------------------------------------------------------------------------------------------------

    def front_of(self, request: Request) -> Front | None:
        """Return who waits for a request; `None` if it was answered, or the front end is gone."""
        return self._fronts.get(request.number >> 32) if request.number in self._requests else None

    def answered(self, front: Front, request: Request) -> None:
        """Forget a request: its last frame is on its way."""
        del self._requests[request.number]
        front.owed -= 1

    def send(self, front: Front, kind: Kind, stream: int, meta: dict[str, Any] | None = None, body: Any = b"") -> None:
        """Say something with the next `flush`.

        Raises:
            ConfigError: The meta cannot be packed.
        """
        front.link.send(kind, stream, meta, body)
        if not front.is_dirty:
            front.is_dirty = True
            self._dirty.append(front)
            if self.on_dirty is not None:
                self.on_dirty()

    def send_now(self, front: Front, kind: Kind, stream: int, meta: dict[str, Any] | None = None, body: Any = b"") -> None:
        """Say something at once, or, in an event loop, as soon as that has the turn.

        Raises:
            ConfigError: The meta cannot be packed.
        """
        if self.on_dirty is None:
            front.link.send(kind, stream, meta, body)
            self._flush(front)
        else:
            self.send(front, kind, stream, meta, body)

    def flush(self) -> None:
        """Send what is to be sent."""
        if self._dirty:
            dirty, self._dirty = self._dirty, list[Front]()
            for front in dirty:
                front.is_dirty = False
                if not front.link.is_ended:
                    self._flush(front)

    def _flush(self, front: Front) -> None:
        """Send what is to be sent to one front end, and wait for its socket if that does not take all."""
        front.link.flush()
        must_watch = front.link.unsent_bytes > 0
        if must_watch != front.is_watched and not front.link.is_ended:
            front.is_watched = must_watch
            key = self._selector.get_key(front.link)
            self._selector.modify(front.link, _READ | _WRITE if must_watch else _READ, key.data)

    # -- leaving ---------------------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether this worker was to leave, and owes nobody anything."""
        return self._is_draining and not self._fronts

    def drain(self) -> None:
        """Take no connections any more, tell front ends to send nothing more, and answer what is there."""
        if self._is_draining:
            return
        self._is_draining = self._has_leavers = True
        self._drain_by = time.monotonic() + GRACE_SECONDS
        self._selector.unregister(self._listener)
        self._listener.close()
        for front in self._fronts.values():
            self.send(front, Kind.DRAIN, LINK_STREAM)
        if self.on_drain is not None:
            self.on_drain(GRACE_SECONDS)

    def _see_off(self) -> None:
        """Say BYE to front ends that are owed nothing and will send nothing, and close when that is written."""
        is_over = time.monotonic() >= self._drain_by
        for front in list(self._fronts.values()):
            if (front.is_leaving or (self._is_draining and is_over)) and not front.owed:
                front.link.send(Kind.BYE, LINK_STREAM)
                front.link.flush_all(GRACE_SECONDS)
                self._close(front)

    def _close(self, front: Front) -> None:
        self._selector.unregister(front.link)
        front.link.close()
        del self._fronts[front.number]
        self._turns.remove(front)
        for number in [number for number in self._requests if number >> 32 == front.number]:
            self._requests.pop(number).cancel()
        front.batches.clear()


def _seconds(front: Front, meta: dict[str, Any], name: str) -> float:
    """Return a time that is left, which the meta has in milliseconds."""
    left = meta[name]
    if not isinstance(left, int | float):
        raise LinkError(f"{front.name} says {name}={left!r}, where milliseconds are due. The link is closed.")
    return left / 1000


def _forget(request: Request, fault: Fault) -> None:
    """Answer nobody: before there is somebody who can."""
