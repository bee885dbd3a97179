"""`Executor`: requests go in, answers come out through a `Sink`; and the steps that all kinds share.

Nothing here knows of links or processes: a worker hands in what a router sent as one batch, and a test hands in what it likes.
Whatever a hook raises ends the requests that it was about and nobody else; it is never raised out of an executor.
"""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, final

from leyden.core.log import about, get_logger
from leyden.serve.callbacks.runner import NO_EVENTS, CallbackRunner
from leyden.serve.codec import BYTES, JSON, NDJSON, TEXT, decode_body, encode_value, write_json
from leyden.serve.executors.requests import Reply, Request, Sink
from leyden.serve.faults import Fault, HookCall, fault_of
from leyden.serve.hooks import Hook, HookPlan

_GENERATORS = ("decode_request", "predict", "unbatch", "encode_response", "format_encoded_response")  # each may run in the next one
_logger = get_logger(__name__)


class Executor(ABC):
    """Does the requests of one API in one worker.

    Args:
        api: The user's `LitAPI`, set up.
        plan: What its hooks are.
        callbacks: Told before and after each step of a batch, if all goes well.
    """

    def __init__(self, api: Any, plan: HookPlan, callbacks: CallbackRunner | None = None) -> None:
        self.api, self.plan = api, plan
        self.events = NO_EVENTS if callbacks is None else callbacks.steps_of(api)

    @property
    def concurrency(self) -> int:
        """How many requests it has begun at once, each for itself; 1 if it takes batch after batch."""
        return 1

    def run(self, requests: Sequence[Request], sink: Sink) -> None:
        """Answer all requests of a batch, each once."""
        try:
            self.answer(requests, sink)
        finally:
            about(None)  # what is logged from now on has nothing to do with them

    @abstractmethod
    def answer(self, requests: Sequence[Request], sink: Sink) -> None:
        """Do what `run` promises, and say what log lines are about."""

    # -- the steps -------------------------------------------------------------------------------------------------

    def decoded(self, requests: Sequence[Request], sink: Sink) -> tuple[list[Request], list[Any]]:
        """Return the requests that could be read, and the inputs that `decode_request` made of them.

        Those that nobody waits for any more are left out, those that are wrong are answered.
        """
        kept, inputs = list[Request](), list[Any]()
        self.events.before_decode()
        for request in requests:
            about(request)
            if request.is_cancelled():
                sink.fault(request, request.end)
                continue
            try:
                inputs.append(self.decode(request))
            except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
                sink.fault(request, answered(error, HookCall("decode_request"), request))
            else:
                kept.append(request)
        self.events.after_decode()
        return kept, inputs

    def decode(self, request: Request) -> Any:
        """Return what `decode_request` makes of a request."""
        value = decode_body(request.body, request.content_type, self.plan)
        hook = self.plan.decode_request
        if not hook.is_own:
            return value
        try:
            return called(self.api.decode_request, hook, value, request)
        except Exception as error:
            raise undecoded(error, value, request) from error

    def encode(self, output: Any, request: Request) -> Reply:
        """Return the answer that `encode_response` makes of an output."""
        hook = self.plan.encode_response
        return reply_of(called(self.api.encode_response, hook, output, request) if hook.is_own else output)

    def piece(self, value: Any) -> tuple[bytes, str]:
        """Return a piece of a stream as bytes, and what type a stream of such pieces has."""
        if not self.plan.formats_pieces:  # what `LitAPI` would make of the usual ones
            if type(value) is dict:
                return write_json(value) + b"\n", NDJSON
            if type(value) is str:
                return value.encode(), TEXT
        shown = self.api.format_encoded_response(value)
        if isinstance(shown, str):
            return shown.encode(), NDJSON if isinstance(value, dict) or hasattr(value, "model_dump") else TEXT
        data, kind = encode_value(shown)
        return (data + b"\n", NDJSON) if kind == JSON else (data, kind)


def called(function: Callable[..., Any], hook: Hook, value: Any, request: Request) -> Any:
    """Return what a hook makes of a value, called with the request's context if it takes one."""
    return function(value, context=request.context) if hook.wants_context else function(value)


def called_for_all(function: Callable[..., Any], hook: Hook, value: Any, requests: Sequence[Request]) -> Any:
    """Return what a hook makes of a batch, called with a list of contexts if it takes one."""
    return function(value, context=[request.context for request in requests]) if hook.wants_context else function(value)


def undecoded(error: Exception, value: Any, request: Request) -> Fault:
    """Return the answer to what `decode_request` raised about a value."""
    keys = tuple(map(str, value)) if isinstance(value, dict) else ()
    return answered(error, HookCall("decode_request", keys), request)


def broken_by(error: BaseException, api: Any) -> HookCall:
    """Return which hook of a stream raised: generators run in each other, so that only the traceback knows."""
    hooks = {code: name for name in _GENERATORS if (code := _code(api, name))}
    found, place = "predict", error.__traceback__
    while place is not None:
        found = hooks.get(place.tb_frame.f_code, found)
        place = place.tb_next
    return HookCall(found)


def _code(api: Any, name: str) -> CodeType | None:
    return getattr(getattr(getattr(api, name), "__func__", None), "__code__", None)


def answered(error: BaseException, call: HookCall, request: Request) -> Fault:
    """Return the answer to what a hook raised; what is the server's own fault is logged with its traceback."""
    fault = fault_of(error, call)
    if fault.status >= 500 and not isinstance(error, Fault):
        _logger.error("%s: %s() failed", request.request_id, call.hook, exc_info=error, extra={"fields": request.log_fields()})
    return fault


def reply_of(value: Any) -> Reply:
    """Return a hook's value as an answer: `Response` objects of Starlette keep their status, headers and body.

    Example:
        >>> reply_of({"output": 1})
        Reply(body=b'{"output":1}', content_type='application/json', status=200, headers=())
    """
    if type(value) is dict:  # the usual answer
        return Reply(write_json(value))
    body, status = getattr(value, "body", None), getattr(value, "status_code", None)
    if isinstance(body, bytes | memoryview) and isinstance(status, int):  # by its looks: a worker does not import Starlette
        if getattr(value, "background", None) is not None:
            told = (
                "A response's background task is not run: a worker sends bytes. Start a thread in the hook, or hand it to a queue of yours."
            )
            warnings.warn(told, UserWarning, stacklevel=2)
        headers = tuple((name, text) for name, text in value.headers.items() if name not in {"content-length", "content-type"})
        return Reply(bytes(body), value.headers.get("content-type", BYTES), status, headers)
    if isinstance(status, int) and hasattr(value, "background"):
        kind = type(value).__name__
        raise TypeError(f"a {kind} has no body that a worker could send. Yield with stream=True, or return Response(content).")
    return Reply(*encode_value(value))


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
