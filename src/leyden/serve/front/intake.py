"""`Intake`: what the head of a request says becomes a call, or is refused before a byte of its body is read.

Both ways in ask the same object, so that they agree on keys, limits, deadlines and names.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final, final

from leyden.serve.arguments import FOREVER
from leyden.serve.config import ServerConfig
from leyden.serve.faults import Fault
from leyden.serve.front.auth import Keys
from leyden.serve.front.calls import HttpCall, too_large
from leyden.serve.tracing import RequestIds, new_trace, read_traceparent

Headers = Mapping[bytes, bytes]
_JSON: Final = b"application/json"
_MOST_DIGITS: Final = 20
_TELLING: Final = frozenset({b"accept-encoding", b"accept", b"x-request-timeout", b"x-priority", b"traceparent"})


@final
class Intake:
    """Reads heads of requests.

    Args:
        config: Of the server.
        ids: Names requests.
        now: Returns seconds.
    """

    def __init__(self, config: ServerConfig, ids: RequestIds, now: Callable[[], float]) -> None:
        self.keys = Keys(config.secrets.api_keys)
        self._config, self._ids, self._now = config, ids, now
        self._most = config.payload_bytes
        self._digits = len(str(self._most))
        self._compresses = config.compression == "auto"

    def request_id(self, headers: Headers) -> str:
        """Return the name of a request: the client's own, if that can be one."""
        given = headers.get(b"x-request-id")
        return self._ids.new() if given is None else self._ids.of(given.decode("latin-1"))

    def refusal(self, headers: Headers, *, needs_key: bool = True) -> Fault | None:
        """Return why a request is refused whatever its body is; `None` if it is not."""
        if needs_key and (fault := self.keys.refusal(headers)) is not None:
            return fault
        length = headers.get(b"content-length")
        if length is not None and len(length) >= self._digits and length.isdigit() and _number(length) > self._most:
            return too_large(self._most)
        return None

    def read(self, call: HttpCall, headers: Headers) -> None:
        """Note on a call what its head says.

        Args:
            call: A new one.
            headers: By lower-case name; of several the last one.

        Raises:
            Fault: 400, 401, 413.
        """
        get, config = headers.get, call.config
        fault = self.refusal(headers, needs_key=config.authorize is None)
        if fault is not None:
            raise fault
        kind = get(b"content-type")
        if kind is not None and kind != _JSON:  # JSON is what is read without a type, too
            call.content_type = kind.decode("latin-1")
        if not config.wants_context and _TELLING.isdisjoint(headers):
            return  # nearly all requests
        if self._compresses and (accepted := get(b"accept-encoding")) is not None:
            call.accepts_gzip = _accepts_gzip(accepted)
        if config.is_stream and b"text/event-stream" in get(b"accept", b""):
            call.accepts_events = True
        if (timeout := get(b"x-request-timeout")) is not None:
            call.deadline = call.began + _positive(timeout, "X-Request-Timeout")
        if (priority := get(b"x-priority")) is not None:
            call.priority = _whole(priority)
        self._read_trace(call, get(b"traceparent"))
        if config.wants_context:
            call.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}

    def _read_trace(self, call: HttpCall, given: bytes | None) -> None:
        caller = None if given is None else read_traceparent(given.decode("latin-1"))
        if caller is not None:
            call.traceparent, call.shows_trace = caller.child().header, True
        elif call.config.wants_context:
            call.traceparent = new_trace().header


def _accepts_gzip(header: bytes) -> bool:
    for each in header.lower().split(b","):
        name, _, quality = each.partition(b";")
        if name.strip() in {b"gzip", b"*"}:
            return quality.strip().removeprefix(b"q=").strip(b"0.") != b"" or not quality
    return False


def _positive(text: bytes, name: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise Fault(400, "request.invalid_header", f"{name} is {text.decode('latin-1')!r:.80}. Send seconds > 0, such as 2.5.")
    return seconds if seconds < FOREVER else math.inf


def _number(digits: bytes) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf  # Python reads no number of thousands of digits


def _whole(text: bytes) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 1 << 31
    if not -(1 << 31) <= number < 1 << 31:
        raise Fault(400, "request.invalid_header", f"X-Priority is {text.decode('latin-1')!r:.80}. Send a whole number.")
    return number


def has_body(headers: Headers) -> bool:
    """Return whether a request has a body, by its head."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
