"""Frames: cut anywhere they come out as they went in; what is no frame is one clear error, and never more memory than a frame."""

import contextlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leyden.serve.wire import HEADER, MAX_PAYLOAD, Bodies, Decoder, Flag, Frame, Kind, LinkError, encode

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
frames = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    stream=st.integers(0, 2**32 - 1),
    meta=st.dictionaries(st.text(max_size=6), values, max_size=4),
    body=st.binary(max_size=200),
    flags=st.sampled_from([0, int(Flag.LAST_OF_BATCH)]),
)


def bytes_of(several: list[Frame]) -> bytes:
    return b"".join(part for frame in several for part in encode(frame.kind, frame.stream, frame.meta, frame.body, frame.flags))


def decoded(data: bytes, cuts: list[int]) -> list[Frame]:
    decoder, found = Decoder(), list[Frame]()
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(borders):
        found += decoder.feed(data[start:stop])
    assert not decoder.is_within_frame
    return found


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10**6), max_size=12))
def test_frames_cut_anywhere_decode_to_themselves(several: list[Frame], cuts: list[int]) -> None:
    assert decoded(bytes_of(several), cuts) == several


@given(st.lists(frames, min_size=1, max_size=3), st.integers(0, 10**6), st.integers(1, 255), st.integers(0, 10**6))
def test_changed_bytes_give_frames_or_one_error_of_ours(several: list[Frame], place: int, flip: int, cut: int) -> None:
    data = bytearray(bytes_of(several))
    data[place % len(data)] ^= flip
    decoder = Decoder()
    try:
        found = decoder.feed(data[: cut % len(data)]) + decoder.feed(data[cut % len(data) :])
    except LinkError:
        return
    assert all(isinstance(frame.kind, Kind) for frame in found)


@given(st.binary(max_size=400))
@example(HEADER.pack(4, 1, 4, 3, 0, 0) + b"\xd9\xff\xff\xff")
@example(HEADER.pack(1, 1, 1, 3, 0, 0) + b"\x01")
@example(HEADER.pack(2, 1, 2, 3, 0, 0) + b"\x81\x01")
def test_any_bytes_give_frames_or_one_error_of_ours(data: bytes) -> None:
    with contextlib.suppress(LinkError):
        Decoder().feed(data)


@pytest.mark.parametrize(
    "header",
    [(MAX_PAYLOAD + 1, 1, 0, 3, 0, 0), (3, 1, 4, 3, 0, 0), (0, 1, 0, 99, 0, 0), (0, 1, 0, 3, 4, 0), (0, 1, 0, 3, 0, 1)],
    ids=["too long", "meta beyond payload", "unknown kind", "unknown flag", "reserved"],
)
def test_a_broken_header_is_told_before_its_payload_is_waited_for(header: tuple[int, ...]) -> None:
    with pytest.raises(LinkError, match="this is no frame"):
        Decoder().feed(HEADER.pack(*header))


@pytest.mark.parametrize("size", [MAX_PAYLOAD - 5, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD + 17])
def test_large_bodies_travel_in_pieces_that_are_not_copied(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    buffers = encode(Kind.REQ, 5, {"n": size}, body, Flag.LAST_OF_BATCH)
    assert all(part.obj is body for part in buffers if isinstance(part, memoryview))
    bodies, found = Bodies(size), list[Frame]()
    for frame in decoded(b"".join(buffers), [7, 10**6]):
        assert len(frame.body) <= MAX_PAYLOAD
        whole = bodies.whole(frame)
        found += [whole] if whole is not None else []
    assert [(frame.body, frame.meta, frame.flags) for frame in found] == [(body, {"n": size}, Flag.LAST_OF_BATCH)]
    assert not len(bodies)


def test_bodies_of_several_streams_take_turns_and_one_that_is_cancelled_is_dropped() -> None:
    bodies = Bodies(100)

    def piece(stream: int, body: bytes, flags: int = Flag.MORE) -> Any:
        return bodies.whole(Frame(Kind.REQ, stream, {}, body, flags))

    assert piece(1, b"a") is None
    assert piece(2, b"x") is None
    assert piece(3, b"whole", 0).body == b"whole"
    assert piece(2, b"y", 0).body == b"xy"
    bodies.forget(1)
    assert not len(bodies)
    assert piece(1, b"other", 0).body == b"other"


def test_a_body_that_is_too_long_or_mixed_breaks_the_link() -> None:
    bodies = Bodies(3)
    bodies.whole(Frame(Kind.REQ, 1, {}, b"ab", Flag.MORE))
    with pytest.raises(LinkError, match="4 bytes"):
        bodies.whole(Frame(Kind.REQ, 1, {}, b"cd", Flag.MORE))
    bodies = Bodies(3)
    bodies.whole(Frame(Kind.REQ, 1, {}, b"a", Flag.MORE))
    with pytest.raises(LinkError, match="CHUNK within REQ"):
        bodies.whole(Frame(Kind.CHUNK, 1, {}, b"b", 0))


def test_a_meta_that_fills_a_payload_is_refused() -> None:
    with pytest.raises(LinkError, match="meta has"):
        encode(Kind.LOG, 0, {"k": "x" * (MAX_PAYLOAD + 1)})


def test_a_decoder_keeps_no_more_than_a_frame() -> None:
    decoder = Decoder()
    data = b"".join(encode(Kind.CHUNK, 1, None, b"x" * MAX_PAYLOAD))
    for start in range(0, len(data) - 1, 100_000):
        decoder.feed(data[start : min(start + 100_000, len(data) - 1)])
    assert len(decoder._rest) < MAX_PAYLOAD + HEADER.size
    assert len(decoder.feed(data[-1:])) == 1
    assert not decoder.is_within_frame
