"""Both clients behind one face, on a transport that a test scripts and a clock that moves when somebody sleeps."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

from leyden.serve.client.aio import AsyncClient
from leyden.serve.client.sync import Client
from tests.support.fake_clock import FakeClock

Handler = Callable[[httpx.Request], httpx.Response]
URL = "http://serve"


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces, and may break off; it notes when it was closed."""

    def __init__(self, *pieces: bytes, error: Exception | None = None, before: Callable[[], None] | None = None) -> None:
        self.pieces, self.error, self.before = pieces, error, before
        self.num_given, self.is_closed = 0, False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if self.before is not None:
                self.before()
            self.num_given += 1
            yield piece
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


class Asking:
    """One of the clients; what it asks for is answered by a handler, and noted."""

    def __init__(self, handler: Handler, clock: FakeClock, url: str, options: dict[str, Any]) -> None:
        self.clock, self.requests = clock, list[httpx.Request]()
        self._handler, self._url, self._options = handler, url, options

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def items(self, *args: Any, most: int | None = None, **kwargs: Any) -> list[Any]:
        """Return the items of a stream; of the first `most`, after which it is closed."""
        raise NotImplementedError

    def health(self, *args: Any, **kwargs: Any) -> bool:
        raise NotImplementedError

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._handler(request)


class SyncAsking(Asking):
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return self._client().predict(*args, **kwargs)

    def items(self, *args: Any, most: int | None = None, **kwargs: Any) -> list[Any]:
        with self._client().stream(*args, **kwargs) as stream:
            found = list[Any]()
            for item in stream:
                found.append(item)
                if len(found) == most:
                    break
            return found

    def health(self, *args: Any, **kwargs: Any) -> bool:
        return self._client().health(*args, **kwargs)

    def _client(self) -> Client:
        client = Client(self._url, **self._options, http=httpx.Client(transport=httpx.MockTransport(self._handle)))
        client._clock = self.clock
        return client


class AsyncAsking(Asking):
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(self._client().predict(*args, **kwargs))

    def items(self, *args: Any, most: int | None = None, **kwargs: Any) -> list[Any]:
        async def collected() -> list[Any]:
            found = list[Any]()
            async with self._client().stream(*args, **kwargs) as stream:
                async for item in stream:
                    found.append(item)
                    if len(found) == most:
                        break
            return found

        return asyncio.run(collected())

    def health(self, *args: Any, **kwargs: Any) -> bool:
        return asyncio.run(self._client().health(*args, **kwargs))

    def _client(self) -> AsyncClient:
        async def sleep(seconds: float) -> None:
            self.clock.sleep(seconds)

        client = AsyncClient(self._url, **self._options, http=httpx.AsyncClient(transport=httpx.MockTransport(self._handle)))
        client._now, client._sleep = self.clock.monotonic, sleep
        return client


KINDS = {"Client": SyncAsking, "AsyncClient": AsyncAsking}
