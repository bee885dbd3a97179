"""How the pieces of a stream are written: as they are, as server-sent events, or as lines of JSON; and how a stream breaks off.

What breaks off says so where its format can: a last line `{"error": …}`, an event `error`. In any case the connection ends
without the last chunk, so that no client takes a part for the whole.
"""

from typing import Any, Protocol, final

from leyden.serve.api import StreamFormat
from leyden.serve.codec import NDJSON, TEXT, write_json

Headers = tuple[tuple[str, str], ...]
SSE = "text/event-stream; charset=utf-8"
_SSE_HEADERS: Headers = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))


class Writer(Protocol):
    """Writes pieces."""

    content_type: str
    headers: Headers

    def join(self, pieces: list[bytes]) -> bytes:
        """Return pieces as they are sent."""
        ...

    def error(self, error: dict[str, Any]) -> bytes:
        """Return how a stream says that it breaks off."""
        ...


@final
class AsTheyAre:
    """Pieces that the worker has formatted: lines of JSON, text, bytes, events of a spec.

    Args:
        content_type: What they are.
    """

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type
        self.headers: Headers = _SSE_HEADERS if _is(content_type, SSE) else ()

    def join(self, pieces: list[bytes]) -> bytes:
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def error(self, error: dict[str, Any]) -> bytes:
        if _is(self.content_type, SSE):
            return b"event: error\ndata: %b\n\n" % write_json({"error": error})
        return write_json({"error": error}) + b"\n" if _is(self.content_type, NDJSON) else b""


@final
class AsEvents:
    r"""Server-sent events, one for each piece.

    Example:
        >>> AsEvents().join([b'{"a": 1}\n', b"two\nlines"])
        b'data: {"a": 1}\n\ndata: two\ndata: lines\n\n'
    """

    content_type: str = SSE
    headers: Headers = _SSE_HEADERS

    def join(self, pieces: list[bytes]) -> bytes:
        return b"".join(_event(piece) for piece in pieces)

    def error(self, error: dict[str, Any]) -> bytes:
        return b"event: error\ndata: %b\n\n" % write_json({"error": error})


@final
class AsLines:
    r"""Lines of JSON, one for each piece of text.

    Example:
        >>> AsLines().join([b"a", b"b\n"])
        b'"a"\n"b\\n"\n'
    """

    content_type: str = NDJSON
    headers: Headers = ()

    def join(self, pieces: list[bytes]) -> bytes:
        return b"".join(write_json(piece.decode("utf-8", "replace")) + b"\n" for piece in pieces)

    def error(self, error: dict[str, Any]) -> bytes:
        return write_json({"error": error}) + b"\n"


def writer_for(wanted: StreamFormat, found: str, *, accepts_events: bool) -> Writer:
    """Return how a stream is written.

    Args:
        wanted: What the API says.
        found: The type of its first piece.
        accepts_events: Whether the client asks for server-sent events.

    Example:
        >>> writer_for("auto", "application/x-ndjson", accepts_events=True).content_type
        'text/event-stream; charset=utf-8'
        >>> writer_for("text", "application/x-ndjson", accepts_events=True).content_type
        'text/plain; charset=utf-8'
    """
    if _is(found, SSE):
        return AsTheyAre(found)
    if wanted == "sse" or (wanted == "auto" and accepts_events):
        return AsEvents()
    if wanted == "text":
        return AsTheyAre(TEXT)
    if wanted == "ndjson":
        return AsTheyAre(NDJSON) if _is(found, NDJSON) else AsLines()
    return AsTheyAre(found or TEXT)


def _event(piece: bytes) -> bytes:
    # A carriage return ends a line of an event too: what a piece holds must not look like a field.
    lines = piece.removesuffix(b"\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join(b"data: %b\n" % line for line in lines) + b"\n"


def _is(content_type: str, kind: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == kind.partition(";")[0]
