"""Middlewares for any ASGI app, ours or another: a limit for bodies, and a count of requests.

```python
LitServer(api, middlewares=[(MaxSizeMiddleware, {"max_size": "10MB"}), (RequestCountMiddleware, {"active_counter": counter})])
app.add_middleware(MaxSizeMiddleware, max_size=10_000_000)     # of FastAPI
```
A server has its own limit, `max_payload_size`, and its own count, `active_requests`, on a shorter way: a middleware sends all requests
through ASGI. These are for single apps, and for code that names them.
"""

import contextlib
from collections.abc import Collection
from typing import Any, Final, Protocol, final

from starlette.exceptions import HTTPException

from leyden.core.errors import ConfigTypeError
from leyden.serve.arguments import payload_bytes
from leyden.serve.codec import write_json
from leyden.serve.front.asgi import REQUEST_ID, TAKEN, App, Message, Receive, Scope, Send, discard
from leyden.serve.front.calls import too_large

PROBES: Final = ("/", "/health", "/health/live", "/health/ready", "/health/startup", "/metrics")
_LONGEST_NUMBER: Final = 20  # digits


@final
class MaxSizeMiddleware:
    """Answers 413 for bodies that are too large, whatever their `Content-Length` says. Nothing of a body is kept here.

    Args:
        app: What it stands around.
        max_size: The most bytes of a body: a number, `"10MB"`, `None` for 100 MB, -1 for no limit.

    Raises:
        ConfigError: `max_size` is none of these.
    """

    def __init__(self, app: App, *, max_size: "int | str | None" = None) -> None:
        self._app, self._most = app, payload_bytes(max_size, "max_size")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._most is None:
            await self._app(scope, receive, send)
            return
        gate = _Gate(self._most, receive, send)
        if _content_length(scope) > self._most:  # refused before a byte is read
            await gate.refuse(scope)
            return
        try:
            await self._app(scope, gate.receive, gate.send)
        except Exception:
            if not gate.must_refuse:
                raise
        if gate.must_refuse:
            await gate.refuse(scope)


def _content_length(scope: Scope) -> int:
    """Return what a request says of its body; 0 if it says nothing that is a number."""
    said = [value for name, value in scope["headers"] if name == b"content-length" and value.isdigit()]
    return max((int(value[:_LONGEST_NUMBER]) for value in said), default=0)


@final
class _Gate:
    """Lets a body through until it is too large; then the app hears an error, and what it answers is not sent."""

    def __init__(self, most: int, receive: Receive, send: Send) -> None:
        self._most, self._receive, self._send = most, receive, send
        self._num_bytes = 0
        self._is_over = self._has_begun = False
        self._is_read = False

    @property
    def must_refuse(self) -> bool:
        """Whether the body is too large, and nothing was answered yet."""
        return self._is_over and not self._has_begun

    async def receive(self) -> Message:
        """Return a part of the body.

        Raises:
            HTTPException: It is one too many. Apps that know none of it let it through to us.
        """
        if self._is_over:
            raise HTTPException(413, "Payload too large")
        message = await self._receive()
        self._num_bytes += len(message.get("body", b""))
        self._is_read = not message.get("more_body", False)
        if self._num_bytes > self._most:
            self._is_over = True
            raise HTTPException(413, "Payload too large")
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if not self.must_refuse:
            self._has_begun = True
            await self._send(message)

    async def refuse(self, scope: Scope) -> None:
        """Answer 413. What still comes is thrown away for a while: a connection that is closed with unread bytes is reset."""
        scope[TAKEN] = True
        fault = too_large(self._most)
        body = write_json({**fault.body, **({"request_id": scope[REQUEST_ID]} if REQUEST_ID in scope else {})})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if scope.get("http_version", "1.1").startswith("1"):
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": 413, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if not self._is_read:
            await discard(self._receive)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class Counter(Protocol):
    """What counts: `multiprocessing.Value("i")` for several processes, `RequestCounter` for one."""

    value: int


@final
class RequestCounter:
    """Counts in one process.

    Example:
        >>> RequestCounter().value
        0
    """

    def __init__(self) -> None:
        self.value = 0


@final
class RequestCountMiddleware:
    """Counts the requests that are not answered yet: from their head to the last byte of their answer, or their failure.

    Args:
        app: What it stands around.
        active_counter: Its `value` is the count. One of `multiprocessing` counts for all front ends of a server, but stays wrong if one
            is killed; `LitServer(track_requests=True).active_requests` does not.
        ignored_paths: Requests that are no work: health checks and metrics.

    Raises:
        ConfigTypeError: The counter has no `value`.

    Example:
        ```python
        counter = RequestCounter()
        app.add_middleware(RequestCountMiddleware, active_counter=counter)
        ```
    """

    def __init__(self, app: App, active_counter: Counter, *, ignored_paths: Collection[str] = PROBES) -> None:
        if not isinstance(getattr(active_counter, "value", None), int):
            raise ConfigTypeError(
                f"active_counter={active_counter!r:.80} is not accepted: it takes an object with a whole number as its `value`, such as "
                "RequestCounter() or multiprocessing.Value('i')."
            )
        self._app, self._counter, self._ignored = app, active_counter, frozenset(ignored_paths)
        # Adding to a value that processes share is reading and writing: without its lock they would lose counts of each other.
        lock: Any = getattr(active_counter, "get_lock", contextlib.nullcontext)
        self._lock = lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._ignored:
            await self._app(scope, receive, send)
            return
        self._add(1)
        try:
            await self._app(scope, receive, send)
        finally:
            self._add(-1)

    def _add(self, count: int) -> None:
        with self._lock:
            self._counter.value += count
