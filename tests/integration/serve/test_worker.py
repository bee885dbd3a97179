"""A worker as front ends and its supervisor see it: a real process, and frames over real sockets."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.serve.wire import HEADER, Kind
from tests.support.frame_client import FrameClient, RunningWorker, running_worker, value_of
from tests.support.serve_apis import Batch, Echo, SlowEncode


@pytest.fixture(scope="module")
def echo() -> Iterator[RunningWorker]:
    with running_worker(Echo(), logs=True) as worker:
        yield worker


@pytest.fixture
def front(echo: RunningWorker) -> Iterator[FrameClient]:
    client = echo.connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def batches() -> Iterator[RunningWorker]:
    with running_worker(Batch(max_batch_size=4)) as worker:
        yield worker


# -- one request after another ------------------------------------------------------------------------------------


def test_a_worker_greets_and_answers(front: FrameClient) -> None:
    assert front.hello == {"v": 1, "role": "worker", "id": "w0"}
    assert front.ready == {"api": 0, "mb": 1, "stream": False, "conc": 1}
    front.ask(1, {"input": 4.0})
    answer = front.answer(1)
    assert value_of(answer) == {"output": 16.0}
    assert answer.meta["b"] == 1
    assert len(answer.meta["us"]) == 3
    assert answer.meta.keys() == {"b", "us"}


def test_many_requests_are_answered_in_their_order(front: FrameClient) -> None:
    for stream in range(1, 201):
        front.ask(stream, {"input": stream})
    answers = front.answers(200)
    assert list(answers) == list(range(1, 201))
    assert all(value_of(answers[stream]) == {"output": stream**2} for stream in answers)


def test_what_a_client_did_wrong_is_told(front: FrameClient) -> None:
    front.ask(1, b"{")
    assert front.answer(1).meta["s"] == 400
    front.ask(2, {"x": 1})
    answer = front.answer(2)
    assert (answer.kind, answer.meta["s"], answer.meta["c"]) == (Kind.ERROR, 422, "request.invalid")
    assert answer.meta["m"] == "decode_request() raised KeyError: 'input'; the payload has keys ['x']"
    assert json.loads(bytes(answer.body)) == answer.meta["m"]
    front.ask(3, {"input": 1}, ct="image/png")
    assert front.answer(3).meta["s"] == 415


def test_large_bodies_come_and_go(front: FrameClient) -> None:
    text = "x" * 5_000_000
    front.ask(1, {"input": text})
    assert value_of(front.answer(1)) == {"output": text}


def test_a_front_end_that_does_not_read_holds_up_nobody_else(echo: RunningWorker, front: FrameClient) -> None:
    deaf = echo.connect()
    for stream in range(1, 5):
        deaf.ask(stream, {"input": "x" * 3_000_000})
    front.ask(1, {"input": 3})
    assert value_of(front.answer(1)) == {"output": 9}
    assert deaf.answers(4).keys() == {1, 2, 3, 4}
    deaf.close()


def test_values_for_loggers_go_over_the_control_line(echo: RunningWorker, front: FrameClient) -> None:
    front.ask(1, {"input": "log"})
    assert value_of(front.answer(1)) == {"output": "log"}
    assert echo.logged() == ("size", {"n": 3})


# -- cancelled and expired ----------------------------------------------------------------------------------------


def test_a_running_request_learns_that_nobody_waits(front: FrameClient) -> None:
    front.ask(1, {"input": "wait"})
    front.wait_until_read()
    front.send(Kind.CANCEL, 1, {"why": "disconnect"})
    assert value_of(front.answer(1)) == {"output": "woken"}


def test_what_waits_in_a_worker_can_be_cancelled_and_is_answered_at_once(front: FrameClient) -> None:
    front.ask(1, {"input": "wait"})
    front.ask(2, {"input": "exit"})
    front.ask(3, {"input": 3})
    front.send(Kind.CANCEL, 2, {"why": "disconnect"})
    assert front.answer(2).meta["c"] == "request.cancelled"
    front.send(Kind.CANCEL, 1)
    front.send(Kind.CANCEL, 77)
    assert list(front.answers(2)) == [1, 3]


def test_what_is_too_late_is_never_computed(front: FrameClient) -> None:
    front.ask(1, {"input": "exit"}, q=0)
    assert (front.answer(1).meta["s"], front.wait_until_read()) == (504, None)
    front.ask(2, {"input": "exit"}, d=0)
    assert front.answer(2).meta["c"] == "deadline.exceeded"
    front.ask(3, {"input": 2}, q=60_000, d=60_000)
    assert value_of(front.answer(3)) == {"output": 4}


def test_a_deadline_ends_a_request_that_asks(front: FrameClient) -> None:
    front.ask(1, {"input": "wait"}, d=20)
    found = front.answer(1)
    assert (found.kind, found.meta["s"], found.meta["c"]) == (Kind.ERROR, 504, "deadline.exceeded"), "what it returned is too late"


def test_a_front_end_that_goes_away_takes_its_requests_along(echo: RunningWorker, front: FrameClient) -> None:
    gone = echo.connect()
    gone.ask(1, {"input": "wait"})
    gone.ask(2, {"input": "exit"})
    gone.wait_until_read()
    gone.close()
    front.ask(1, {"input": 5})
    assert value_of(front.answer(1)) == {"output": 25}


# -- links --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        HEADER.pack(2**30, 1, 0, 3, 0, 0),
        HEADER.pack(0, 1, 0, 99, 0, 0),
        HEADER.pack(0, 1, 0, 3, 128, 0),
        HEADER.pack(0, 1, 4, 3, 0, 0),
        HEADER.pack(0, 0, 0, 3, 2, 0),
        HEADER.pack(0, 1, 0, int(Kind.RES), 0, 0),
        HEADER.pack(3, 1, 3, int(Kind.WINDOW), 0, 0) + b"\x81\xa0\xc0",
        HEADER.pack(4, 1, 4, int(Kind.REQ), 2, 0) + b"\x81\xa1d\xa0",
    ],
)
def test_what_cannot_be_understood_ends_its_link_alone(echo: RunningWorker, front: FrameClient, data: bytes) -> None:
    broken = echo.connect()
    broken.socket.sendall(data)
    assert broken.receive() is None
    front.ask(1, {"input": 2})
    assert value_of(front.answer(1)) == {"output": 4}


def test_a_number_in_use_ends_the_link(echo: RunningWorker) -> None:
    client = echo.connect()
    client.ask(1, {"input": "wait"})
    client.ask(1, {"input": 1})
    assert client.receive() is None


def test_a_greeting_is_due_and_its_version_and_token_are_looked_at(echo: RunningWorker) -> None:
    early = echo.connect(greets=False)
    early.ask(1, {"input": 1})
    assert early.receive() is None
    old = echo.connect(greets=False)
    old.send(Kind.HELLO, meta={"v": 0})
    assert old.expect(Kind.ERROR).meta["c"] == "link.version"
    assert old.receive() is None


def test_a_front_end_that_leaves_gets_its_answers_first(echo: RunningWorker) -> None:
    client = echo.connect()
    client.ask(1, {"input": 3})
    client.send(Kind.DRAIN)
    assert value_of(client.answer(1)) == {"output": 9}
    client.expect(Kind.BYE)
    assert client.receive() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_takes_no_notice_of_what_comes_to_its_whole_group(echo: RunningWorker, front: FrameClient, number: int) -> None:
    assert echo.process.pid is not None
    os.kill(echo.process.pid, number)
    front.ask(1, {"input": 1})
    assert value_of(front.answer(1)) == {"output": 1}


# -- batches ------------------------------------------------------------------------------------------------------


def test_one_bad_item_does_not_take_its_batch_along(batches: RunningWorker) -> None:
    client = batches.connect()
    client.ask_all({1: {"input": 2}, 2: {"x": 1}, 3: {"input": 3}})
    answers = client.answers(3)
    assert answers[2].meta["s"] == 422
    assert [value_of(answers[stream]) for stream in (1, 3)] == [{"output": 4, "size": 2}, {"output": 9, "size": 2}]
    assert answers[3].meta["b"] == 3
    assert "b" not in answers[1].meta
    client.close()


def test_batches_of_several_front_ends_are_merged(batches: RunningWorker) -> None:
    one, two = batches.connect(), batches.connect()
    one.ask(1, {"input": "wait"})
    one.wait_until_read()  # and begun: the worker says so when it looks next
    one.ask_all({2: {"input": 2}, 3: {"input": 3}})
    two.ask_all({1: {"input": 4}, 2: {"input": 5}})
    two.ask_all({3: {"input": 6}, 4: {"input": 7}})
    two.wait_until_read()
    one.send(Kind.CANCEL, 1)
    assert one.answer(1).kind is Kind.RES
    assert [value_of(frame) for frame in one.answers(2).values()] == [{"output": 4, "size": 4}, {"output": 9, "size": 4}]
    answers = two.answers(4)
    assert [value_of(answers[stream])["size"] for stream in (1, 2, 3, 4)] == [4, 4, 2, 2]
    assert (answers[2].meta["b"], answers[4].meta["b"]) == (4, 2)
    one.close()
    two.close()


def test_a_batch_that_is_not_complete_is_not_begun(batches: RunningWorker) -> None:
    client = batches.connect()
    client.ask(1, {"input": 2}, is_last=False)
    client.wait_until_read()
    client.ask(2, {"input": 3})
    assert [value_of(frame)["size"] for frame in client.answers(2).values()] == [2, 2]
    client.close()


def test_answers_do_not_wait_until_the_rest_of_their_batch_is_written(tmp_path: Path) -> None:
    with running_worker(SlowEncode(str(tmp_path / "go"), max_batch_size=4)) as worker:
        client = worker.connect()
        client.ask_all({1: "first", 2: "last"})
        assert value_of(client.answer(1)) == "first"
        (tmp_path / "go").touch()
        assert value_of(client.answer(2)) == "last"
