"""Frames: whatever is sent comes out again, whatever else comes is one clean error, and memory stays bounded."""

import contextlib
import itertools
import struct
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, RemoteError
from leyden.serve.errors import LinkError
from leyden.serve.wire import HEADER, LAST_OF_BATCH, MAX_PAYLOAD_BYTES, MORE, Buffer, Decoder, Frame, Kind, Reassembler, encode

MIB = 1 << 20

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
values = scalars | st.binary(max_size=8) | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars, max_size=3)
metas = st.dictionaries(st.text(max_size=5), values, max_size=4)
frames = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    stream=st.integers(0, 2**32 - 1),
    flags=st.sampled_from([0, LAST_OF_BATCH]),
    meta=metas,
    body=st.binary(max_size=200) | st.integers(60_000, 300_000).map(lambda count: bytes(range(251)) * (count // 251)),
)


def joined(buffers: Iterable[Buffer]) -> bytes:
    return b"".join(buffers)


def sent(frame: Frame) -> bytes:
    return joined(encode(frame.kind, frame.stream, frame.meta, frame.body, frame.flags))


def packed(*, payload: int = 0, stream: int = 0, meta: int = 0, kind: int = Kind.REQ, flags: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("<IIIBBH", payload, stream, meta, kind, flags, reserved)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def decoded(parts: Iterable[bytes]) -> list[Frame]:
    decoder = Decoder()
    return [frame for part in parts for frame in decoder.feed(part)]


def reassembled(found: Iterable[Frame], reassembler: Reassembler) -> list[Frame]:
    return [whole for frame in found if (whole := reassembler.add(frame)) is not None]


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- laws


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 600_000), max_size=12))
def test_frames_cut_anywhere_decode_to_themselves(messages: list[Frame], cuts: list[int]) -> None:
    assert decoded(pieces(joined(map(sent, messages)), cuts)) == messages


@given(st.lists(frames, min_size=1, max_size=6), st.lists(st.integers(1, 200_000), min_size=1, max_size=5))
def test_frames_read_into_the_space_decode_to_themselves(messages: list[Frame], counts: list[int]) -> None:
    data, decoder, found = memoryview(joined(map(sent, messages))), Decoder(), []
    for most in itertools.cycle(counts):
        space = decoder.space()
        count = min(most, len(space), len(data))
        assert count > 0
        space[:count] = data[:count]
        found += decoder.filled(count)
        data = data[count:]
        if not data:
            break
    assert found == messages
    assert decoder.is_between_frames


small = frames.map(lambda frame: msgspec.structs.replace(frame, body=bytes(frame.body[:40])))
mutations = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)


@given(st.lists(small, min_size=1, max_size=5), mutations, st.lists(st.integers(0, 2000), max_size=4))
def test_mutated_bytes_give_frames_or_one_link_error(messages: list[Frame], changes: list[tuple[int, int]], cuts: list[int]) -> None:
    data = bytearray(joined(map(sent, messages)))
    for place, value in changes:
        data[place % len(data)] = value

    def read() -> None:
        decoder, reassembler = Decoder(), Reassembler(max_bytes=4 * MIB)
        with contextlib.suppress(LinkError):
            for piece in pieces(bytes(data), cuts):
                assert all(frame.kind in Kind for frame in reassembled(decoder.feed(piece), reassembler))

    assert peak_bytes(read) < 6 * MIB  # 4 of bodies, 1 of a payload, the buffer


@given(st.binary(max_size=400))
def test_any_bytes_give_frames_or_one_link_error(data: bytes) -> None:
    for start in (b"", packed(payload=len(data), meta=len(data)), packed(payload=400, meta=min(len(data), 200))):
        with contextlib.suppress(LinkError):
            assert all(frame.kind in Kind for frame in Decoder().feed(start + data))


@given(st.lists(st.sampled_from([0, 1, 100_000, MIB - 1, MIB, MIB + 1, 3 * MIB + 17]), min_size=1, max_size=3), st.randoms())
def test_large_bodies_come_back_among_those_of_other_streams(sizes: list[int], random: Any) -> None:
    bodies = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    queues = [decoded([joined(encode(Kind.REQ, place, {"r": place}, body, LAST_OF_BATCH))]) for place, body in enumerate(bodies)]
    interleaved = []
    while any(queues):
        interleaved.append(random.choice([queue for queue in queues if queue]).pop(0))
    reassembler = Reassembler(max_bytes=16 * MIB)
    whole = sorted(reassembled(interleaved, reassembler), key=lambda frame: frame.stream)
    assert [(frame.stream, frame.flags, frame.meta, bytes(frame.body)) for frame in whole] == [
        (place, LAST_OF_BATCH, {"r": place}, body) for place, body in enumerate(bodies)
    ]
    assert reassembler.held_bytes == 0


# ---- what is sent


def test_the_bytes_are_those_of_the_protocol() -> None:
    data = joined(encode(Kind.RES, 258, {"s": 201}, b"{}", LAST_OF_BATCH))
    header = "07000000 02010000 05000000 04 02 0000"
    assert data == bytes.fromhex(header + "81 a1 73 cc c9") + b"{}"
    assert [int(kind) for kind in Kind] == list(range(1, 16))


def test_nothing_to_say_is_a_header() -> None:
    assert encode(Kind.PING, 0) == [packed(kind=Kind.PING)]
    assert encode(Kind.RES, 1, {}) == [packed(kind=Kind.RES, stream=1)]


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_the_body_is_handed_on_and_not_copied(make: Callable[[bytes], Buffer]) -> None:
    body = make(bytes(10_000))  # a small one is: that costs less than handing on two buffers
    assert encode(Kind.RES, 1, {"s": 200}, body)[1] is body


@given(st.lists(st.binary(max_size=9) | st.just(bytes(700_000)), max_size=5), st.sampled_from([{}, {"r": "a"}]))
def test_pieces_are_sent_as_the_body_that_they_make(pieces: list[bytes], meta: dict[str, Any]) -> None:
    joined = b"".join(pieces)
    assert b"".join(encode(Kind.REQ, 1, meta, [*pieces], LAST_OF_BATCH)) == b"".join(encode(Kind.REQ, 1, meta, joined, LAST_OF_BATCH))


def test_a_large_body_is_cut_into_views() -> None:
    body = bytearray(2 * MIB + 5)
    buffers = encode(Kind.RES, 1, {"s": 200}, body, LAST_OF_BATCH)
    views = buffers[1::2]
    assert all(isinstance(view, memoryview) and view.obj is body for view in views)
    headers = [HEADER.unpack_from(head) for head in buffers[::2]]
    assert [flags for *_, flags, _ in headers] == [MORE, MORE, LAST_OF_BATCH]
    assert [payload for payload, *_ in headers][:2] == [MAX_PAYLOAD_BYTES] * 2
    assert msgspec.msgpack.decode(bytes(buffers[0])[HEADER.size :]) == {"s": 200, "n": len(body)}


def test_a_body_of_wider_items_is_its_bytes() -> None:
    body = memoryview(bytearray(struct.pack("<300000I", *range(300_000)))).cast("I")
    (whole,) = reassembled(decoded([joined(encode(Kind.RES, 1, body=body))]), Reassembler())
    assert whole.body == body.cast("B")


@pytest.mark.parametrize("flags", [MORE, 4, LAST_OF_BATCH | 64])
def test_flags_that_are_not_for_the_sender_are_refused(flags: int) -> None:
    with pytest.raises(ConfigError, match=rf"flags={flags} .*0 and LAST_OF_BATCH"):
        encode(Kind.REQ, 1, flags=flags)


def nested() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"a": value}
    return value


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800", nested()], ids=["object", "integer", "surrogate", "depth"])
def test_a_meta_that_cannot_be_packed_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"meta of ERROR cannot be packed.*Accepted are the types of JSON"):
        encode(Kind.ERROR, 1, {"x": value})


@pytest.mark.parametrize("body", [b"", bytes(2 * MIB)])
def test_a_meta_that_does_not_fit_is_refused(body: bytes) -> None:
    with pytest.raises(ConfigError, match=r"meta of ERROR is 6\d\d,\d\d\d bytes long.*as the body"):
        encode(Kind.ERROR, 1, {"m": "x" * 600_000}, body)


# ---- what is refused on arrival


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (packed(payload=MAX_PAYLOAD_BYTES + 1), "a frame of 1,048,577 bytes, where at most 1,048,576"),
        (packed(payload=2**32 - 1), "a frame of 4,294,967,295 bytes"),
        (packed(payload=3, meta=4), "4 bytes of meta in a payload of 3"),
        (packed(kind=0), "kind 0, where 1 to 15"),
        (packed(kind=16), "kind 16"),
        (packed(flags=4), "reserved bits are set .flags 0x04"),
        (packed(flags=128), "reserved bits"),
        (packed(reserved=1), "reserved 0x0001"),
    ],
)
def test_a_header_against_the_protocol_breaks_the_link_before_its_payload_comes(header: bytes, message: str) -> None:
    with pytest.raises(LinkError, match=message):
        Decoder().feed(header)


@pytest.mark.parametrize(
    "meta",
    [
        b"\x90",  # an array
        b"\x81\x01\x01",  # a key that is no text
        b"\x81\xa1a",  # ends early
        b"\x80\x80",  # something follows
        b"\x81\xa1a\xa1\xff",  # no UTF-8
        b"\x81\xa1a\xc1",  # never used
        b"\x81\xa1a\xdd\xff\xff\xff\xff",  # an array of four thousand million items
        b"\x81\xa1a\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\x81\x81\x01\x01\x01",  # a map as a key
        b"\x81\xa1a\xc7\x01\x05x",  # an extension
        b"\x81\xa1a\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # a time that there is not
        b"\x81\xa1a" + b"\x91" * 200_000,  # too deep
        b"\x81\xa1a" + b"\xdc\xff\xff" * 200_000,
    ],
)
def test_a_meta_that_is_no_map_breaks_the_link(meta: bytes) -> None:
    with pytest.raises(LinkError, match="the meta of a REQ is no msgpack map"):
        Decoder().feed(packed(payload=len(meta), meta=len(meta)) + meta)


def test_a_broken_link_stays_broken() -> None:
    decoder = Decoder()
    good = joined(encode(Kind.PING, 0))
    assert len(decoder.feed(good)) == 1
    for data in (good + packed(kind=99), good, good):
        with pytest.raises(LinkError, match="kind 99"):
            decoder.feed(data)


def test_a_link_that_ends_within_a_frame_is_seen() -> None:
    for data in (joined(encode(Kind.REQ, 1, {"r": "a"}, b"abc")), joined(encode(Kind.REQ, 1, None, bytes(100_000)))):
        for stop in (0, 1, 16, 17, len(data) - 1, len(data)):
            decoder = Decoder()
            decoder.feed(data[:stop])
            assert decoder.is_between_frames == (stop in (0, len(data)))


def test_a_link_error_is_a_failure_of_the_other_process() -> None:
    assert issubclass(LinkError, RemoteError)


# ---- bodies in several frames


def part(flags: int, body: bytes = b"", meta: dict[str, Any] | None = None, *, stream: int = 1, kind: Kind = Kind.REQ) -> Frame:
    return Frame(kind, stream, flags, meta or {}, body)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([part(MORE, b"ab")], "n=None, where the number"),
        ([part(MORE, b"ab", {"n": "4"})], "n='4'"),
        ([part(MORE, b"ab", {"n": True})], "n=True"),
        ([part(MORE, b"ab", {"n": -1})], "n=-1"),
        ([part(MORE, b"ab", {"n": 2**63})], "would take 9,223,372,036,855,824,384 bytes, where 4,194,304"),
        ([part(MORE, b"ab", {"n": 1})], "1 bytes was announced, and 2 came"),
        ([part(MORE, b"ab", {"n": 4}), part(MORE, b"abc")], "4 bytes was announced, and 5 came"),
        ([part(MORE, b"ab", {"n": 4}), part(0, b"a")], "4 bytes was announced, and it ended after 3"),
        ([part(MORE, b"ab", {"n": 4}), part(0, b"ab", {"r": 1})], "a REQ with meta came within the body of another one of stream 1"),
    ],
)
def test_parts_that_do_not_belong_together_break_the_link(parts: list[Frame], message: str) -> None:
    with pytest.raises(LinkError, match=message):
        reassembled(parts, Reassembler(max_bytes=4 * MIB))


def test_other_frames_pass_a_body_that_is_not_complete() -> None:
    reassembler = Reassembler()
    cancel, other = part(0, kind=Kind.CANCEL), part(LAST_OF_BATCH, b"x", {"n": 1}, stream=2)
    assert reassembler.add(part(MORE, b"ab", {"n": 4, "r": "a"})) is None
    assert reassembler.add(cancel) is cancel
    assert reassembler.add(other) is other
    whole = reassembler.add(part(LAST_OF_BATCH, b"cd"))
    assert whole == Frame(Kind.REQ, 1, LAST_OF_BATCH, {"r": "a"}, memoryview(b"abcd"))


# ---- memory


def test_a_decoder_holds_its_buffer_and_one_payload() -> None:
    data = joined(encode(Kind.REQ, 1, None, bytes(MIB)))

    def read_many() -> None:
        decoder = Decoder()
        for _ in range(20):
            for piece in pieces(data, list(range(0, len(data), 100_000))):
                decoder.feed(piece)

    assert peak_bytes(read_many) < 4 * MIB


def test_a_lying_header_reserves_at_most_a_frame() -> None:
    assert peak_bytes(lambda: Decoder().feed(packed(payload=MAX_PAYLOAD_BYTES))) < 2 * MIB


@pytest.mark.parametrize("announced", [0, 1, MIB - 100, 5 * MIB])
def test_bodies_that_never_end_are_refused_at_the_limit(announced: int) -> None:
    reassembler = Reassembler(max_bytes=8 * MIB)

    def flood() -> None:
        with pytest.raises(LinkError, match="are not complete would take"):
            reassembled((part(MORE, b"", {"n": announced}, stream=stream) for stream in range(1000)), reassembler)

    assert peak_bytes(flood) < 9 * MIB
    assert reassembler.held_bytes <= 8 * MIB


def test_a_body_outlives_the_buffer_it_came_through() -> None:
    decoder = Decoder()
    first = decoder.feed(joined(encode(Kind.REQ, 1, {"t": b"raw"}, b"first")))[0]
    for _ in range(3):
        decoder.feed(joined(encode(Kind.REQ, 2, None, b"\xff" * 60_000)))
    assert (first.meta, first.body) == ({"t": b"raw"}, b"first")


def test_a_body_that_no_link_carries_is_refused_where_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.serve.wire.MOST_BODY_BYTES", 3 * MIB)
    assert encode(Kind.RES, 1, body=bytes(3 * MIB))
    with pytest.raises(ConfigError, match=r"^The body of RES is 3,145,729 bytes long\. Accepted are 3,145,728: send it in pieces"):
        encode(Kind.RES, 1, body=bytes(3 * MIB + 1))
