"""`Executor`: requests go in, answers come out through a `Sink`; and the steps that all kinds share.

Nothing here knows of links or processes: a worker hands in what a router sent as one batch, and a test hands in what it likes.
Whatever a hook raises ends the requests that it was about and nobody else; it is never raised out of an executor.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, final

from leyden.serve.codec import BYTES, JSON, TEXT, decode_body, encode_value
from leyden.serve.context import RequestContext
from leyden.serve.faults import Fault, HookCall, fault_of
from leyden.serve.hooks import HookPlan

_logger = logging.getLogger(__name__)


class Request(NamedTuple):
    """A request in a worker.

    Args:
        number: Its stream on the link.
        body: As it came.
        content_type: Of the body.
        context: What hooks may know of it.
    """

    number: int
    body: bytes
    content_type: str
    context: RequestContext


class Reply(NamedTuple):
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


class Timing(NamedTuple):
    """Where the time of a batch went, in seconds."""

    decode: float = 0.0
    predict: float = 0.0
    encode: float = 0.0


class Sink(Protocol):
    """Takes answers."""

    def reply(self, request: Request, reply: Reply, timing: Timing) -> None:
        """Answer a request; `timing` is that of its batch."""

    def fault(self, request: Request, fault: Fault) -> None:
        """Answer a request with an error."""

    def chunk(self, request: Request, data: bytes, content_type: str) -> None:
        """Send a part of a stream; waits while the client is too far behind."""

    def end(self, request: Request, timing: Timing) -> None:
        """End a stream."""


class Executor(ABC):
    """Does the requests of one API in one worker.

    Args:
        api: The user's `LitAPI`, set up.
        plan: What its hooks are.
    """

    def __init__(self, api: Any, plan: HookPlan) -> None:
        self.api, self.plan = api, plan

    @abstractmethod
    def run(self, requests: Sequence[Request], sink: Sink) -> None:
        """Answer all requests of a batch, each once."""

    # -- the steps -------------------------------------------------------------------------------------------------

    def decoded(self, requests: Sequence[Request], sink: Sink) -> tuple[list[Request], list[Any]]:
        """Return the requests that could be read, and the inputs that `decode_request` made of them.

        Those that nobody waits for any more are left out, those that are wrong are answered.
        """
        kept, inputs = list[Request](), list[Any]()
        for request in requests:
            if request.context.cancelled:
                sink.fault(request, GONE)
                continue
            try:
                inputs.append(self.decode(request))
            except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
                sink.fault(request, answered(error, HookCall("decode_request"), request))
            else:
                kept.append(request)
        return kept, inputs

    def decode(self, request: Request) -> Any:
        """Return what `decode_request` makes of a request."""
        value = decode_body(request.body, request.content_type, self.plan)
        hook = self.plan.decode_request
        if not hook.is_own:
            return value
        try:
            return self.api.decode_request(value, context=request.context) if hook.wants_context else self.api.decode_request(value)
        except Exception as error:
            keys = tuple(map(str, value)) if isinstance(value, dict) else ()
            raise answered(error, HookCall("decode_request", keys), request) from error

    def encode(self, output: Any, request: Request) -> Reply:
        """Return the answer that `encode_response` makes of an output."""
        hook = self.plan.encode_response
        if hook.is_own:
            keywords = {"context": request.context} if hook.wants_context else {}
            output = self.api.encode_response(output, **keywords)
        return reply_of(output)


def answered(error: BaseException, call: HookCall, request: Request) -> Fault:
    """Return the answer to what a hook raised; what is the server's own fault is logged with its traceback."""
    fault = fault_of(error, call)
    if fault.status >= 500 and not isinstance(error, Fault):
        _logger.error("%s: %s() failed", request.context.request_id, call.hook, exc_info=error)
    return fault


def reply_of(value: Any) -> Reply:
    """Return a hook's value as an answer: `Response` objects of Starlette keep their status, headers and body.

    Example:
        >>> reply_of({"output": 1})
        Reply(body=b'{"output":1}', content_type='application/json', status=200, headers=())
    """
    body, status = getattr(value, "body", None), getattr(value, "status_code", None)
    if isinstance(body, bytes | memoryview) and isinstance(status, int):  # by its looks: a worker does not import Starlette
        headers = tuple((name, text) for name, text in value.headers.items() if name not in {"content-length", "content-type"})
        return Reply(bytes(body), value.headers.get("content-type", BYTES), status, headers)
    return Reply(*encode_value(value))


def chunk_of(api: Any, value: Any) -> tuple[bytes, str]:
    """Return a piece of a stream as bytes, and what type a stream of such pieces has."""
    shown = api.format_encoded_response(value)
    if isinstance(shown, str):
        return shown.encode(), "application/x-ndjson" if isinstance(value, dict) or hasattr(value, "model_dump") else TEXT
    data, kind = encode_value(shown)
    return (data + b"\n", "application/x-ndjson") if kind == JSON else (data, kind)


GONE = Fault(499, "request.cancelled", "Nobody waits for this request any more.")


@final
class Stopwatch:
    """Measures one step after another.

    Args:
        clock: Returns seconds.
    """

    __slots__ = ("_clock", "_last")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._last = clock, clock()

    def lap(self) -> float:
        """Return the seconds since the last time."""
        now = self._clock()
        taken, self._last = now - self._last, now
        return taken
