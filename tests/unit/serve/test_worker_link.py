"""A link without an event loop: nothing blocks, nothing is lost, and what is cut anywhere arrives whole."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.serve.errors import LinkError
from leyden.serve.wire import LAST_OF_BATCH, Frame, Kind, encode
from leyden.serve.worker_link import WorkerLink

Pair = tuple[WorkerLink, WorkerLink]


@pytest.fixture
def pair() -> Iterator[Pair]:
    links = tuple(WorkerLink(each) for each in socket.socketpair())
    yield links  # type: ignore[misc]
    for link in links:
        link.close()


def all_of(sender: WorkerLink, receiver: WorkerLink, count: int) -> list[Frame]:
    frames: list[Frame] = []
    while len(frames) < count:
        sender.flush()
        frames += receiver.read()
    return frames


def test_frames_are_sent_together_with_the_next_flush(pair: Pair) -> None:
    here, there = pair
    here.send(Kind.REQ, 1, {"r": "a"}, b"one", LAST_OF_BATCH)
    here.send(Kind.CANCEL, 1)
    assert there.read() == []
    here.flush()
    assert there.read() == [Frame(Kind.REQ, 1, LAST_OF_BATCH, {"r": "a"}, b"one"), Frame(Kind.CANCEL, 1, 0, {}, b"")]
    assert here.unsent_bytes == 0


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 300_000, 1_048_576, 5_000_000])
def test_bodies_of_any_size_go_through_a_full_socket(pair: Pair, size: int) -> None:
    here, there = pair
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for stream in (1, 2):
        here.send(Kind.REQ, stream, {"ct": "x"}, body)
    here.flush()
    assert here.unsent_bytes or size < 1_000_000
    frames = all_of(here, there, 2)
    assert [(frame.stream, frame.meta, bytes(frame.body)) for frame in frames] == [(1, {"ct": "x"}, body), (2, {"ct": "x"}, body)]
    assert here.unsent_bytes == 0


def test_more_frames_than_the_kernel_takes_at_once(pair: Pair) -> None:
    here, there = pair
    for stream in range(1, 3001):
        here.send(Kind.CHUNK, stream, None, bytes(100))
    assert [frame.stream for frame in all_of(here, there, 3000)] == list(range(1, 3001))


@given(st.lists(st.tuples(st.integers(1, 5), st.binary(max_size=200)), max_size=20), st.lists(st.integers(1, 300), min_size=1))
def test_what_is_cut_anywhere_arrives_whole(messages: list[tuple[int, bytes]], cuts: list[int]) -> None:
    raw, sock = socket.socketpair()
    link = WorkerLink(sock)
    data = b"".join(b"".join(encode(Kind.CHUNK, stream, {"n": 1}, body)) for stream, body in messages)
    frames: list[Frame] = []
    at = number = 0
    while at < len(data):
        size = cuts[number % len(cuts)]
        raw.sendall(data[at : at + size])
        frames += link.read()
        at, number = at + size, number + 1
    assert [(frame.stream, bytes(frame.body)) for frame in frames] == messages
    raw.close()
    assert link.read() == []
    assert link.is_ended
    link.close()


def test_the_end_comes_after_what_was_sent(pair: Pair) -> None:
    here, there = pair
    here.send(Kind.BYE, 0)
    here.flush_all(1.0)
    here.close()
    assert [frame.kind for frame in there.read()] == [Kind.BYE]
    assert there.read() == []
    assert there.is_ended
    there.send(Kind.BYE, 0)
    there.flush()
    assert there.unsent_bytes == 0


def test_last_words_are_given_up_after_a_while(pair: Pair) -> None:
    here, _ = pair
    here.send(Kind.CHUNK, 1, None, bytes(5_000_000))
    here.flush_all(0.01)
    assert here.unsent_bytes > 0


def test_what_is_no_frame_is_told(pair: Pair) -> None:
    here, there = pair
    here._socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(LinkError):
        there.read()
