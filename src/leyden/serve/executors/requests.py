"""What goes into an executor, `Request`, and what comes out of it: `Reply`, `Timing`, and the `Sink` that takes them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, final

import msgspec

from leyden.serve.codec import JSON
from leyden.serve.context import RequestContext
from leyden.serve.faults import Fault
from leyden.serve.tracing import read_traceparent

_NO_FACTS: Mapping[str, Any] = MappingProxyType({})
GONE = Fault(499, "request.cancelled", "Nobody waits for this request any more.")
TOO_LATE = Fault(504, "deadline.exceeded", "The deadline of this request is over.")


def _see_nothing() -> None:
    """Look nowhere."""


@final
class Request:
    """A request in a worker, and whether anybody still waits for it.

    Args:
        number: Its own in this worker.
        body: As it came.
        content_type: Of the body.
        facts: What came with it, as the frame `REQ` names it: `r` its id, `h` its headers, `t` its trace, `p` its priority.
        deadline: When its answer must have ended, by `time.monotonic`; infinite if never.
        expires: When its computation must have begun, by the same clock.
        look: Reads what has come meanwhile, so that a cancellation is known: called whenever somebody asks for it.

    Example:
        >>> request = Request(1, b"{}", facts={"r": "a-1"})
        >>> request.context.request_id, request.is_cancelled()
        ('a-1', False)
        >>> request.cancel()
        >>> request.context.cancelled
        True
    """

    # Fields that stay as they are for nearly all requests are the class's: an object with all of them in slots takes longer to make.
    has_begun: bool = False  # its computation
    has_chunks: bool = False  # a part of its stream was sent
    unread_bytes: int = 0  # of its stream: sent, and not yet read by the client
    on_cancel: Callable[[], object] | None = None
    on_read: Callable[[], object] | None = None  # called when its client has read of its stream
    _is_cancelled: bool = False
    _context: RequestContext | None = None

    def __init__(
        self,
        number: int,
        body: bytes | bytearray | memoryview,
        content_type: str = "",
        *,
        facts: Mapping[str, Any] = _NO_FACTS,
        deadline: float = math.inf,
        expires: float = math.inf,
        look: Callable[[], None] = _see_nothing,
    ) -> None:
        self.number, self.body, self.content_type, self.facts = number, body, content_type, facts
        self.deadline, self.expires = deadline, expires
        self._look = look

    def cancel(self) -> None:
        """Take note that nobody waits for it any more."""
        self._is_cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def is_cancelled(self) -> bool:
        """Return whether nobody waits for it any more: the client left, or the deadline is over."""
        if not self._is_cancelled:
            self._look()
        return self._is_cancelled or (self.deadline != math.inf and self.is_late)

    @property
    def is_late(self) -> bool:
        """Whether its deadline is over."""
        return time.monotonic() >= self.deadline

    @property
    def end(self) -> Fault:
        """What it ends with, now that it is cancelled. The worker may know sooner than the front end that it is too late."""
        return TOO_LATE if not self._is_cancelled else GONE

    @property
    def request_id(self) -> str:
        """Its name in answers and log lines."""
        return str(self.facts.get("r", ""))

    def log_fields(self) -> Mapping[str, object]:
        """Return what log lines say of it."""
        trace = self.facts.get("t")
        span = read_traceparent(trace) if isinstance(trace, str) else None
        return {"request_id": self.request_id} if span is None else {"request_id": self.request_id, "trace_id": span.trace_id}

    @property
    def context(self) -> RequestContext:
        """What hooks may know of it; made when the first one asks."""
        if self._context is None:
            self._context = self._new_context()
        return self._context

    def _new_context(self) -> RequestContext:
        facts = self.facts
        headers, priority, trace = facts.get("h"), facts.get("p"), facts.get("t")
        span = read_traceparent(trace) if isinstance(trace, str) else None
        return RequestContext(
            self.request_id,
            headers=MappingProxyType(headers) if isinstance(headers, dict) else _NO_FACTS,
            deadline=self.deadline,
            priority=priority if isinstance(priority, int) else 0,
            trace_id=span.trace_id if span else "",
            is_cancelled=self.is_cancelled,
            clock=time.monotonic,
        )


class Together(NamedTuple):
    """Requests that are computed together, as log lines name them."""

    requests: Sequence[Request]

    def log_fields(self) -> Mapping[str, object]:
        """Return what log lines say of them."""
        if len(self.requests) == 1:
            return self.requests[0].log_fields()
        return {"request_ids": [request.request_id for request in self.requests]}


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer, ready for HTTP.

    Args:
        body: Its bytes.
        content_type: Their type.
        status: Of HTTP.
        headers: Further ones.
    """

    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Timing(msgspec.Struct, frozen=True, gc=False):
    """Where the time of a batch went, in seconds."""

    decode: float = 0.0
    predict: float = 0.0
    encode: float = 0.0


class Sink(Protocol):
    """Takes answers. Each request ends with one `reply`, one `end` or one `fault`."""

    def reply(self, request: Request, reply: Reply, timing: Timing) -> None:
        """Answer a request; `timing` is that of its batch, as far as it is known."""

    def fault(self, request: Request, fault: Fault) -> None:
        """Answer a request with an error, or end its stream with one."""

    def chunk(self, request: Request, data: bytes, content_type: str) -> None:
        """Send a part of a stream. Waits while `has_room` is false.

        Raises:
            Fault: The client left meanwhile, or did not read for too long.
        """

    def has_room(self, request: Request) -> bool:
        """Return whether the client has read enough of its stream for more."""

    def stalled(self) -> Fault:
        """Return the end of a stream whose client does not read."""

    @property
    def stall_seconds(self) -> float:
        """For how long a client may not read."""

    def end(self, request: Request, timing: Timing) -> None:
        """End a stream."""
