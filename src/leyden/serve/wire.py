"""The frames that front ends, workers and the supervisor exchange: bytes in, frames out, no sockets.

```
header, 16 bytes, little-endian                                          payload, at most 1 MiB
payload_bytes u32 | stream u32 | meta_bytes u32 | kind u8 | flags u8 | 0 u16 | meta: msgpack map | body: bytes, untouched
```

A body that does not fit goes out in several frames of one kind and stream: all but the last carry `MORE`, the first carries
the meta with the number of all bytes, `n`, and the last carries the other flags. Frames of other streams may come between
them. `Decoder` cuts bytes into frames, `Reassembler` joins bodies; both hold a bounded number of bytes whatever comes in.

What the protocol does not allow is a `LinkError`: there is no way to find the next frame after a wrong one, so whoever reads
closes the link, loudly. What the items of a meta mean is the business of those who send and read them.
"""

import enum
import struct
from collections import deque
from typing import Any, Final, final

import msgspec

from leyden.core.errors import ConfigError
from leyden.serve.errors import LinkError

HEADER: Final = struct.Struct("<IIIBBH")
MAX_PAYLOAD_BYTES: Final = 1 << 20
MOST_BODY_BYTES: Final = 4 << 30  # of one request, or one answer: what is larger does not belong into a memory
MORE, LAST_OF_BATCH = 1, 2  # flags; the rest is reserved
LINK_STREAM: Final = 0  # the stream of frames that are about the link itself

_FLAGS: Final = MORE | LAST_OF_BATCH
_HEADER_BYTES: Final = HEADER.size
_SMALL_BYTES: Final = 4096
_UNREADABLE: Final = (ValueError, RecursionError)  # msgspec's own errors and those of UTF-8 are ValueErrors
_UNPACKABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
_BUFFER_BYTES, _DIRECT_BYTES = 256 << 10, 64 << 10  # larger payloads are read into memory of their own: nothing is copied

Buffer = bytes | bytearray | memoryview
Body = Buffer | list[bytes | bytearray]  # or the pieces in which it came: joining them would cost a copy


@final
class Kind(enum.IntEnum):
    """What a frame says."""

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


_KINDS: Final[dict[int, Kind]] = {int(kind): kind for kind in Kind}


class Frame(msgspec.Struct, frozen=True, gc=False):  # made for each message: a NamedTuple takes five times as long
    """One message, or one part of a large one.

    Args:
        kind: What it says.
        stream: The request it belongs to; 0: the link.
        flags: `MORE`, `LAST_OF_BATCH`.
        meta: The facts beside the body.
        body: The bytes; nothing else writes to their memory.
    """

    kind: Kind
    stream: int
    flags: int
    meta: dict[str, Any]
    body: Buffer


def encode(kind: Kind, stream: int, meta: dict[str, Any] | None = None, body: Body = b"", flags: int = 0) -> list[Buffer]:
    """Return the buffers that say this, to be written one after the other; the body among them is not copied.

    Args:
        kind: What it says.
        stream: The request it belongs to, `0` to `2**32 - 1`.
        meta: The facts beside the body; of a body in several frames its `n` is set here.
        body: Any number of bytes, or pieces of them.
        flags: `LAST_OF_BATCH`, or none: `MORE` is set here.

    Raises:
        ConfigError: The meta does not fit into a frame or cannot be packed, the body is too large, or a flag is not accepted.

    Example:
        >>> Decoder().feed(b"".join(encode(Kind.REQ, 7, {"ct": "text/plain"}, b"hello")))
        [Frame(kind=<Kind.REQ: 3>, stream=7, flags=0, meta={'ct': 'text/plain'}, body=b'hello')]
    """
    if flags & ~LAST_OF_BATCH:
        raise ConfigError(f"flags={flags!r} is not accepted. Accepted are 0 and LAST_OF_BATCH; encode() sets MORE itself.")
    try:
        packed = _encode_meta(meta) if meta else b""
    except _UNPACKABLE as error:
        raise _unpackable(kind, error) from error
    if type(body) is bytes and (size := len(packed) + len(body)) <= _SMALL_BYTES:  # nearly all: a copy costs less than a list does
        return [HEADER.pack(size, stream, len(packed), kind, flags, 0) + packed + body]
    _check_meta(kind, packed)
    body_bytes = size_of(body)
    if len(packed) + body_bytes > MAX_PAYLOAD_BYTES:
        return _several(kind, stream, meta or {}, body, flags)
    head = HEADER.pack(len(packed) + body_bytes, stream, len(packed), kind, flags, 0) + packed
    if not body_bytes:
        return [head]
    return [head, *body] if isinstance(body, list) else [head, body]


def _several(kind: Kind, stream: int, meta: dict[str, Any], body: Body, flags: int) -> list[Buffer]:
    left = size_of(body)
    if left > MOST_BODY_BYTES:
        raise ConfigError(
            f"The body of {kind.name} is {left:,} bytes long. Accepted are {MOST_BODY_BYTES:,}: send it in pieces, as a stream."
        )
    packed = _packed(kind, {**meta, "n": left})
    pieces = deque(memoryview(piece).cast("B") for piece in (body if isinstance(body, list) else [body]))
    buffers: list[Buffer] = []
    while left:
        room = min(MAX_PAYLOAD_BYTES - len(packed), left)
        left -= room
        buffers.append(HEADER.pack(len(packed) + room, stream, len(packed), kind, MORE if left else flags, 0) + packed)
        packed = b""
        while room:
            piece = pieces.popleft()
            if len(piece) > room:
                pieces.appendleft(piece[room:])
                piece = piece[:room]
            buffers.append(piece)
            room -= len(piece)
    return buffers


def _packed(kind: Kind, meta: dict[str, Any]) -> bytes:
    try:
        packed = _encode_meta(meta)
    except _UNPACKABLE as error:
        raise _unpackable(kind, error) from error
    _check_meta(kind, packed)
    return packed


def _unpackable(kind: Kind, error: Exception) -> ConfigError:
    return ConfigError(f"The meta of {kind.name} cannot be packed: {error}. Accepted are the types of JSON, and bytes.")


def _check_meta(kind: Kind, packed: bytes) -> None:
    if len(packed) > MAX_PAYLOAD_BYTES // 2:
        raise ConfigError(
            f"The meta of {kind.name} is {len(packed):,} bytes long. Accepted are {MAX_PAYLOAD_BYTES // 2:,}: "
            "shorten its headers or its message, or send them as the body."
        )


def size_of(body: Body) -> int:
    """Return how many bytes a body has.

    Example:
        >>> size_of(b"ab"), size_of([b"ab", b"c"])
        (2, 3)
    """
    if isinstance(body, list):
        return sum(map(len, body))
    return body.nbytes if isinstance(body, memoryview) else len(body)


class _Large:
    """A payload that is read straight into memory of its own."""

    __slots__ = ("filled", "header", "payload")

    def __init__(self, header: tuple[int, ...], begun: memoryview) -> None:
        self.header = header
        self.payload = memoryview(bytearray(header[0]))
        self.payload[: len(begun)] = begun
        self.filled = len(begun)


@final
class Decoder:
    """Cuts what arrives on a link into frames.

    Who reads a socket does it without a copy: `recv_into(decoder.space())`, then `decoder.filled(count)`. For bytes that
    are there already, `feed` does both. At most 256 KiB and one payload are held.

    Attributes:
        is_plain: Whether the last frames that were cut are whole messages, none of them about the link itself.

    Example:
        >>> decoder, sent = Decoder(), encode(Kind.BYE, 0)[0]
        >>> decoder.feed(sent[:5]), [frame.kind.name for frame in decoder.feed(sent[5:])]
        ([], ['BYE'])
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._held = 0  # bytes of the buffer that are no whole frame yet; they are at its start
        self._large: _Large | None = None
        self._broken: str | None = None
        self.is_plain = True

    @property
    def is_between_frames(self) -> bool:
        """Whether a link that ends here ends well: nothing of a frame is held."""
        return self._large is None and self._held == 0

    def space(self) -> memoryview:
        """Return where the next bytes go; never empty, and of no use after the next `filled`."""
        if self._large is not None:
            return self._large.payload[self._large.filled :]
        return self._buffer[self._held :]

    def filled(self, count: int) -> list[Frame]:
        """Return the frames that are whole now that so many bytes more lie in `space()`.

        Raises:
            LinkError: They are no frames. Frames before them in the same bytes are lost with the link, and every later call raises.
        """
        if self._broken is not None:
            raise LinkError(self._broken)
        try:
            return self._cut(self._held + count) if self._large is None else self._grown(self._large, count)
        except LinkError as error:
            self._broken = str(error)
            self._large, self._held = None, 0
            raise

    def feed(self, data: Buffer) -> list[Frame]:
        """Return the frames that are whole now that these bytes have come too.

        Raises:
            LinkError: They are no frames; from then on every call raises.
        """
        left = memoryview(data).cast("B")
        frames: list[Frame] = []
        while left:
            space = self.space()
            count = min(len(space), len(left))
            space[:count] = left[:count]
            frames += self.filled(count)
            left = left[count:]
        return frames

    def _cut(self, end: int) -> list[Frame]:
        """Take the frames out of the first bytes of the buffer, and move what is left to its start.

        A stream is hundreds of small frames in one read: what is done for each is spelled out here, which saves a third of the time.
        """
        frames: list[Frame] = []
        buffer, at, unpack, kinds = self._buffer, 0, HEADER.unpack_from, _KINDS
        self.is_plain = True
        while end - at >= _HEADER_BYTES:
            header = unpack(buffer, at)
            payload_bytes, stream, meta_bytes, kind, flags, reserved = header
            if payload_bytes > MAX_PAYLOAD_BYTES or meta_bytes > payload_bytes or kind not in kinds or reserved or flags & ~_FLAGS:
                _check(header)
            start = at + _HEADER_BYTES
            stop = start + payload_bytes
            if stop <= end:
                middle = start + meta_bytes
                try:
                    meta = _decode_meta(buffer[start:middle]) if meta_bytes else {}
                except _UNREADABLE as error:
                    raise _unreadable(kinds[kind], error) from error
                if flags & MORE or not stream:
                    self.is_plain = False
                frames.append(Frame(kinds[kind], stream, flags, meta, bytes(buffer[middle:stop])))
                at = stop
            elif payload_bytes > _DIRECT_BYTES:
                self._large = _Large(header, buffer[start:end])
                at = end
            else:
                break
        self._held = end - at
        if 0 < at < end:
            buffer[: end - at] = buffer[at:end]
        return frames

    def _grown(self, large: _Large, count: int) -> list[Frame]:
        large.filled += count
        if large.filled < len(large.payload):
            return []
        self._large, self.is_plain = None, False
        middle = large.header[2]
        return [_frame(large.header, large.payload[:middle], large.payload[middle:])]


def _check(header: tuple[int, ...]) -> None:
    payload_bytes, _, meta_bytes, kind, flags, reserved = header
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise _broken(f"a frame of {payload_bytes:,} bytes, where at most {MAX_PAYLOAD_BYTES:,} are allowed")
    if meta_bytes > payload_bytes:
        raise _broken(f"{meta_bytes:,} bytes of meta in a payload of {payload_bytes:,}")
    if kind not in _KINDS:
        raise _broken(f"a frame of kind {kind}, where 1 to {len(_KINDS)} are known")
    if flags & ~_FLAGS or reserved:
        raise _broken(f"reserved bits are set (flags {flags:#04x}, reserved {reserved:#06x})")


def _frame(header: tuple[int, ...], packed: memoryview, body: Buffer) -> Frame:
    kind = _KINDS[header[3]]
    try:
        meta = _decode_meta(packed) if packed else {}
    except _UNREADABLE as error:
        raise _unreadable(kind, error) from error
    return Frame(kind, header[1], header[4], meta, body)


def _unreadable(kind: Kind, error: Exception) -> LinkError:
    return _broken(f"the meta of a {kind.name} is no msgpack map ({error})")


def _no_extension(code: int, _: memoryview) -> object:
    raise ValueError(f"an extension type, {code}")  # it would be a view of the buffer that the next bytes go to


def _broken(found: str) -> LinkError:
    return LinkError(
        f"The link is broken: {found}. Close it and connect anew; if that happens again, the two ends are of different versions, "
        "or somebody else writes to it."
    )


class _Open:
    """A body of which parts are missing."""

    __slots__ = ("body", "filled", "meta")

    def __init__(self, meta: dict[str, Any], total: int) -> None:
        self.meta = meta
        self.body = memoryview(bytearray(total))
        self.filled = 0

    def add(self, part: Buffer) -> None:
        stop = self.filled + len(part)
        if stop > len(self.body):
            raise _broken(f"a body of {len(self.body):,} bytes was announced, and {stop:,} came")
        self.body[self.filled : stop] = part
        self.filled = stop


@final
class Reassembler:
    """Joins the frames of large bodies; whole frames pass through.

    Args:
        max_bytes: What all bodies that are begun and not complete may take together, each with 1 MiB for its meta.

    Example:
        >>> frames = Decoder().feed(b"".join(encode(Kind.REQ, 1, {"r": "x"}, bytes(3_000_000))))
        >>> reassembler = Reassembler()
        >>> [joined.meta for frame in frames if (joined := reassembler.add(frame))]
        [{'r': 'x'}]
    """

    def __init__(self, max_bytes: int = MOST_BODY_BYTES + MAX_PAYLOAD_BYTES) -> None:
        self._max_bytes = max_bytes
        self._open: dict[tuple[int, Kind], _Open] = {}
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """How much of `max_bytes` is taken."""
        return self._bytes

    def add(self, frame: Frame) -> Frame | None:
        """Return a whole frame, without `MORE` and `n`; `None` while parts of it are missing.

        Raises:
            LinkError: The parts do not belong together, or are too many.
        """
        key = (frame.stream, frame.kind)
        begun = self._open.get(key) if self._open else None
        if begun is None:
            if not frame.flags & MORE:
                return frame
            begun = self._open[key] = self._begun(frame)
        elif frame.meta:
            raise _broken(f"a {frame.kind.name} with meta came within the body of another one of stream {frame.stream}")
        begun.add(frame.body)
        if frame.flags & MORE:
            return None
        return self._complete(key, begun, frame.flags)

    def _begun(self, frame: Frame) -> _Open:
        total = frame.meta.get("n")
        if not isinstance(total, int) or isinstance(total, bool) or total < 0:
            raise _broken(f"a {frame.kind.name} in several frames says n={total!r}, where the number of its bytes is due")
        taken = self._bytes + total + MAX_PAYLOAD_BYTES  # the meta counts too, or a million bodies of one byte would cost nothing
        if taken > self._max_bytes:
            raise _broken(f"bodies that are not complete would take {taken:,} bytes, where {self._max_bytes:,} are allowed")
        self._bytes = taken
        return _Open({key: value for key, value in frame.meta.items() if key != "n"}, total)

    def _complete(self, key: tuple[int, Kind], begun: _Open, flags: int) -> Frame:
        if begun.filled != len(begun.body):
            raise _broken(f"a body of {len(begun.body):,} bytes was announced, and it ended after {begun.filled:,}")
        del self._open[key]
        self._bytes -= len(begun.body) + MAX_PAYLOAD_BYTES
        return Frame(key[1], key[0], flags, begun.meta, begun.body)


_encode_meta: Final = msgspec.msgpack.Encoder().encode
_decode_meta: Final = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_no_extension).decode
