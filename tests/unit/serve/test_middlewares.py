"""Middlewares as ASGI sees them: whatever an app does with a body that is too large, the answer is 413; counts end where they began."""

import asyncio
import json
import multiprocessing
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from leyden.core.errors import ConfigError
from leyden.serve.middlewares import MaxSizeMiddleware, RequestCounter, RequestCountMiddleware

App = Callable[..., Awaitable[None]]


async def answering(send: Any, status: int = 200, body: bytes = b"ok") -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the number of bytes."""
    total = 0
    while True:
        message = await receive()
        total += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await answering(send, body=b"%d" % total)


class Asked:
    """A request, and what came of it."""

    def __init__(self, app: Any, *pieces: bytes, **scope: Any) -> None:
        self.sent = list[Any]()
        self.num_read = 0
        self.scope = {"type": "http", "path": "/", "headers": [], **scope}
        self._left = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        if self._left:
            self._left[-1]["more_body"] = False
        asyncio.run(app(self.scope, self._receive, self._send))

    async def _receive(self) -> Any:
        self.num_read += 1
        return self._left.pop(0) if self._left else {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        assert [message["type"] for message in self.sent].count("http.response.start") == 1
        assert self.sent[-1].get("more_body", False) is False
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def length(number: int | bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % number if isinstance(number, int) else number)]


class TestMaxSize:
    def test_what_fits_passes_piece_by_piece(self) -> None:
        asked = Asked(MaxSizeMiddleware(reading, max_size=6), b"abc", b"def", headers=length(6))
        assert (asked.status, asked.body, asked.num_read) == (200, b"6", 2)

    def test_what_says_that_it_is_too_large_is_not_read_by_anybody(self) -> None:
        async def never(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("the app is not asked")

        for said in (7, 10**9, b"9" * 5000):
            asked = Asked(MaxSizeMiddleware(never, max_size=6), headers=length(said), **{"leyden.request_id": "r1"})
            assert asked.status == 413
            assert json.loads(asked.body) == {
                "detail": "Payload too large",
                "code": "request.too_large",
                "message": "Payload too large: this server takes bodies of up to 6 bytes.",
                "request_id": "r1",
            }
            assert asked.headers[b"connection"] == b"close"
            assert int(asked.headers[b"content-length"]) == len(asked.body)

    @pytest.mark.parametrize("headers", [[], length(2), length(b"-1"), length(b"x")])
    def test_what_says_nothing_or_lies(self, headers: Any) -> None:
        asked = Asked(MaxSizeMiddleware(reading, max_size=6), b"abc", b"def", b"g", headers=headers)
        assert (asked.status, asked.num_read) == (413, 3)
        assert "request_id" not in json.loads(asked.body)

    def test_whatever_the_app_does_about_it(self) -> None:
        async def careless(scope: Any, receive: Any, send: Any) -> None:
            try:
                await reading(scope, receive, send)
            except Exception:  # noqa: BLE001 - what many apps do
                await answering(send, 400)

        async def silent(scope: Any, receive: Any, send: Any) -> None:
            try:
                await reading(scope, receive, send)
            except Exception:  # noqa: BLE001 - what some apps do
                return

        async def stubborn(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(3):
                with pytest.raises(HTTPException):
                    await reading(scope, receive, send)
            raise KeyError("at last")

        for app in (careless, silent, stubborn):
            assert Asked(MaxSizeMiddleware(app, max_size=6), b"abcdefg").status == 413

    def test_an_answer_that_has_begun_is_not_replaced(self) -> None:
        async def early(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await reading(scope, receive, send)

        sent = list[Any]()
        with pytest.raises(Exception, match="Payload too large"):
            sent.append(Asked(MaxSizeMiddleware(early, max_size=6), b"abcdefg"))

    def test_errors_of_the_app_are_the_apps(self) -> None:
        async def broken(scope: Any, receive: Any, send: Any) -> None:
            raise KeyError("its own")

        with pytest.raises(KeyError, match="its own"):
            Asked(MaxSizeMiddleware(broken, max_size=6), b"abc")

    def test_flat_memory(self) -> None:
        most_held = 0

        async def holding(scope: Any, receive: Any, send: Any) -> None:
            nonlocal most_held
            held = b""
            while (message := await receive()).get("more_body"):
                held += message["body"]
                most_held = max(most_held, len(held))

        asked = Asked(MaxSizeMiddleware(holding, max_size=100_000), *(bytes(50_000) for _ in range(1000)))
        assert (asked.status, most_held) == (413, 100_000)
        assert asked.num_read < 12, "what comes after it is thrown away for a while, and then no more"

    def test_what_is_no_http_and_what_has_no_limit(self) -> None:
        async def other(scope: Any, receive: Any, send: Any) -> None:
            await send(scope["type"])

        assert Asked(MaxSizeMiddleware(other, max_size=1), type="lifespan").sent == ["lifespan"]
        assert Asked(MaxSizeMiddleware(reading, max_size=-1), b"abc").body == b"3"
        assert Asked(MaxSizeMiddleware(reading), b"abc").body == b"3"

    def test_http_2_has_no_such_header(self) -> None:
        assert b"connection" not in Asked(MaxSizeMiddleware(reading, max_size=1), b"abc", http_version="2").headers

    def test_sizes(self) -> None:
        assert Asked(MaxSizeMiddleware(reading, max_size="1KB"), bytes(1024)).status == 200
        assert Asked(MaxSizeMiddleware(reading, max_size="1KB"), bytes(1025)).status == 413
        with pytest.raises(ConfigError, match="max_size='ten' is not accepted"):
            MaxSizeMiddleware(reading, max_size="ten")


class TestRequestCount:
    @pytest.mark.parametrize("counter", [RequestCounter(), multiprocessing.Value("i", 0)])
    def test_from_the_head_to_the_end(self, counter: Any) -> None:
        seen = list[int]()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(counter.value)
            await answering(send)
            seen.append(counter.value)

        middleware = RequestCountMiddleware(app, active_counter=counter)
        for path in ("/predict", "/health", "/metrics"):
            Asked(middleware, path=path)
        assert (seen, counter.value) == ([1, 1, 0, 0, 0, 0], 0)

    def test_whatever_ends_it(self) -> None:
        counter = RequestCounter()

        async def broken(scope: Any, receive: Any, send: Any) -> None:
            raise KeyError("its own")

        with pytest.raises(KeyError):
            Asked(RequestCountMiddleware(broken, counter), path="/predict")
        assert counter.value == 0

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.Event().wait()

        async def cancelled() -> None:
            task = asyncio.create_task(RequestCountMiddleware(endless, counter)({"type": "http", "path": "/x"}, None, None))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            assert counter.value == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancelled())
        assert counter.value == 0

    def test_many_who_share_one(self) -> None:
        counter: Any = multiprocessing.Value("i", 0)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0)

        async def many() -> None:
            middleware = RequestCountMiddleware(app, counter)
            await asyncio.gather(*(middleware({"type": "http", "path": "/x"}, None, None) for _ in range(500)))  # type: ignore[arg-type]

        threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counter.value == 0

    def test_other_probes(self) -> None:
        counter = RequestCounter()
        seen = list[int]()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(counter.value)

        middleware = RequestCountMiddleware(app, counter, ignored_paths=["/ping"])
        for scope in ({"path": "/ping"}, {"path": "/health"}, {"type": "websocket", "path": "/x"}):
            Asked(middleware, **scope)
        assert seen == [0, 1, 0]

    @pytest.mark.parametrize("counter", [None, 0, object(), multiprocessing.Value("d", 0)])
    def test_what_is_no_counter(self, counter: Any) -> None:
        with pytest.raises(ConfigError, match="a whole number as its `value`"):
            RequestCountMiddleware(reading, counter)
