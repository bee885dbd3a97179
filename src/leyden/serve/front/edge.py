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
from leyden.serve.front.calls import slow_body, too_large
from leyden.serve.front.intake import Intake, has_body
from leyden.serve.tracing import read_traceparent


class Refused(HTTPException):
    """An error of ours, raised through FastAPI.

    Args:
        fault: The error.
        headers: Of the request, if its body was not read.
    """

    def __init__(self, fault: Fault, headers: Mapping[bytes, bytes] | None = None) -> None:
        super().__init__(fault.status, fault.detail, dict(fault.headers))
        self.fault = fault
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
        most: The most bytes of a body; infinite if any.
        body_timeout: Seconds that a body may take, and one more for each 64 KiB of it.
    """

    def __init__(self, app: App, intake: Intake, most: float, body_timeout: float) -> None:
        self._app, self._intake, self._most, self._body_timeout = app, intake, most, body_timeout

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

        await self._app(scope, self._bounded(scope, receive, headers), named)

    def _bounded(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]) -> Receive:
        """Return what an endpoint reads its body with."""
        began, total, is_over = 0.0, 0, False

        async def bounded() -> Message:
            nonlocal began, total, is_over
            if is_over or TAKEN in scope:  # there is no more of it, or whoever reads it looks after that
                return await receive()
            now = asyncio.get_running_loop().time
            if not began:
                began = now()
                if (fault := self._intake.refusal(headers, needs_key=False)) is not None:
                    is_over = True
                    raise Refused(fault, headers)
            try:
                async with asyncio.timeout_at(too_slow(began, self._body_timeout, total)):
                    message = await receive()
            except TimeoutError:
                is_over = True
                raise Refused(slow_body(self._body_timeout), headers) from None
            total += len(message.get("body", b""))
            is_over = total > self._most or not message.get("more_body")
            if total > self._most:
                raise Refused(too_large(self._most), headers)
            return message

        return bounded
