"""`Client`: requests to a server, from any thread."""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, final

import httpx

from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import StateError
from leyden.serve.client.connections import LIMITS, check_own, context_of
from leyden.serve.client.target import DEFAULT, NOTHING, SECONDS, Call, is_unwell, target
from leyden.serve.errors import RequestError


@final
class Client:
    """Sends requests to a server. Connections are kept and used again; threads may share one client.

    Args:
        url: Of the server: `"http://localhost:8000"`, `"https://models.example/v2"`, `"unix:/path"`.
        api_key: Goes as `Authorization: Bearer` with each request.
        timeout: Seconds for an answer, tries and pauses included; of a stream, until its last piece. The server is told, so that it
            computes nothing that comes too late. `None` waits for as long as it takes.
        retries: How often a request is sent again that the server refuses for now (429, 503), or that found no connection.
        idempotent: Whether a request may be computed twice: then it is sent again also if its connection was lost.
        verify: Whether certificates are looked at; the path of those that are trusted; or an `ssl.SSLContext`.
        http: An `httpx.Client` of yours, for proxies, cookies, transports; you close it.

    Raises:
        ConfigError: An argument is not accepted.

    Example:
        ```python
        with Client("http://localhost:8000") as client:
            client.predict({"input": 4.0})                            # {'output': 16.0}
            for item in client.stream({"text": "hi"}, "/spell"):
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
        http: httpx.Client | None = None,
    ) -> None:
        self._target = target(url, api_key, timeout, retries, idempotent=idempotent)
        self._is_own = http is None
        if http is None:
            transport = httpx.HTTPTransport(uds=self._target.socket, limits=LIMITS) if self._target.socket else None
            http = httpx.Client(verify=context_of(verify), limits=LIMITS, transport=transport)
        else:
            check_own(http, httpx.Client, self._target, verify)
        self._http = http
        self._clock: Clock = SystemClock()

    def predict(
        self,
        payload: Any = NOTHING,
        path: str = "/predict",
        *,
        form: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = DEFAULT,
    ) -> Any:
        """Return the answer to a request: JSON as a value, text as text, anything else as bytes; of a stream all its items.

        Args:
            payload: Anything that JSON has, a dataclass, a pydantic model, an array (NaN becomes null); or bytes, as they are.
            path: Of the API.
            form: Fields, instead of a payload.
            files: By field: bytes, an open file, `(name, bytes or file)`, or `(name, bytes or file, content type)`.
            headers: Further ones, such as `{"Content-Type": "image/png"}` for bytes.
            timeout: Instead of the client's own.

        Raises:
            RequestError: There is no answer, or it is an error: `RejectedError`, `BusyError`, `LateError`, `FailedError`, `NoAnswerError`.
            ConfigError: An argument is not accepted.
        """
        call = self._target.post(payload, path, form, files, headers, timeout)
        return call.joined(list(self._items(call)))

    def stream(
        self,
        payload: Any = NOTHING,
        path: str = "/predict",
        *,
        form: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = DEFAULT,
    ) -> "Stream":
        """Return the items of an answer, as they come; the request is sent when the first one is asked for.

        Lines of JSON and events come parsed, text and bytes in pieces. Who stops early closes the stream (`with`, or `close()`): then the
        server stops computing.

        Args:
            payload: As for `predict`.
            path: Of the API.
            form: As for `predict`.
            files: As for `predict`.
            headers: As for `predict`; `{"Accept": "text/event-stream"}` asks for events.
            timeout: As for `predict`.

        Raises:
            ConfigError: An argument is not accepted.
        """
        call = self._target.post(payload, path, form, files, headers, timeout)
        return Stream(call, self._items(call))

    def health(self, path: str = "/health", timeout: float | None = 10.0) -> bool:
        """Return whether all workers of the server are ready; not, if nobody answers.

        Args:
            path: The server's `healthcheck_path`.
            timeout: Seconds.

        Raises:
            RejectedError: There is no such path, or the key is wrong.
        """
        try:
            for _ in self._items(self._target.get(path, timeout)):
                pass
        except RequestError as error:
            if is_unwell(error):
                return False
            raise
        return True

    def close(self) -> None:
        """Close the connections."""
        if self._is_own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _items(self, call: Call) -> Generator[Any, None, None]:
        """Yield what comes; the connection is closed unless all of it was read."""
        with contextlib.closing(self._opened(call)) as response:
            call.begin(response)
            try:
                for data in response.iter_bytes():
                    yield from call.feed(data, self._clock.monotonic())
            except httpx.RequestError as error:
                raise call.broken(error) from error
            yield from call.end()

    def _opened(self, call: Call) -> httpx.Response:
        """Send a request, again where that helps, and return the head of the answer."""
        if self._http.is_closed:
            raise StateError("This client is closed. Make a new one, or send requests before close() or the end of `with`.")
        while True:
            request = self._http.build_request(**call.next(self._clock.monotonic()))
            try:
                response = self._http.send(request, stream=True, follow_redirects=False)
            except httpx.RequestError as error:
                failure = call.unanswered(error)
            else:
                if response.is_success:
                    return response
                failure = call.refused(response, _rest_of(response))
            self._clock.sleep(call.pause(failure, self._clock.monotonic()))


def _rest_of(response: httpx.Response) -> bytes:
    with contextlib.closing(response), contextlib.suppress(httpx.RequestError):  # the head says enough
        return response.read()
    return b""


@final
class Stream(Iterator[Any]):
    """The items of an answer; made by `Client.stream`. It belongs to one thread.

    Args:
        call: The request.
        items: What comes.
    """

    def __init__(self, call: Call, items: Generator[Any, None, None]) -> None:
        self._call, self._items = call, items

    @property
    def request_id(self) -> str:
        """Under which the log of the server has it."""
        return self._call.request_id

    def __next__(self) -> Any:
        return next(self._items)

    def close(self) -> None:
        """End it: its connection is closed, and the server stops computing, unless all was read."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
