"""`Edge`: stands around all requests of the app, names them, and bounds the bodies of those that no API takes itself.

Routes of specs, of the user and of the server read their bodies in many ways; all of them ask the same `receive`. So a body that is
too large, or too slow, is refused there, by an exception that FastAPI lets through: `Refused`.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from leyden.core.log import about
from leyden.serve.faults import Fault
from leyden.serve.front.asgi import REQUEST_ID, TAKEN, App, Message, Receive, Scope, Send, discard, too_slow
from leyden.serve.front.calls import no_room, slow_body, too_large
from leyden.serve.front.dispatcher import Dispatcher
from leyden.serve.front.intake import Intake, has_body
from leyden.serve.tracing import read_traceparent


class Refused(HTTPException):
    """An error of ours, raised through FastAPI.

    Args:
        fault: The error.
        headers: Of the request, if its body was not read.
        reason: What it counts as, where its code does not tell.
    """

    def __init__(self, fault: Fault, headers: Mapping[bytes, bytes] | None = None, reason: str = "") -> None:
        super().__init__(fault.status, fault.detail, dict(fault.headers))
        self.fault, self.reason = fault, reason
        self.closes = headers is not None and has_body(headers)


@final
class Closing(Response):
    """An answer to a request whose body was not read: the connection ends, and some of the body is thrown away before."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[TAKEN] = True
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@final
class _Named:
    """A request, as log lines name it."""

    def __init__(self, request_id: str, traceparent: bytes | None) -> None:
        self._request_id, self._traceparent = request_id, traceparent
        self._began = time.monotonic()

    def log_fields(self) -> Mapping[str, object]:
        fields = {"request_id": self._request_id, "seconds": round(time.monotonic() - self._began, 6)}
        span = read_traceparent(None if self._traceparent is None else self._traceparent.decode("latin-1"))
        return fields if span is None else {**fields, "trace_id": span.trace_id}


@final
class Edge:
    """Names each request, and bounds the bodies of those that no API takes.

    Args:
        app: What it stands around.
        intake: Names and limits.
        dispatcher: Knows what all bodies may take.
    """

    def __init__(self, app: App, intake: Intake, dispatcher: Dispatcher) -> None:
        self._app, self._intake, self._dispatcher = app, intake, dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = scope[REQUEST_ID] = self._intake.request_id(headers)
        about(_Named(request_id, headers.get(b"traceparent")))  # for the rest of this task, which is the request's

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = message.setdefault("headers", [])
                if all(name != b"x-request-id" for name, _ in found):
                    message["headers"] = [*found, (b"x-request-id", request_id.encode())]
            await send(message)

        body = _Body(scope, receive, headers, self._intake, self._dispatcher)
        try:
            await self._app(scope, body.receive, named)
        finally:
            body.give_back()


@final
class _Body:
    """The body of a request, bounded in size and time, and counted while it comes; afterwards it is its endpoint's."""

    def __init__(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes], intake: Intake, dispatcher: Dispatcher) -> None:
        self._scope, self._receive, self._headers = scope, receive, headers
        self._intake, self._dispatcher = intake, dispatcher
        self._began, self._total, self._reserved, self._is_over = 0.0, 0, 0, False

    async def receive(self) -> Message:
        """Return the next part of it.

        Raises:
            Refused: It is too large, too slow, or more than there is room for.
        """
        if self._is_over or TAKEN in self._scope:  # there is no more of it, or whoever reads it looks after that
            return await self._receive()
        if not self._began:
            self._began = asyncio.get_running_loop().time()
            if (fault := self._intake.refusal(self._headers, needs_key=False)) is not None:
                raise self._refused(fault)
        seconds = self._dispatcher.config.body_timeout
        try:
            async with asyncio.timeout_at(too_slow(self._began, seconds, self._total)):
                message = await self._receive()
        except TimeoutError:
            raise self._refused(slow_body(seconds)) from None
        self._count(message)
        return message

    def give_back(self) -> None:
        """Count it no longer."""
        self._dispatcher.release(self._reserved)
        self._reserved = 0

    def _count(self, message: Message) -> None:
        size = len(message.get("body", b""))
        self._total += size
        if self._total > self._dispatcher.max_payload_bytes:
            raise self._refused(too_large(self._dispatcher.max_payload_bytes))
        if not message.get("more_body"):
            self._is_over = True
            self.give_back()
        elif self._dispatcher.reserve(size):
            self._reserved += size
        else:
            raise self._refused(no_room(), "bytes")

    def _refused(self, fault: Fault, reason: str = "") -> Refused:
        self._is_over = True
        return Refused(fault, self._headers, reason)
