"""`Answer`: what goes back to a client, whichever way it came; and the header lines of it, the same on both ways."""

import gzip
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from leyden.serve.codec import JSON, write_json
from leyden.serve.faults import Fault

SMALLEST_GZIP, LARGEST_INLINE_GZIP = 1000, 64 << 10  # bytes; more than the latter is compressed beside the event loop
_GZIP_LEVEL: Final = 5
_BODILESS: Final = frozenset({204, 304})
_STATUSES: Final = range(200, 600)
_OURS: Final = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"})
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_COMPRESSIBLE: Final = re.compile(r"text/(?!event-stream)|application/(?:[\w.-]+\+)?(?:json|xml|javascript)|image/svg")
HeaderLines = list[tuple[bytes, bytes]]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answer, or the head of a stream.

    Args:
        status: Of HTTP.
        body: All of it; nothing of a stream.
        content_type: Its type.
        headers: Further ones.
    """

    status: int
    body: bytes | bytearray | memoryview = b""
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = ()

    @property
    def has_body(self) -> bool:
        """Whether HTTP allows one."""
        return self.status not in _BODILESS


def checked_status(status: Any) -> int:
    """Return a status that can end a request; 500 for anything else.

    Example:
        >>> checked_status(201), checked_status(101), checked_status("x")
        (201, 500, 500)
    """
    return status if isinstance(status, int) and status in _STATUSES else 500


def extra_lines(headers: Sequence[tuple[str, str]] | Mapping[str, str]) -> HeaderLines:
    r"""Return headers that a hook wants: without those that are about the connection, and without what would break it.

    Example:
        >>> extra_lines([("X-A", "1"), ("Connection", "close"), ("x-b", "2\r\nx-c: 3")])
        [(b'x-a', b'1'), (b'x-b', b'2  x-c: 3')]
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [
        (name.lower().encode(), _CONTROL.sub(" ", str(value)).strip().encode("latin-1", "replace"))
        for name, value in pairs
        if _NAME.fullmatch(name) and name.lower() not in _OURS
    ]


def header_lines(answer: Answer, request_id: str, traceparent: str = "", *, is_stream: bool = False) -> HeaderLines:
    """Return all header lines of an answer, in their order.

    Args:
        answer: What is sent.
        request_id: Stands in each answer.
        traceparent: Our span, if the client sent its own.
        is_stream: Whether the body comes in pieces.
    """
    lines: HeaderLines = []
    if answer.has_body:
        lines.append((b"content-type", _CONTROL.sub(" ", answer.content_type).encode("latin-1", "replace")))
    lines.append((b"x-request-id", request_id.encode()))
    if traceparent:
        lines.append((b"traceparent", traceparent.encode()))
    if answer.headers:
        lines += extra_lines(answer.headers)
    if not is_stream and answer.has_body:
        lines.append((b"content-length", b"%d" % len(answer.body)))
    return lines


def error_answer(
    fault: Fault, request_id: str, *, exposes: bool, raw_detail: bytes | None = None, items: Mapping[str, Any] | None = None
) -> Answer:
    """Return the answer that an error is.

    Args:
        fault: What is wrong.
        request_id: For who asks about it.
        exposes: Whether it tells `message`.
        raw_detail: The JSON of `detail`, where it comes from a worker as it is.
        items: What else the body holds, for clients of a spec.
    """
    detail = fault.detail if raw_detail is None else msgspec.Raw(raw_detail)
    body: dict[str, Any] = {"detail": detail}
    if not fault.is_bare:
        body["code"] = fault.code
        if exposes:
            body["message"] = fault.message
        body["request_id"] = request_id
    body |= items or {}
    return Answer(fault.status, write_json(body), JSON, tuple(fault.headers.items()))


def is_worth_compressing(answer: Answer) -> bool:
    """Return whether an answer gets smaller by it.

    Example:
        >>> is_worth_compressing(Answer(200, b"x" * 1000)), is_worth_compressing(Answer(200, b"x" * 1000, "image/png"))
        (True, False)
    """
    return (
        len(answer.body) >= SMALLEST_GZIP
        and _COMPRESSIBLE.match(answer.content_type) is not None
        and not any(name.lower() == "content-encoding" for name, _ in answer.headers)
    )


def compressed(answer: Answer) -> Answer:
    """Return an answer whose body is compressed; the same bytes each time."""
    body = gzip.compress(answer.body, _GZIP_LEVEL, mtime=0)
    return msgspec.structs.replace(answer, body=body, headers=(*answer.headers, ("content-encoding", "gzip"), ("vary", "accept-encoding")))
