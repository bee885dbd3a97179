"""Who caused a request: W3C trace contexts (`traceparent`) in and out, and the ids of requests.

A request that comes with a valid `traceparent` stays in its trace, as a span of its own; another one begins a trace. Malformed
headers are ignored, as the standard demands: tracing never refuses a request.
"""

import itertools
import os
import re
from typing import NamedTuple, final

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_SAMPLED = 1


class TraceContext(NamedTuple):
    """A span's place.

    Args:
        trace_id: 32 hexadecimal digits, the same for all that one cause has caused.
        span_id: 16 of this span.
        flags: 1 if it is recorded.
    """

    trace_id: str
    span_id: str
    flags: int = 0

    @property
    def header(self) -> str:
        """The value of `traceparent`.

        Example:
            >>> TraceContext("a" * 32, "b" * 16, 1).header
            '00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01'
        """
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self) -> "TraceContext":
        """Return a new span of the same trace."""
        return TraceContext(self.trace_id, os.urandom(8).hex(), self.flags)


def read_traceparent(value: str | None) -> TraceContext | None:
    """Return the caller's span; `None` if there is none, or it is malformed.

    Example:
        >>> read_traceparent("00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01").flags
        1
        >>> read_traceparent("00-00000000000000000000000000000000-bbbbbbbbbbbbbbbb-01") is None
        True
    """
    match = _TRACEPARENT.fullmatch((value or "").strip().lower())
    if match is None:
        return None
    version, trace_id, span_id, flags, further = match.groups()
    # Version 00 has four fields; a later one may have more. ff is none, and ids of zeros are none.
    if version == "ff" or (version == "00" and further) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & _SAMPLED)


def new_trace() -> TraceContext:
    """Return the first span of a new trace, which is not recorded unless somebody asks."""
    return TraceContext(os.urandom(16).hex(), os.urandom(8).hex())


@final
class RequestIds:
    """Names requests: random once for a process, then counted, as a random one for each costs as much as a small model.

    Example:
        >>> ids = RequestIds("a1")
        >>> ids.new(), ids.new(), ids.of("theirs-7"), ids.of("not one")
        ('a1-1', 'a1-2', 'theirs-7', 'a1-3')
    """

    def __init__(self, prefix: str | None = None) -> None:
        self._prefix = prefix or os.urandom(5).hex()
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """Return a name that no other request has."""
        return f"{self._prefix}-{next(self._numbers)}"

    def of(self, given: str | None) -> str:
        """Return the client's own name if it is printable and short, so that it can stand in a header and a log line; else a new one."""
        return given if given and _REQUEST_ID.fullmatch(given) else self.new()
