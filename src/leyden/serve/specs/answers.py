"""`Work`: a response that is made while its client is there; and errors as clients of a protocol know them.

An endpoint that computes for seconds must end when its client leaves, streaming or not: `Work` listens for that beside its work,
and cancels it. An error before the first byte is an HTTP status.
"""

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from leyden.serve.codec import JSON, write_json
from leyden.serve.faults import Fault

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
REQUEST_ID: Final = "leyden.request_id"  # in the scope
EVENTS: Final = "text/event-stream; charset=utf-8"


class ErrorStyle(NamedTuple):
    """How errors are told.

    Args:
        exposes: Whether what went wrong in a hook is.
        more: A spec's `error_items`.
    """

    exposes: bool
    more: Callable[[Fault, str], Mapping[str, Any]]

    def told(self, fault: Fault) -> str:
        """Return what clients may know of an error."""
        if self.exposes or fault.status < 500:
            return fault.message
        return fault.detail if isinstance(fault.detail, str) and fault.detail != fault.message else "Internal server error"

    def body(self, fault: Fault, scope: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of an error; of a hook's own `HTTPException` nothing but its detail."""
        if fault.is_bare:
            return fault.body
        body: dict[str, Any] = {"detail": fault.detail, "code": fault.code}
        if self.exposes:
            body["message"] = fault.message
        return {**body, "request_id": scope.get(REQUEST_ID, ""), **self.more(fault, self.told(fault))}

    def response(self, fault: Fault, scope: Mapping[str, Any]) -> Response:
        """Return an error as a response."""
        return Response(write_json(self.body(fault, scope)), fault.status, dict(fault.headers), JSON)


@final
class Sender:
    """Sends a response whose status is not known before its first bytes.

    Args:
        send: ASGI's.
        content_type: Of the response.
    """

    def __init__(self, send: Send, content_type: str) -> None:
        self._send, self._content_type = send, content_type
        self.has_begun = False

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send bytes, after the status line if they are the first."""
        if not self.has_begun:
            self.has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers(data if is_last else None)})
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})

    def _headers(self, whole: bytes | None) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", self._content_type.encode())]
        if self._content_type == EVENTS:
            headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        return headers if whole is None else [*headers, (b"content-length", b"%d" % len(whole))]


class Work(Response):
    """A response that is made when it is sent, and given up when the client leaves.

    Args:
        style: How errors are told.
        content_type: Of the response.
    """

    def __init__(self, style: ErrorStyle, content_type: str = JSON) -> None:
        super().__init__()
        self._style, self._content_type = style, content_type

    @abstractmethod
    async def work(self, sender: Sender) -> None:
        """Make the response, and send it.

        Raises:
            Fault: It is an error; told as HTTP has it if nothing was sent yet.
        """

    async def break_off(self, fault: Fault, sender: Sender) -> None:
        """End a response that has begun, and cannot go on."""
        raise fault

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._worked(scope, receive, send))
        watch = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(watch)
            await _cancelled(work)
        if not work.cancelled():
            work.result()

    async def _worked(self, scope: Any, receive: Receive, send: Send) -> None:
        sender = Sender(send, self._content_type)
        try:
            await self.work(sender)
        except Fault as fault:
            if sender.has_begun:
                await self.break_off(fault, sender)
            else:
                await self._style.response(fault, scope)(scope, receive, send)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: "asyncio.Future[None]") -> None:
    """Cancel a task, and wait until it has ended; what it raised is asked for by others."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


async def body_of(request: Request) -> bytes:
    """Return the body of a request; nothing of a client that left before all of it was there, as nobody reads the answer."""
    try:
        return await request.body()
    except ClientDisconnect:
        return b""


def json_response(value: Any) -> Response:
    """Return a value as a response."""
    return Response(write_json(value), media_type=JSON)


def options_of(*methods: str) -> Callable[[], Awaitable[Response]]:
    """Return an endpoint that says which methods a path has."""

    async def options() -> Response:
        return Response(headers={"allow": ", ".join((*methods, "OPTIONS"))})

    return options
