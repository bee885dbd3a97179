"""`Target`: a server as a client knows it; `Call`: one request to it, through all its tries. No sockets, no clock of their own.

A request is sent again if the server says when (429, 503), and if no connection came about. One that was sent and not answered may
have been computed: it is sent again only if its API is idempotent. One whose worker died is sent again once in any case, as
the server asks for it, and no more often: it may be the request that kills workers.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

import httpx

from leyden.core.arguments import flag, whole
from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve.arguments import checked_path, seconds_or_never
from leyden.serve.client import failures
from leyden.serve.client.bodies import NOTHING, Options, body_of
from leyden.serve.client.readers import Reader, reader_for
from leyden.serve.errors import BusyError, LateError, NoAnswerError, RequestError
from leyden.serve.tracing import RequestIds

SECONDS: Final = 600.0
CONNECT_SECONDS: Final = 10.0
GRACE_SECONDS: Final = 1.0  # for the answer that says that it is too late
LONGEST_PAUSE: Final = 60.0  # seconds: as long as a server of ours ever asks for
_FIRST_PAUSE, _JITTER = 0.25, 0.25
_UNIX: Final = "unix:"
DEFAULT: Final = object()  # None is a timeout


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where requests go, and how.

    Args:
        url: Without a slash at its end.
        socket: The path of a unix socket; empty for TCP.
        headers: Of each request.
        seconds: For an answer, tries included.
        retries: How often a request is sent again.
        is_idempotent: Whether one may be computed twice.
        chance: Returns numbers from 0 to 1, so that clients that were refused together do not come back together.
    """

    url: str
    socket: str
    headers: Mapping[str, str]
    seconds: float
    retries: int
    is_idempotent: bool
    ids: RequestIds = field(default_factory=RequestIds)
    chance: Callable[[], float] = random.random

    def post(
        self, payload: Any, path: str, form: Any = None, files: Any = None, headers: Mapping[str, str] | None = None, timeout: Any = DEFAULT
    ) -> "Call":
        """Return a request for an API.

        Raises:
            ConfigError: An argument is not accepted.
        """
        body, kind = body_of(payload, form, files)
        extra = {**self.headers, **({"content-type": kind} if kind else {}), **_lowered(headers)}
        seconds = self.seconds if timeout is DEFAULT else seconds_or_never(timeout)
        return Call(self, "POST", self._checked(path), extra, body, seconds=seconds, retries=self.retries)

    def get(self, path: str, timeout: float | None) -> "Call":
        """Return a question that is asked once.

        Raises:
            ConfigError: An argument is not accepted.
        """
        seconds = min(self.seconds, seconds_or_never(timeout))
        return Call(self, "GET", self._checked(path), self.headers, {}, seconds=seconds, retries=0)

    def _checked(self, path: Any) -> str:
        try:
            httpx.URL(self.url + checked_path("path", path))
        except httpx.InvalidURL as error:
            raise ConfigError(f"path={path!r:.80} is not accepted: {error}. Quote what is special in it: urllib.parse.quote(…).") from error
        return str(path)


def target(url: str, api_key: str | None, timeout: float | None, retries: int, *, idempotent: bool) -> Target:
    """Return where a client's requests go.

    Raises:
        ConfigError: An argument is not accepted.

    Example:
        >>> found = target("http://localhost:8000/", "secret", 30, 3, idempotent=False)
        >>> found.url, found.headers
        ('http://localhost:8000', {'authorization': 'Bearer secret'})
    """
    at, socket = _place(url)
    return Target(
        url=at,
        socket=socket,
        headers={} if api_key is None else {"authorization": f"Bearer {_key(api_key)}"},
        seconds=seconds_or_never(timeout),
        retries=whole("retries", retries, 0),
        is_idempotent=flag("idempotent", idempotent),
    )


def _place(url: Any) -> tuple[str, str]:
    if isinstance(url, str) and url.startswith(_UNIX + "/"):
        return "http://localhost", "/" + url.removeprefix(_UNIX).lstrip("/")
    try:
        found = httpx.URL(url)
        is_right = found.scheme in {"http", "https"} and bool(found.host) and not found.query and not found.fragment
    except (httpx.InvalidURL, TypeError):
        is_right = False
    if not is_right:
        raise ConfigError(f"url={url!r} is not accepted: it takes the URL of a server, such as 'http://localhost:8000', or 'unix:/path'.")
    return str(url).rstrip("/"), ""


def _key(key: Any) -> str:
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigTypeError("api_key is not accepted: it takes one of the server's keys, printable ASCII without spaces.")
    return key


def _lowered(headers: Any) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping) or not all(isinstance(each, str) for pair in headers.items() for each in pair):
        raise ConfigTypeError(f"headers={headers!r:.80} is not accepted: it takes a dict of names and texts.")
    for name, text in headers.items():
        if not (name + text).isascii() or not (name + text).replace("\t", "").isprintable():
            raise ConfigError(f"headers={{{name!r}: {text!r:.80}}} is not accepted: headers are printable ASCII. Quote what is not.")
    return {name.lower(): text for name, text in headers.items()}


@final
class Call:
    """One request.

    Args:
        server: Where it goes.
        method: Of HTTP.
        path: Of the URL.
        headers: Its own.
        body: What httpx sends.
        seconds: For the answer, from the first try on.
        retries: How often it may be sent again.
    """

    def __init__(
        self, server: Target, method: str, path: str, headers: Mapping[str, str], body: Options, *, seconds: float, retries: int
    ) -> None:
        self.request_id = headers.get("x-request-id") or server.ids.new()
        self._target, self._method, self._path, self._body = server, method, path, body
        self._headers = {"x-request-id": self.request_id, **headers}
        self._seconds, self._retries, self._until = seconds, retries, math.inf
        self._num_tries = self._num_lost = self._status = 0
        self._reader: Reader | None = None

    @property
    def what(self) -> str:
        """What it is, in words."""
        return f"{self._method} {self._target.url}{self._path}"

    # -- tries -------------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Options:
        """Return what httpx's `build_request` takes for the next try; its deadline counts from the first one.

        Args:
            now: Seconds.

        Raises:
            LateError: There is no time for one.
        """
        if not self._num_tries:
            self._until = now + self._seconds
        left = self._until - now
        if left <= 0:
            raise self._late()
        self._num_tries += 1
        headers, limit = self._headers, None
        if left < math.inf:
            limit = left + GRACE_SECONDS
            headers = {"x-request-timeout": f"{max(left, 0.001):.3f}", **headers}
        timeout = httpx.Timeout(limit, connect=min(left, CONNECT_SECONDS))
        return {"method": self._method, "url": self._target.url + self._path, "headers": headers, "timeout": timeout, **self._body}

    def refused(self, response: httpx.Response, body: bytes) -> RequestError:
        """Return the error that an answer is."""
        return failures.of_answer(self.what, self.request_id, response, body)

    def unanswered(self, error: httpx.RequestError) -> RequestError:
        """Return the error of a try that was not answered.

        Raises:
            ConfigError: It was no HTTP.
        """
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            raise ConfigError(f"{self.what} cannot be sent: {error}. Look at headers= and url.") from error
        return failures.of_connection(self.what, self.request_id, error)

    def pause(self, error: RequestError, now: float) -> float:
        """Return for how many seconds to wait before the next try.

        Args:
            error: Why there is to be one.
            now: Seconds.

        Raises:
            RequestError: There is none: the error.
        """
        if self._num_tries > self._retries or not self._may_come_again(error):
            raise error
        asked = error.retry_after
        pause = _FIRST_PAUSE * 2 ** (self._num_tries - 1) if asked is None else asked
        if pause > LONGEST_PAUSE or now + pause >= self._until:
            raise error
        return pause * (1 + _JITTER * self._target.chance())

    def _may_come_again(self, error: RequestError) -> bool:
        if isinstance(error, NoAnswerError):
            return self._target.is_idempotent if error.was_sent else not failures.is_about_certificates(error)
        if error.status == 503 and error.code == failures.LOST:
            self._num_lost += 1
            return self._num_lost == 1 or self._target.is_idempotent
        return isinstance(error, BusyError)

    # -- the answer --------------------------------------------------------------------------------------------------

    def begin(self, response: httpx.Response) -> None:
        """Take the head of an answer."""
        self.request_id = response.headers.get("x-request-id") or self.request_id
        self._status = response.status_code
        self._reader = reader_for(response.headers.get("content-type", ""), self._status, self.request_id)

    def feed(self, data: bytes, now: float) -> Iterator[Any]:
        """Yield the items that are complete with these bytes.

        Raises:
            RequestError: The answer breaks off.
            LateError: It should have ended by now.
        """
        if self._reader is not None:
            yield from self._reader.feed(data)
        if now > self._until + GRACE_SECONDS:
            raise self._late()

    def end(self) -> Iterator[Any]:
        """Yield what is left."""
        if self._reader is not None:
            yield from self._reader.end()

    def joined(self, items: list[Any]) -> Any:
        """Return the items of an answer as one value."""
        return items if self._reader is None else self._reader.joined(items)

    def broken(self, error: httpx.RequestError) -> RequestError:
        """Return the error of an answer that breaks off."""
        return failures.of_break(self.what, self.request_id, self._status, error)

    def _late(self) -> LateError:
        return LateError(f"{self.what}: no answer within {self._seconds:g} s (request {self.request_id}).", request_id=self.request_id)


def is_unwell(error: RequestError) -> bool:
    """Return whether an error says that a server is not well, rather than that the question was wrong."""
    return isinstance(error, BusyError | LateError | NoAnswerError) or (error.status or 0) >= 500


__all__ = ["DEFAULT", "NOTHING", "SECONDS", "Call", "Target", "is_unwell", "target"]
