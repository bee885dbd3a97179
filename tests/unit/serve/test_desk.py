"""A desk owes every request one answer, whatever front ends do, and takes batches as they were sent."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.serve.answers import Answers
from leyden.serve.desk import Desk, Greeting
from leyden.serve.executors.requests import Reply, Request, Timing
from leyden.serve.faults import Fault
from leyden.serve.wire import LAST_OF_BATCH, Frame, Kind
from leyden.serve.worker_link import WorkerLink

ENDS = (Kind.RES, Kind.END, Kind.ERROR)


class Table:
    """A desk, front ends that are in this thread, and no executor."""

    def __init__(self, max_batch_size: int = 4) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="leyden-d-")
        self._path = str(Path(self._folder.name) / "s")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self._path)
        listener.listen()
        self._listener = listener
        self.desk = Desk(listener, Greeting("w", "", {"api": 0}), max_batch_size)
        self.answers = Answers(self.desk, 100, 0.05)
        self.fronts: list[WorkerLink] = []

    def front(self) -> WorkerLink:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        link = WorkerLink(sock)
        link.send(Kind.HELLO, 0, {"v": 1, "id": "f"})
        link.flush()
        self.desk.look(1)
        self.desk.look(1)
        self.desk.flush()
        assert [frame.kind for frame in link.read()] == [Kind.HELLO, Kind.READY]
        self.fronts.append(link)
        return link

    def say(self, front: WorkerLink, kind: Kind, stream: int, meta: dict[str, object] | None = None, flags: int = LAST_OF_BATCH) -> None:
        front.send(kind, stream, meta, b"1", flags if kind is Kind.REQ else 0)
        front.flush()
        self.desk.look(1)

    def work(self) -> list[list[int]]:
        """Answer everything, and return the sizes and streams of the batches."""
        batches = []
        while batch := self.desk.take():
            self.answers.begin(len(batch))
            batches.append([request.number & 0xFFFFFFFF for request in batch])
            for request in batch:
                self.answers.reply(request, Reply(b"{}"), Timing(0.1, 0.2, 0.3))
        self.desk.settle()
        return batches

    def close(self) -> None:
        for front in self.fronts:
            front.close()
        self.desk.look()
        self._listener.close()
        self._folder.cleanup()


@pytest.fixture
def table() -> Iterator[Table]:
    table = Table()
    yield table
    table.close()


def heard(front: WorkerLink) -> list[Frame]:
    return front.read()


def test_batches_are_taken_in_turns_and_merged_where_they_fit(table: Table) -> None:
    one, two, three = table.front(), table.front(), table.front()
    for stream in (1, 2, 3):
        table.say(one, Kind.REQ, stream, flags=LAST_OF_BATCH if stream == 3 else 0)
    table.say(two, Kind.REQ, 11, flags=0)
    table.say(two, Kind.REQ, 12)
    table.say(three, Kind.REQ, 21)
    assert table.work() == [[1, 2, 3, 21], [11, 12]]
    assert [frame.meta for frame in heard(one)] == [{}] * 3
    assert heard(three)[0].meta == {"b": 4, "us": [100000, 200000, 300000]}
    assert [frame.meta.get("b") for frame in heard(two)] == [None, 2]


def test_a_batch_that_is_too_large_is_taken_in_parts(table: Table) -> None:
    front = table.front()
    for stream in range(1, 8):
        table.say(front, Kind.REQ, stream, flags=LAST_OF_BATCH if stream == 7 else 0)
    assert table.desk.has_waiting
    assert table.work() == [[1, 2, 3, 4], [5, 6, 7]]
    assert not table.desk.has_waiting


def test_what_was_cancelled_is_left_out_of_its_batch(table: Table) -> None:
    front = table.front()
    for stream in (1, 2, 3):
        table.say(front, Kind.REQ, stream, flags=LAST_OF_BATCH if stream == 3 else 0)
    table.say(front, Kind.CANCEL, 2)
    table.say(front, Kind.CANCEL, 3)
    assert table.work() == [[1]]
    frames = heard(front)
    assert [(frame.kind, frame.stream) for frame in frames] == [(Kind.ERROR, 2), (Kind.ERROR, 3), (Kind.RES, 1)]
    assert frames[-1].meta["b"] == 1


def test_windows_are_counted_and_a_bad_one_ends_the_link(table: Table) -> None:
    front = table.front()
    table.say(front, Kind.REQ, 1)
    (request,) = table.desk.take()
    read: list[int] = []
    request.on_read = lambda: read.append(request.unread_bytes)
    table.answers.chunk(request, bytes(150), "text/plain")
    assert not table.answers.has_room(request)
    table.say(front, Kind.WINDOW, 1, {"n": 60})
    assert table.answers.has_room(request)
    table.say(front, Kind.WINDOW, 1, {"n": 1000})
    assert read == [90, 0]
    table.say(front, Kind.WINDOW, 1, {"n": -1})
    assert request.is_cancelled()
    with pytest.raises(Fault, match="Nobody waits"):
        table.answers.chunk(request, b"", "text/plain")


def test_answers_that_no_frame_can_hold_become_errors(table: Table) -> None:
    front = table.front()
    table.say(front, Kind.REQ, 1)
    (request,) = table.desk.take()
    table.answers.reply(request, Reply(b"{}", headers=(("x", "y" * 600_000),)), Timing())
    table.say(front, Kind.REQ, 2)
    (request,) = table.desk.take()
    table.answers.fault(request, Fault(404, "x", "no", detail={1: object()}, headers={"a": "b"}))
    table.desk.flush()
    first, second = heard(front)
    assert first.meta["s"] == 500
    assert first.meta["m"].startswith("The answer cannot be sent: The meta of RES is ")
    assert (second.meta["s"], second.meta["h"]) == (404, [["a", "b"]])
    assert bytes(second.body).startswith(b'"{1: <object')


def test_an_error_that_is_nothing_but_its_detail_has_no_code(table: Table) -> None:
    front = table.front()
    table.say(front, Kind.REQ, 1)
    (request,) = table.desk.take()
    fault = Fault(403, "request.refused", "no entry", detail=["no entry"])
    fault.is_bare = True
    table.answers.fault(request, fault)
    table.desk.flush()
    (frame,) = heard(front)
    assert frame.meta == {"s": 403}
    assert bytes(frame.body) == b'["no entry"]'


class Story:
    """Three front ends that do what they like, and what each is owed."""

    def __init__(self) -> None:
        self.table = Table()
        self.fronts = [self.table.front() for _ in range(3)]
        self.asked: list[list[int]] = [[], [], []]
        self.taken: list[Request] = []

    def ask(self, number: int, meta: dict[str, object] | None = None, flags: int = LAST_OF_BATCH) -> None:
        self.asked[number].append(len(self.asked[number]) + 1)
        self.table.say(self.fronts[number], Kind.REQ, self.asked[number][-1], meta, flags)

    def ask_more(self, number: int) -> None:
        self.ask(number, flags=0)

    def ask_late(self, number: int) -> None:
        self.ask(number, {"q": 0})

    def cancel(self, number: int) -> None:
        if self.asked[number]:
            self.table.say(self.fronts[number], Kind.CANCEL, self.asked[number][len(self.asked[number]) // 2])

    def work(self, _: int) -> None:
        self.table.work()

    def take(self, _: int) -> None:
        self.taken += self.table.desk.take()

    def answer(self, _: int) -> None:
        if self.taken:
            self.table.answers.fault(self.taken.pop(0), Fault(500, "x", "x"))

    def leave(self, number: int) -> None:
        self.fronts[number].close()
        self.table.desk.look(1)

    def end(self) -> None:
        """Close all batches, and answer what is left."""
        for request in self.taken:
            self.table.answers.end(request, Timing())
        for number in self.there:
            self.ask(number)
        self.table.work()

    @property
    def there(self) -> list[int]:
        return [number for number, front in enumerate(self.fronts) if not front.is_ended]


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask_more", "ask_late", "cancel", "work", "take", "answer", "leave"]), st.integers(0, 2))
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_every_request_is_answered_once(steps: list[tuple[str, int]]) -> None:
    story = Story()
    for step, number in steps:
        if number in story.there:
            getattr(story, step)(number)
    story.end()
    for number in story.there:
        frames = heard(story.fronts[number])
        assert all(frame.kind in ENDS for frame in frames)
        assert sorted(frame.stream for frame in frames) == story.asked[number]
    assert not story.table.desk._requests
    story.table.close()
