"""`AsyncClient`: what `Client` is, for one event loop."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, final

import httpx

from leyden.core.errors import StateError
from leyden.serve.client.connections import LIMITS, check_own, context_of
from leyden.serve.client.target import DEFAULT, NOTHING, SECONDS, Call, is_unwell, target
from leyden.serve.errors import RequestError


@final
class AsyncClient:
    """Sends requests to a server, in one event loop of asyncio. A task that is cancelled closes its connection: the server stops too.

    Args:
        url: As for `Client`.
        api_key: As for `Client`.
        timeout: As for `Client`.
        retries: As for `Client`.
        idempotent: As for `Client`.
        verify: As for `Client`.
        http: An `httpx.AsyncClient` of yours; you close it.

    Raises:
        ConfigError: An argument is not accepted.

    Example:
        ```python
        async with AsyncClient("http://localhost:8000") as client:
            await client.predict({"input": 4.0})
            async with client.stream({"text": "hi"}, "/spell") as items:
                async for item in items:
                    print(item)
        ```
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float | None = SECONDS,
        retries: int = 3,
        *,
        idempotent: bool = False,
        verify: Any = True,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._target = target(url, api_key, timeout, retries, idempotent=idempotent)
        self._is_own = http is None
        if http is None:
            transport = httpx.AsyncHTTPTransport(uds=self._target.socket, limits=LIMITS) if self._target.socket else None
            http = httpx.AsyncClient(verify=context_of(verify), limits=LIMITS, transport=transport)
        else:
            check_own(http, httpx.AsyncClient, self._target, verify)
        self._http = http
        self._now: Callable[[], float] = time.monotonic
        self._sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def predict(
        self,
        payload: Any = NOTHING,
        path: str = "/predict",
        *,
        form: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = DEFAULT,  # noqa: ASYNC109 - as for Client
    ) -> Any:
        """Return the answer to a request.

        Args:
            payload: As for `Client.predict`.
            path: Of the API.
            form: As for `Client.predict`.
            files: As for `Client.predict`; they are read in the event loop.
            headers: As for `Client.predict`.
            timeout: Instead of the client's own.

        Raises:
            RequestError: There is no answer, or it is an error.
            ConfigError: An argument is not accepted.
        """
        call = self._target.post(payload, path, form, files, headers, timeout)
        async with contextlib.aclosing(self._items(call)) as items:
            return call.joined([item async for item in items])

    def stream(
        self,
        payload: Any = NOTHING,
        path: str = "/predict",
        *,
        form: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = DEFAULT,
    ) -> "AsyncStream":
        """Return the items of an answer, as they come; the request is sent when the first one is asked for.

        Who stops early closes the stream (`async with`, or `aclose()`): then the server stops computing.

        Args:
            payload: As for `Client.predict`.
            path: Of the API.
            form: As for `Client.predict`.
            files: As for `Client.predict`.
            headers: As for `Client.stream`.
            timeout: As for `Client.predict`.

        Raises:
            ConfigError: An argument is not accepted.
        """
        call = self._target.post(payload, path, form, files, headers, timeout)
        return AsyncStream(call, self._items(call))

    async def health(self, path: str = "/health", timeout: float | None = 10.0) -> bool:  # noqa: ASYNC109 - as for Client
        """Return whether all workers of the server are ready; not, if nobody answers.

        Args:
            path: The server's `healthcheck_path`.
            timeout: Seconds.

        Raises:
            RejectedError: There is no such path, or the key is wrong.
        """
        try:
            async with contextlib.aclosing(self._items(self._target.get(path, timeout))) as items:
                async for _ in items:
                    pass
        except RequestError as error:
            if is_unwell(error):
                return False
            raise
        return True

    async def aclose(self) -> None:
        """Close the connections."""
        if self._is_own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.aclose()

    async def _items(self, call: Call) -> AsyncGenerator[Any, None]:
        """Yield what comes; the connection is closed unless all of it was read."""
        response = await self._opened(call)
        bodies: Any = response.aiter_bytes()  # a generator, which httpx calls an iterator
        async with contextlib.aclosing(response), contextlib.aclosing(bodies) as parts:
            call.begin(response)
            try:
                async for data in parts:
                    for item in call.feed(data, self._now()):
                        yield item
            except httpx.RequestError as error:
                raise call.broken(error) from error
            for item in call.end():
                yield item

    async def _opened(self, call: Call) -> httpx.Response:
        """Send a request, again where that helps, and return the head of the answer."""
        if self._http.is_closed:
            raise StateError("This client is closed. Make a new one, or send requests before aclose() or the end of `async with`.")
        while True:
            request = self._http.build_request(**call.next(self._now()))
            try:
                response = await self._http.send(request, stream=True, follow_redirects=False)
            except httpx.RequestError as error:
                failure = call.unanswered(error)
            else:
                if response.is_success:
                    return response
                failure = call.refused(response, await _rest_of(response))
            await self._sleep(call.pause(failure, self._now()))


async def _rest_of(response: httpx.Response) -> bytes:
    async with contextlib.aclosing(response):
        with contextlib.suppress(httpx.RequestError):  # the head says enough
            return await response.aread()
    return b""


@final
class AsyncStream(AsyncIterator[Any]):
    """The items of an answer; made by `AsyncClient.stream`.

    Args:
        call: The request.
        items: What comes.
    """

    def __init__(self, call: Call, items: AsyncGenerator[Any, None]) -> None:
        self._call, self._items = call, items

    @property
    def request_id(self) -> str:
        """Under which the log of the server has it."""
        return self._call.request_id

    async def __anext__(self) -> Any:
        return await anext(self._items)

    async def aclose(self) -> None:
        """End it: its connection is closed, and the server stops computing, unless all was read."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.aclose()
