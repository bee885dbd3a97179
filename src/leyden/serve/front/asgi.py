"""`Relay`: answers a request of an API through ASGI.

A relay is the `Client` of a call, as `HotProtocol` is on the short way; between the two nothing differs but who writes.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, final

import msgspec
from starlette.responses import Response

from leyden.core.log import about
from leyden.serve.faults import Fault
from leyden.serve.front.answers import Answer, header_lines
from leyden.serve.front.calls import Ending, HttpCall, slow_body
from leyden.serve.front.dispatcher import Dispatcher
from leyden.serve.front.intake import Intake, has_body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID: Final = "leyden.request_id"  # in the scope
TAKEN: Final = "leyden.is_taken"  # in the scope of a request whose body is looked after: `Edge` leaves it alone
_BODY_BYTES_PER_SECOND: Final = 64 << 10
_DISCARDED_BYTES, _LINGER_SECONDS = 256 << 10, 2.0


class Gone(Exception):  # noqa: N818 - it is no error
    """The client left before its request was complete."""


@final
class Relay(Response):
    """What an endpoint of an API returns: the request goes to a worker, and its answer to the client.

    Args:
        dispatcher: Takes the call.
        intake: Reads the head.
        api: The number of the API.
        endpoint: Of a spec.
    """

    def __init__(self, dispatcher: Dispatcher, intake: Intake, api: int, endpoint: str = "") -> None:
        super().__init__()
        self._dispatcher, self._intake, self._api, self._endpoint = dispatcher, intake, api, endpoint
        self._parts: deque[tuple[Answer | None, bytes, Ending]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_busy = self._closes = self._is_gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[TAKEN] = True
        headers = dict(scope["headers"])
        request_id = scope.get(REQUEST_ID) or self._intake.request_id(headers)
        call = self._dispatcher.open(self._api, self, request_id)
        call.endpoint = self._endpoint
        about(call)
        try:
            await self._take(call, headers, receive)
            if self._closes:
                await self._refuse(call, receive, send)
                return
            watch = asyncio.get_running_loop().create_task(self._watch(call, receive))
            try:
                await self._send(call, send, is_old=scope.get("http_version") == "1.0")
            finally:
                watch.cancel()
        except Gone:
            pass  # nobody is there to be answered
        finally:
            call.abandon()  # nothing, if it has ended

    # -- the request -------------------------------------------------------------------------------------------------

    async def _take(self, call: HttpCall, headers: dict[bytes, bytes], receive: Receive) -> None:
        """Read head and body, and submit the call, or refuse it."""
        try:
            self._intake.read(call, headers)
        except Fault as fault:
            self._closes = has_body(headers)
            call.refuse(fault)
            return
        try:
            await _read_body(call, receive, self._dispatcher.config.body_timeout)
        except Fault as fault:
            self._closes = True
            call.refuse(fault)
        else:
            self._dispatcher.submit(call)

    async def _watch(self, call: HttpCall, receive: Receive) -> None:
        """Take note when the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        call.abandon()
        self._is_gone = True
        self._wake()

    # -- what the call tells -----------------------------------------------------------------------------------------

    @property
    def is_congested(self) -> bool:
        """Whether parts wait to be sent."""
        return self._is_busy or bool(self._parts)

    def answer(self, call: HttpCall, answer: Answer) -> None:
        """Send a whole answer."""
        self._parts.append((answer, b"", "whole"))
        self._wake()

    def stream(self, call: HttpCall, head: Answer | None, data: bytes, ending: Ending) -> None:
        """Send a part of a stream."""
        self._parts.append((None if head is None else msgspec.structs.replace(head, body=_STREAMED), data, ending))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- answers -----------------------------------------------------------------------------------------------------

    async def _send(self, call: HttpCall, send: Send, *, is_old: bool) -> None:
        held = list[bytes]()  # of a stream to a client of HTTP/1.0, which knows no chunks
        start: Answer | None = None
        while True:
            head, data, ending = await self._next()
            if head is not None and head.body is not _STREAMED:
                await self._begin(call, head, send)
                await send({"type": "http.response.body", "body": bytes(head.body) if head.has_body else b""})
                return
            if is_old:
                start = start or head
                held.append(data)
                if ending == "whole" and start is not None:
                    self.answer(call, msgspec.structs.replace(start, body=b"".join(held)))
                elif ending:
                    return
                call.caught_up()
                continue
            if head is not None:
                await self._begin(call, head, send, is_stream=True)
            await send({"type": "http.response.body", "body": data, "more_body": ending != "whole"})
            if ending:
                return  # one that was cut is not completed: the server closes the connection
            self._is_busy = False
            if not self._parts:
                call.caught_up()

    async def _next(self) -> tuple[Answer | None, bytes, Ending]:
        """Return what is to be sent next; what has gathered meanwhile is sent in one go."""
        while not self._parts:
            if self._is_gone:
                raise Gone
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._is_busy = True
        head, data, ending = self._parts.popleft()
        while self._parts and not ending:
            _, more, ending = self._parts.popleft()
            data += more
        return head, data, ending

    async def _begin(self, call: HttpCall, answer: Answer, send: Send, *, is_stream: bool = False) -> None:
        lines = header_lines(answer, call.request_id, call.traceparent if call.shows_trace else "", is_stream=is_stream)
        if self._closes:
            lines.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": lines})

    async def _refuse(self, call: HttpCall, receive: Receive, send: Send) -> None:
        """Answer before the body is read, and throw away some of it, so that the client sees the answer."""
        answer, _, _ = self._parts.popleft()
        if answer is None:
            return
        await self._begin(call, answer, send)
        await send({"type": "http.response.body", "body": bytes(answer.body), "more_body": True})
        await discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


_STREAMED: Final = bytes(bytearray(b"streamed"))  # an object of its own: the head of a stream is told by it


async def _read_body(call: HttpCall, receive: Receive, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout_at(too_slow(began, seconds, 0)) as limit:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                if body := message.get("body", b""):
                    call.add(body)
                if not message.get("more_body", False):
                    return
                limit.reschedule(too_slow(began, seconds, call.num_bytes))
    except TimeoutError:
        raise slow_body(seconds) from None


def too_slow(began: float, seconds: float, num_bytes: int) -> float:
    """Return when a body is too slow: later, the more has come of it."""
    return began + seconds + num_bytes / _BODY_BYTES_PER_SECOND


async def discard(receive: Receive) -> None:
    """Throw away what still comes of a body, up to a bound: a connection that is closed with unread bytes is reset."""
    left = _DISCARDED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    break
