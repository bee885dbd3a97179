"""Frames between front ends and workers: what travels on a link, as bytes, with no socket in sight.

A frame is a header of 16 bytes (`<IIIBBH`: payload bytes, stream, meta bytes, kind, flags, 0), then meta (a msgpack map, absent
if there is nothing to say), then body. A payload has at most a mebibyte; a larger body is cut into frames that follow one
another, all but the last with the flag `MORE`. Durations are time that is left, never a moment, as clocks differ.

A peer that breaks these rules is not argued with: `LinkError`, and the link is closed.
"""

import enum
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

from leyden.core.errors import RemoteError
from leyden.core.lazy import Later

HEADER = struct.Struct("<IIIBBH")
MAX_PAYLOAD = 2**20
VERSION = 1
_msgpack: Any = Later("msgspec.msgpack")  # some milliseconds that `import leyden.serve` does not pay
_NO_META: Mapping[str, Any] = {}


class LinkError(RemoteError):
    """The other end of a link does not speak our language, or not in whole sentences: the link is closed."""

    code = "serve.link"


class Kind(enum.IntEnum):
    """What a frame is about."""

    HELLO = 1
    READY = 2
    REQ = 3
    RES = 4
    CHUNK = 5
    END = 6
    ERROR = 7
    CANCEL = 8
    WINDOW = 9
    DRAIN = 10
    BYE = 11
    PING = 12
    PONG = 13
    LOG = 14
    STATE = 15


class Flag(enum.IntFlag):
    """What else is true of a frame."""

    NONE = 0
    MORE = 1
    LAST_OF_BATCH = 2


_KINDS = {int(kind): kind for kind in Kind}
_FLAGS = int(Flag.MORE | Flag.LAST_OF_BATCH)


class Frame(NamedTuple):
    """One frame.

    Args:
        kind: What it is about.
        stream: The request's number on this link; 0 is the link itself.
        meta: What is said beside the body.
        body: The bytes, or a part of them.
        flags: What else is true.
    """

    kind: Kind
    stream: int
    meta: Mapping[str, Any] = _NO_META
    body: bytes = b""
    flags: int = 0


def encode(
    kind: int, stream: int, meta: Mapping[str, Any] | None = None, body: bytes | bytearray | memoryview = b"", flags: int = 0
) -> list[bytes | bytearray | memoryview]:
    """Return the buffers of a frame, or of several that carry a large body; the body itself is not copied.

    Args:
        kind: A `Kind`.
        stream: The request's number; 0 is the link.
        meta: A map of msgpack's types; it goes with the first frame.
        body: Of any length.
        flags: Of the last frame.

    Raises:
        LinkError: The meta alone is longer than a payload may be.

    Example:
        >>> frames = Decoder().feed(b"".join(encode(Kind.REQ, 7, {"d": 250}, b"{}")))
        >>> frames[0].meta, frames[0].body
        ({'d': 250}, b'{}')
    """
    said = _msgpack.encode(meta) if meta else b""
    room = MAX_PAYLOAD - len(said)
    if room < 0:
        raise LinkError(f"a frame's meta has {len(said):,} bytes, and a payload at most {MAX_PAYLOAD:,}.")
    size = len(body)
    if size <= room:
        return (
            [HEADER.pack(size + len(said), stream, len(said), kind, flags, 0) + said, body]
            if size
            else [HEADER.pack(len(said), stream, len(said), kind, flags, 0) + said]
        )
    view, start, buffers = memoryview(body), 0, list[bytes | bytearray | memoryview]()
    while start < size:
        piece = view[start : start + room]
        start += len(piece)
        now = flags if start == size else Flag.MORE
        buffers += [HEADER.pack(len(piece) + len(said), stream, len(said), kind, now, 0) + said, piece]
        said, room = b"", MAX_PAYLOAD
    return buffers


@final
class Decoder:
    """Makes frames of bytes as they come, however they are cut. Keeps at most one frame that is not whole.

    Example:
        >>> decoder = Decoder()
        >>> data = b"".join(encode(Kind.PING, 0))
        >>> decoder.feed(data[:5]), [frame.kind.name for frame in decoder.feed(data[5:])]
        ([], ['PING'])
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def is_within_frame(self) -> bool:
        """Whether a part of a frame has come: a link that ends here was broken."""
        return bool(self._rest)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Return the frames that are whole now.

        Raises:
            LinkError: These bytes are no frames.
        """
        if self._rest:
            self._rest += data
            frames, used = _frames(memoryview(self._rest))
            if used:
                self._rest = self._rest[used:]  # a new one: views of the old may still be held
            return frames
        frames, used = _frames(memoryview(data))
        if used < len(data):
            self._rest += memoryview(data)[used:]
        return frames


def _frames(data: memoryview) -> tuple[list[Frame], int]:
    """Return all whole frames at the start of the data, and how many bytes they take."""
    frames, start, size = list[Frame](), 0, len(data)
    while size - start >= HEADER.size:
        payload, stream, said, kind, flags, reserved = HEADER.unpack_from(data, start)
        _check(payload, said, kind, flags, reserved)
        begin = start + HEADER.size
        end = begin + payload
        if end > size:
            break
        meta = _meta(data[begin : begin + said]) if said else _NO_META
        frames.append(Frame(_KINDS[kind], stream, meta, bytes(data[begin + said : end]), flags))
        start = end
    return frames, start


def _check(payload: int, said: int, kind: int, flags: int, reserved: int) -> None:
    if payload > MAX_PAYLOAD or said > payload or kind not in _KINDS or flags & ~_FLAGS or reserved:
        raise LinkError(
            f"this is no frame: payload {payload:,}, meta {said:,}, kind {kind}, flags {flags}, reserved {reserved}. "
            "The two ends run different versions of Leyden, or something else writes to the link."
        )


def _meta(data: memoryview) -> Mapping[str, Any]:
    try:
        found = _msgpack.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise LinkError(f"a frame's meta is no msgpack ({error}).") from error
    if not isinstance(found, dict) or not all(type(key) is str for key in found):
        raise LinkError(f"a frame's meta is {type(found).__name__}, and has to be a map with text for keys.")
    return found


@final
class Bodies:
    """Puts bodies together that came in several frames: of each stream one at a time.

    Args:
        most_bytes: Of a body; what is longer breaks the link.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._open: dict[int, tuple[Frame, list[bytes], int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def whole(self, frame: Frame) -> Frame | None:
        """Return a frame with its whole body; `None` while more of it is to come.

        Raises:
            LinkError: Frames of two kinds take turns within a body, or it is too long.
        """
        has_more = frame.flags & Flag.MORE
        known = self._open.get(frame.stream)
        if known is None:
            if not has_more:
                return frame
            known = self._open[frame.stream] = (frame, list[bytes](), 0)
        first, pieces, size = known
        size += len(frame.body)
        if frame.kind is not first.kind or size > self._most_bytes:
            raise LinkError(f"the body of stream {frame.stream} is broken: {frame.kind.name} within {first.kind.name}, {size:,} bytes.")
        pieces.append(frame.body)
        if has_more:
            self._open[frame.stream] = (first, pieces, size)
            return None
        del self._open[frame.stream]
        return first._replace(body=b"".join(pieces), flags=frame.flags)

    def forget(self, stream: int) -> None:
        """Drop what has come of a stream's body: it was cancelled."""
        self._open.pop(stream, None)


def size_of(buffers: Sequence[bytes | bytearray | memoryview]) -> int:
    """Return how many bytes buffers have together."""
    return sum(map(len, buffers))
