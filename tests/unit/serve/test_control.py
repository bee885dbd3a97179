"""The worker's end of its control line: values go out in order, from any thread; what is not taken waits, or is dropped and counted."""

import selectors
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from leyden.serve.control import ORPHANED, ControlLine
from leyden.serve.log_values import unpack
from leyden.serve.wire import Decoder, Frame, Kind, encode

WRITE = selectors.EVENT_WRITE


class Line:
    """A control line, and the supervisor's end of it."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(0)
        self.left = list[int]()
        self.control = ControlLine(theirs, self.left.append)
        self._decoder = Decoder()

    def came(self) -> list[Frame]:
        """Return what has come."""
        frames = list[Frame]()
        try:
            while data := self.ours.recv(1 << 16):
                frames += [msgspec.structs.replace(frame, body=bytes(frame.body)) for frame in self._decoder.feed(data)]
        except BlockingIOError:
            pass
        return frames

    def close(self) -> None:
        self.ours.close()
        self.control.link.close()


@pytest.fixture
def line() -> Iterator[Line]:
    found = Line()
    yield found
    found.close()


def values(frames: list[Frame]) -> list[Any]:
    return [(frame.meta["k"], unpack(frame.body)) for frame in frames if frame.kind is Kind.LOG]


def test_values_go_out_at_once(line: Line) -> None:
    line.control.log("loss", 0.5)
    line.control.log("ü\ud800", [1])
    assert values(line.came()) == [("loss", 0.5), ("ü\\ud800", [1])]


def test_what_the_supervisor_does_not_take_is_sent_when_it_does(line: Line) -> None:
    waits = list[bool]()
    text = "x" * 10_000
    for number in range(60):
        line.control.log("early", [number, text])
    line.control.wait_with(waits.append)
    assert waits == [True], "something waited before anybody watched the socket"
    came = list[Any]()
    while waits[-1]:
        came += values(line.came())
        line.control.hear(WRITE)
    came += values(line.came())
    assert [value[0] for _, value in came] == list(range(60))
    assert waits == [True, False]


def test_what_is_too_much_is_dropped_counted_and_told_once(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(200):
        line.control.log("flood", [number, "x" * 10_000])
    frames = line.came()
    while line.control.link.unsent_bytes:
        line.control.hear(WRITE)
        frames += line.came()
    line.control.log("after", 1)
    line.control.bye()
    frames += line.came()
    kept = len([frame for frame in frames if frame.meta and frame.meta.get("k") == "flood"])
    assert 0 < kept < 200
    assert next(frame.meta["d"] for frame in frames if frame.meta.get("k") == "after") == 200 - kept
    assert frames[-1].kind is Kind.BYE
    assert "d" not in frames[-1].meta
    assert caplog.text.count("values are logged faster than they can be taken away: log('flood', …)") == 1


def test_the_last_word_tells_what_was_dropped(line: Line) -> None:
    for number in range(200):
        line.control.log("flood", [number, "x" * 10_000])
    frames = list[Frame]()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            frames.extend(line.came())
        frames.extend(line.came())

    reader = threading.Thread(target=read)
    reader.start()
    line.control.bye()
    done.set()
    reader.join()
    assert frames[-1].meta["d"] == 200 - len(values(frames))


def test_threads_do_not_disturb_each_other(line: Line) -> None:
    threads = [threading.Thread(target=lambda n=n: [line.control.log(f"t{n}", i) for i in range(300)]) for n in range(4)]
    for thread in threads:
        thread.start()
    came = list[Any]()
    while any(thread.is_alive() for thread in threads) or line.control.link.unsent_bytes:
        came += values(line.came())
        line.control.hear(WRITE)
    came += values(line.came())
    for n in range(4):
        assert [value for key, value in came if key == f"t{n}"] == list(range(300))


def test_what_cannot_be_sent_is_told_once_for_each_key(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        line.control.log("a", object())
        line.control.log("b", {1, object()})
        line.control.log("k" * 2000, 1)
    assert line.came() == []
    assert caplog.text.count("log('a', …) is dropped") == caplog.text.count("log('b', …) is dropped") == 1
    assert caplog.text.count("its name has 2,000 characters") == 1
    for number in range(300):
        line.control.log(f"many-{number}", object())
    assert len(caplog.records) <= 100


def test_drain_and_the_end_are_heard(line: Line) -> None:
    drained = list[int]()
    line.control.on_drain = lambda: drained.append(1)
    line.ours.sendall(b"".join(encode(Kind.DRAIN, 0)))
    line.control.hear()
    assert (line.control.must_drain, drained, line.left) == (True, [1], [])
    line.ours.shutdown(socket.SHUT_WR)
    line.control.hear()
    assert line.left == [ORPHANED]
