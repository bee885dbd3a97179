"""`HttpCall`: one request, from its head to the last byte of its answer, however it came in.

```
opened ──► body comes (`add`) ──► submitted ──► answered, or streamed ──► finish()
   └────────────── refused, abandoned: the client left ───────────────────────┘
```
Its `Client` writes to the connection: the hot path and the ASGI endpoints each have one, and nothing else differs between them.
Whatever ends a call goes through `finish`, which gives back all that it holds; what comes after that finds it ended.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from leyden.core.log import get_logger
from leyden.serve.codec import JSON
from leyden.serve.config import ApiConfig
from leyden.serve.effects import CallState, WorkerId
from leyden.serve.faults import Fault
from leyden.serve.front.answers import (
    LARGEST_INLINE_GZIP,
    SMALLEST_GZIP,
    Answer,
    checked_status,
    compressed,
    error_answer,
    is_worth_compressing,
)
from leyden.serve.front.counters import Counters
from leyden.serve.front.streams import Writer, writer_for
from leyden.serve.tracing import read_traceparent
from leyden.serve.wire import Frame

Ending = Literal["", "whole", "cut"]  # more is to come; all was sent; it breaks off here
_PIECE_BYTES: Final = 16 << 10
GONE: Final = 499  # what is counted where the client left; nobody is told
_BARE: Final = frozenset({None, "", "request.refused"})  # an HTTPException of a hook: nothing is added to its detail
_logger = get_logger(__name__)


class Client(Protocol):
    """The connection of a call."""

    @property
    def is_congested(self) -> bool:
        """Whether it does not keep up; it calls `caught_up` when it does again."""
        ...

    def answer(self, call: "HttpCall", answer: Answer) -> None:
        """Send a whole answer."""

    def stream(self, call: "HttpCall", head: Answer | None, data: bytes, ending: Ending) -> None:
        """Send a part of a stream; the first one has the head."""


class Owner(Protocol):
    """Who routes a call."""

    exposes_errors: bool
    max_payload_bytes: float

    def now(self) -> float:
        """Return the time."""
        ...

    def reserve(self, num_bytes: int) -> bool:
        """Count bytes of a body that is on its way, if there is room."""
        ...

    def release(self, num_bytes: int) -> None:
        """Count them no longer."""

    def abandon(self, call: "HttpCall") -> None:
        """Take note that the client left."""

    def consumed(self, call: "HttpCall", num_bytes: int) -> None:
        """Tell the worker that its stream may go on."""

    def finished(self, call: "HttpCall") -> None:
        """Take note of the end."""


class HttpCall:
    """A request.

    Most fields stay as the class has them: an object with all of them in slots costs twice as much to make.

    Args:
        number: Greater than that of every call before.
        api: The number of its API.
        config: Its API.
        counters: Of its API.
        owner: Who routes it.
        client: Who writes its answer.
        request_id: Its name.
    """

    # What the router needs and sets.
    num_bytes: int = 0
    deadline: float = math.inf
    is_answering: bool = False
    state: CallState = CallState.QUEUED
    is_open: bool = False
    is_retry: bool = False
    arrival: float = 0.0
    since: float = 0.0
    worker: WorkerId | None = None
    # What the worker is told.
    body: bytes | list[bytes | bytearray] = b""  # one that came in pieces stays in pieces: joining them would cost a copy
    content_type: str = ""
    headers: Mapping[str, str] | None = None
    traceparent: str = ""
    priority: int = 0
    endpoint: str = ""
    stream: int = 0  # on the link
    # What the client wants.
    shows_trace: bool = False
    accepts_gzip: bool = False
    accepts_events: bool = False
    # How far it is.
    reserved: int = 0
    reason: str = ""  # why it is refused, where the code does not tell
    status: int = 0  # of the answer, once it is finished
    _writer: Writer | None = None
    _head: Answer | None = None  # until it is sent with the first piece
    _pieces: list[bytes] | None = None
    _given: int = 0

    def __init__(self, number: int, api: int, config: ApiConfig, counters: Counters, owner: Owner, client: Client, request_id: str) -> None:
        self.id, self.api, self.config, self.counters, self.owner = number, api, config, counters, owner
        self.client: Client | None = client
        self.request_id = request_id
        self.is_idempotent = config.is_idempotent
        self.began = owner.now()

    # -- the request -----------------------------------------------------------------------------------------------

    def add(self, data: bytes) -> None:
        """Take a part of the body.

        Raises:
            Fault: 413, 429: it is too much.
        """
        if not self.num_bytes:
            self.body = data
        else:
            self._reserve(len(data) + (0 if self.reserved else self.num_bytes))
            pieces: list[bytes | bytearray] = [self.body] if isinstance(self.body, bytes) else self.body
            self.body, last = pieces, pieces[-1]
            if len(data) >= _PIECE_BYTES or len(last) >= _PIECE_BYTES:
                pieces.append(data)
            elif isinstance(last, bytearray):  # a body that drips in is not a thousand objects
                last += data
            else:
                pieces[-1] = bytearray(last) + data
        self.num_bytes += len(data)
        if self.num_bytes > self.owner.max_payload_bytes:
            raise too_large(self.owner.max_payload_bytes)

    def _reserve(self, num_bytes: int) -> None:
        if not self.owner.reserve(num_bytes):
            self.reason = "bytes"
            raise no_room()
        self.reserved += num_bytes

    def give_back(self) -> None:
        """Give back what was reserved for a body on its way: it is all there, or never will be."""
        if self.reserved:
            self.owner.release(self.reserved)
            self.reserved = 0

    def abandon(self) -> None:
        """Take note that the client left."""
        if self.client is not None:
            self.client = None  # nothing is written any more
            self.owner.abandon(self)
            self.counters.cancelled("disconnect")
            self.finish(GONE)

    # -- the answer ------------------------------------------------------------------------------------------------

    def reply(self, answer: Answer) -> None:
        """Answer, and end."""
        client = self.client
        if client is None:
            return
        if self.accepts_gzip and len(answer.body) >= SMALLEST_GZIP and is_worth_compressing(answer):
            if len(answer.body) > LARGEST_INLINE_GZIP:
                self._compress_beside(answer)
                return
            answer = compressed(answer)
        client.answer(self, answer)
        self.finish(answer.status)

    def fail(self, fault: Fault, *, raw_detail: bytes | None = None) -> None:
        """Answer with an error, or break off a stream that has begun; and end."""
        client, writer = self.client, self._writer
        if client is None:
            return
        if writer is None:
            client.answer(self, error_answer(fault, self.request_id, exposes=self.owner.exposes_errors, raw_detail=raw_detail))
            self.finish(fault.status)
            return
        shown = {"code": fault.code, "request_id": self.request_id}
        if self.owner.exposes_errors:
            shown["message"] = fault.message
        pieces, head = self._pieces or [], self._head
        self._pieces = self._head = None
        client.stream(self, head, (writer.join(pieces) if pieces else b"") + writer.error(shown), "cut")
        self.finish(fault.status)

    def refuse(self, fault: Fault) -> None:
        """Answer with an error, before all of the request was read; and end."""
        self.counters.rejected(fault.code, self.reason)
        self.fail(fault)

    def _compress_beside(self, answer: Answer) -> None:
        """Compress in a thread, and answer when that is done: a megabyte takes as long as a thousand small requests."""

        def done(future: "asyncio.Future[Answer]") -> None:
            client = self.client
            if client is not None:
                smaller = answer if future.cancelled() or future.exception() else future.result()
                client.answer(self, smaller)
                self.finish(smaller.status)

        asyncio.get_running_loop().run_in_executor(None, compressed, answer).add_done_callback(done)

    # -- what comes from the worker ----------------------------------------------------------------------------------

    def on_result(self, frame: Frame) -> None:
        """Answer with what the worker has made."""
        meta = frame.meta
        if "s" in meta or "ct" in meta or "h" in meta:
            body = frame.body
            self.reply(Answer(checked_status(meta.get("s", 200)), body, meta.get("ct", JSON), _pairs(meta.get("h"))))
        else:
            self.reply(Answer(200, frame.body))

    def on_error(self, frame: Frame) -> None:
        """Answer with what went wrong in the worker."""
        meta = frame.meta
        code = meta.get("c")
        fault = Fault(
            checked_status(meta.get("s", 500)), code or "worker.failed", str(meta.get("m", "")), headers=dict(_pairs(meta.get("h")))
        )
        fault.is_bare = code in _BARE
        self.fail(fault, raw_detail=bytes(frame.body) or None)

    def on_chunk(self, frame: Frame) -> bool:
        """Keep a piece until `flush`; return whether that is due now."""
        if self.client is None:
            return False
        if self._writer is None:
            self._begin(frame.meta)
        pieces, piece = self._pieces, frame.body
        if not isinstance(piece, bytes):
            piece = bytes(piece)
        if pieces is None:
            self._pieces = [piece]
            return True
        pieces.append(piece)
        return False

    def _begin(self, meta: dict[str, Any]) -> None:
        self.is_answering = True
        self._writer = writer_for(self.config.stream_format, meta.get("ct", ""), accepts_events=self.accepts_events)
        self._head = Answer(
            checked_status(meta.get("s", 200)), b"", self._writer.content_type, (*self._writer.headers, *_pairs(meta.get("h")))
        )
        self.counters.began(self.owner.now() - self.began)

    def flush(self) -> None:
        """Send the pieces that were kept, in one go."""
        pieces, client, writer = self._pieces, self.client, self._writer
        if pieces is None or client is None or writer is None:
            return
        self._pieces = None
        head, self._head = self._head, None
        self._given += sum(map(len, pieces))
        client.stream(self, head, writer.join(pieces), "")
        self.counters.pieces(len(pieces))
        if not client.is_congested:
            self.caught_up()

    def caught_up(self) -> None:
        """Let the worker send more, as the client has read what it was given."""
        given = self._given
        if given * 4 >= self.config.max_stream_buffer_bytes:
            self._given = 0
            self.owner.consumed(self, given)

    def on_end(self, frame: Frame) -> None:
        """End a stream well."""
        client = self.client
        if client is None:
            return
        if self._writer is None:
            self._begin(frame.meta)
        pieces, head, writer = self._pieces or [], self._head, self._writer
        self._pieces = self._head = None
        data = writer.join(pieces) if pieces and writer is not None else b""
        client.stream(self, head, data, "whole")
        self.counters.pieces(len(pieces))
        self.counters.used(frame.meta.get("usage"))
        self.finish(200)

    def log_fields(self) -> Mapping[str, object]:
        """Return what log lines say of it."""
        fields = {"request_id": self.request_id, "api": self.config.path, "seconds": round(self.owner.now() - self.began, 6)}
        span = read_traceparent(self.traceparent)
        return fields if span is None else {**fields, "trace_id": span.trace_id}

    # -- the end -----------------------------------------------------------------------------------------------------

    def finish(self, status: int) -> None:
        """End, once: give back all that is held."""
        if self.status:
            return
        self.status = status
        self.client = None
        self.body = b""
        self.give_back()
        self.counters.ended(status, self.owner.now() - self.began)
        self.owner.finished(self)


def too_large(most: float) -> Fault:
    """Return what a body gets that is over the limit."""
    return Fault(
        413, "request.too_large", f"Payload too large: this server takes bodies of up to {most:,.0f} bytes.", detail="Payload too large"
    )


def no_room() -> Fault:
    """Return what a request gets whose body would not fit beside others."""
    return Fault(429, "queue.full", "The bodies of other requests fill what this server holds.", headers={"retry-after": "1"})


def slow_body(seconds: float) -> Fault:
    """Return what a request gets whose body does not come in time."""
    return Fault(408, "request.timeout", f"The body of this request took more than {seconds:g} s.")


def _pairs(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return the headers of a frame, which are a map or pairs."""
    if not headers:
        return ()
    return tuple(headers.items()) if isinstance(headers, Mapping) else tuple((str(name), str(value)) for name, value in headers)
