"""A worker as front ends and its supervisor see it: a real process, and frames over real sockets."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden.serve.callbacks.callback import Callback
from leyden.serve.control import ORPHANED, SETUP_FAILED
from leyden.serve.loops import ContinuousBatchingLoop
from leyden.serve.wire import HEADER, Kind
from tests.support.frame_client import FrameClient, RunningWorker, running_worker, starting_worker
from tests.support.processes import running_script
from tests.support.serve_apis import AsyncEcho, AsyncStream, Batch, Broken, Echo, Stream, Tokens


def value(frame: Any) -> Any:
    assert frame.kind is Kind.RES, frame
    return json.loads(bytes(frame.body))


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


@pytest.fixture(scope="module")
def streams() -> Iterator[RunningWorker]:
    with running_worker(Stream(stream=True, max_stream_buffer_bytes=1000), logs=True, stall_seconds=0.2) as worker:
        yield worker


# -- one request after another ------------------------------------------------------------------------------------


def test_a_worker_greets_and_answers(front: FrameClient) -> None:
    assert front.hello == {"v": 1, "role": "worker", "id": "w0"}
    assert front.ready == {"api": 0, "mb": 1, "stream": False, "conc": 1}
    front.ask(1, {"input": 4.0})
    answer = front.answer(1)
    assert value(answer) == {"output": 16.0}
    assert answer.meta["b"] == 1
    assert len(answer.meta["us"]) == 3
    assert answer.meta.keys() == {"b", "us"}


def test_many_requests_are_answered_in_their_order(front: FrameClient) -> None:
    for stream in range(1, 201):
        front.ask(stream, {"input": stream})
    answers = front.answers(200)
    assert list(answers) == list(range(1, 201))
    assert all(value(answers[stream]) == {"output": stream**2} for stream in answers)


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
    assert value(front.answer(1)) == {"output": text}


def test_a_front_end_that_does_not_read_holds_up_nobody_else(echo: RunningWorker, front: FrameClient) -> None:
    deaf = echo.connect()
    for stream in range(1, 5):
        deaf.ask(stream, {"input": "x" * 3_000_000})
    front.ask(1, {"input": 3})
    assert value(front.answer(1)) == {"output": 9}
    assert deaf.answers(4).keys() == {1, 2, 3, 4}
    deaf.close()


def test_values_for_loggers_go_over_the_control_line(echo: RunningWorker, front: FrameClient) -> None:
    front.ask(1, {"input": "log"})
    assert value(front.answer(1)) == {"output": "log"}
    assert echo.logged() == ("size", {"n": 3})


# -- cancelled and expired ----------------------------------------------------------------------------------------


def test_a_running_request_learns_that_nobody_waits(front: FrameClient) -> None:
    front.ask(1, {"input": "wait"})
    front.wait_until_read()
    front.send(Kind.CANCEL, 1, {"why": "disconnect"})
    assert value(front.answer(1)) == {"output": "woken"}


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
    assert value(front.answer(3)) == {"output": 4}


def test_a_deadline_ends_a_request_that_asks(front: FrameClient) -> None:
    front.ask(1, {"input": "wait"}, d=20)
    assert value(front.answer(1)) == {"output": "woken"}


def test_a_front_end_that_goes_away_takes_its_requests_along(echo: RunningWorker, front: FrameClient) -> None:
    gone = echo.connect()
    gone.ask(1, {"input": "wait"})
    gone.ask(2, {"input": "exit"})
    gone.wait_until_read()
    gone.close()
    front.ask(1, {"input": 5})
    assert value(front.answer(1)) == {"output": 25}


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
    assert value(front.answer(1)) == {"output": 4}


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


# -- batches ------------------------------------------------------------------------------------------------------


def test_one_bad_item_does_not_take_its_batch_along(batches: RunningWorker) -> None:
    client = batches.connect()
    client.ask_all({1: {"input": 2}, 2: {"x": 1}, 3: {"input": 3}})
    answers = client.answers(3)
    assert answers[2].meta["s"] == 422
    assert [value(answers[stream]) for stream in (1, 3)] == [{"output": 4, "size": 2}, {"output": 9, "size": 2}]
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
    assert [value(frame) for frame in one.answers(2).values()] == [{"output": 4, "size": 4}, {"output": 9, "size": 4}]
    answers = two.answers(4)
    assert [value(answers[stream])["size"] for stream in (1, 2, 3, 4)] == [4, 4, 2, 2]
    assert (answers[2].meta["b"], answers[4].meta["b"]) == (4, 2)
    one.close()
    two.close()


def test_a_batch_that_is_not_complete_is_not_begun(batches: RunningWorker) -> None:
    client = batches.connect()
    client.ask(1, {"input": 2}, is_last=False)
    client.wait_until_read()
    client.ask(2, {"input": 3})
    assert [value(frame)["size"] for frame in client.answers(2).values()] == [2, 2]
    client.close()


# -- streams ------------------------------------------------------------------------------------------------------


def test_a_stream_comes_in_pieces(streams: RunningWorker) -> None:
    client = streams.connect()
    client.ask(1, {"count": 3, "size": 5})
    chunks = [client.expect(Kind.CHUNK) for _ in range(3)]
    assert [chunk.meta for chunk in chunks] == [{"ct": "application/octet-stream"}, {}, {}]
    assert b"".join(bytes(chunk.body) for chunk in chunks) == bytes(15)
    end = client.expect(Kind.END)
    assert end.meta["b"] == 1
    assert streams.logged() == ("closed", True)
    client.close()


def test_a_stream_waits_for_its_client(streams: RunningWorker) -> None:
    client = streams.connect()
    client.ask(1, {"count": 6, "size": 600})
    for _ in range(2):
        client.expect(Kind.CHUNK)
    client.wait_until_read()  # nothing comes before PONG
    for _ in range(2):
        client.send(Kind.WINDOW, 1, {"n": 1200})
        client.expect(Kind.CHUNK)
        client.expect(Kind.CHUNK)
    client.expect(Kind.END)
    assert streams.logged() == ("closed", True)
    client.close()


def test_a_client_that_does_not_read_ends_its_stream(streams: RunningWorker) -> None:
    client = streams.connect()
    client.ask(1, {"count": 6, "size": 600})
    assert client.answer(1).meta["c"] == "stream.stalled"
    assert streams.logged() == ("closed", True)
    client.close()


def test_a_stream_is_cancelled_while_it_waits_and_while_it_runs(streams: RunningWorker) -> None:
    client = streams.connect()
    client.ask(1, {"count": 6, "size": 600})
    client.expect(Kind.CHUNK)
    client.send(Kind.CANCEL, 1)
    assert client.answer(1).meta["c"] == "request.cancelled"
    client.ask(2, {"count": 10**9, "size": 0})
    client.expect(Kind.CHUNK)
    client.send(Kind.CANCEL, 2)
    assert client.answer(2).meta["c"] == "request.cancelled"
    assert [streams.logged(), streams.logged()] == [("closed", True)] * 2
    client.close()
    client = streams.connect()
    client.ask(1, {"count": 10**9, "size": 0})
    client.expect(Kind.CHUNK)
    client.close()
    assert streams.logged() == ("closed", True)


# -- async --------------------------------------------------------------------------------------------------------


def test_async_requests_run_side_by_side_and_are_cancelled() -> None:
    with running_worker(AsyncEcho(enable_async=True, concurrency=2), logs=True) as worker:
        client = worker.connect()
        assert client.ready["conc"] == 2
        client.ask(1, {"input": "wait"})
        client.ask(2, {"input": "wait"})
        client.ask(3, {"input": 3})
        client.wait_until_read()
        client.send(Kind.CANCEL, 2)
        answers = client.answers(2)
        assert answers[2].meta["c"] == "request.cancelled"
        assert value(answers[3]) == {"output": 3}
        assert worker.logged() == ("cancelled", True)
        client.ask(4, {"input": "wake"})
        assert [value(frame)["output"] for frame in client.answers(2).values()] == ["wake", "wait"]
        client.ask(5, {"input": "wait"})
        assert value(client.answer(5)) == {"output": "wait"}
        leave(worker, client)


def test_async_streams_wait_for_their_clients_and_are_cancelled() -> None:
    with running_worker(AsyncStream(enable_async=True, stream=True, max_stream_buffer_bytes=10), logs=True, stall_seconds=0.2) as worker:
        client = worker.connect()
        client.ask(1, {"count": 3})
        assert b"".join(bytes(client.expect(Kind.CHUNK).body) for _ in range(3)) == b"0 1 2 "
        client.expect(Kind.END)
        client.ask(2, {"count": None})
        for _ in range(5):
            client.expect(Kind.CHUNK)
        client.send(Kind.WINDOW, 2, {"n": 10})
        client.expect(Kind.CHUNK)
        client.send(Kind.CANCEL, 2)
        assert client.answer(2).meta["c"] == "request.cancelled"
        client.ask(3, {"count": None})
        assert client.answer(3).meta["c"] == "stream.stalled"
        assert [worker.logged() for _ in range(3)] == [("closed", True)] * 3


# -- continuous batching ------------------------------------------------------------------------------------------


def test_requests_join_and_leave_a_computation() -> None:
    with running_worker(Tokens(loop=ContinuousBatchingLoop(), stream=True), logs=True) as worker:
        client = worker.connect()
        for stream, count in ((1, 2), (2, 3), (3, 1)):
            client.ask(stream, {"input": count})
        pieces: dict[int, bytes] = {}
        ended = []
        while len(ended) < 3:
            frame = client.expect(Kind.CHUNK, Kind.END)
            if frame.kind is Kind.END:
                ended.append(frame.stream)
            pieces[frame.stream] = pieces.get(frame.stream, b"") + bytes(frame.body)
        assert pieces == {1: b"2 1 ", 2: b"3 2 1 ", 3: b"1 "}
        client.ask(4, {"input": 10**9})
        client.expect(Kind.CHUNK)
        client.send(Kind.CANCEL, 4)
        assert client.answer(4).meta["c"] == "request.cancelled"
        assert worker.logged() == ("dropped", True)
        client.ask(5, {"input": -1})
        assert client.answer(5).meta["m"] == "step() raised ValueError: no such token"
        assert worker.logged() == ("dropped", True)
        client.ask(6, {"input": 1})
        assert client.answer(6).kind is Kind.END
        leave(worker, client)


# -- life and death -----------------------------------------------------------------------------------------------


def leave(worker: RunningWorker, client: FrameClient) -> None:
    worker.control.send(Kind.DRAIN)
    client.expect(Kind.DRAIN)
    client.send(Kind.DRAIN)
    client.expect(Kind.BYE)
    assert client.receive() is None
    worker.control.expect(Kind.BYE)
    assert worker.wait() == 0
    assert not Path(worker.address).exists()


def test_a_worker_that_drains_finishes_what_it_has() -> None:
    with running_worker(Echo(), token="t") as worker:
        client, silent = worker.connect(token="t"), worker.connect(token="t")
        wrong = worker.connect(token="u", greets=False)
        wrong.send(Kind.HELLO, meta={"v": 1, "token": "u"})
        assert wrong.receive() is None
        client.ask(1, {"input": "wait"})
        client.ask(2, {"input": 2})
        client.wait_until_read()
        worker.control.send(Kind.DRAIN)
        client.expect(Kind.DRAIN)
        client.ask(3, {"input": 3})  # on its way when DRAIN came
        client.send(Kind.DRAIN)
        client.send(Kind.CANCEL, 1)
        assert list(client.answers(3)) == [1, 2, 3]
        client.expect(Kind.BYE)
        silent.expect(Kind.DRAIN)  # never answers it
        silent.expect(Kind.BYE)
        worker.control.expect(Kind.BYE)
        assert worker.wait() == 0


def test_a_front_end_that_leaves_gets_its_answers_first(echo: RunningWorker) -> None:
    client = echo.connect()
    client.ask(1, {"input": 3})
    client.send(Kind.DRAIN)
    assert value(client.answer(1)) == {"output": 9}
    client.expect(Kind.BYE)
    assert client.receive() is None


def test_a_setup_that_raises_is_told_with_its_traceback() -> None:
    with starting_worker(Broken()) as worker:
        state = worker.control.expect(Kind.STATE)
        assert state.meta == {"state": "failed", "message": "setup() raised OSError: no weights"}
        assert 'raise OSError("no weights")' in bytes(state.body).decode()
        assert worker.control.receive() is None
        assert worker.wait() == SETUP_FAILED


def test_an_api_that_cannot_be_loaded_is_told() -> None:
    api = Echo()
    api.__class__ = type("Gone", (Echo,), {"__module__": "no.such.module", "__reduce__": lambda self: (_load, ())})
    with starting_worker(api) as worker:
        state = worker.control.expect(Kind.STATE)
        assert state.meta["message"] == "Loading the API raised ImportError: no such module"
        assert worker.wait() == SETUP_FAILED


def _load() -> None:
    raise ImportError("no such module")


def test_a_worker_that_is_told_to_drain_while_it_is_set_up_leaves_after_that() -> None:
    with starting_worker(Echo()) as worker:
        worker.control.send(Kind.DRAIN)
        assert worker.control.expect(Kind.STATE).meta["state"] == "ready"
        worker.control.expect(Kind.BYE)
        assert worker.wait() == 0


def test_the_end_of_the_control_line_ends_a_worker() -> None:
    with running_worker(Echo(), dies_with_parent=False) as worker:
        client = worker.connect()
        client.ask(1, {"input": "wait"})
        client.wait_until_read()
        worker.control.close()
        assert client.receive() is None
        assert worker.wait() == ORPHANED


def test_a_worker_that_dies_ends_its_links() -> None:
    with running_worker(Echo()) as worker:
        client = worker.connect()
        client.ask(1, {"input": "exit"})
        assert client.receive() is None
        assert worker.wait() == 9


class Noted(Callback):
    """Tells what it was told; fails once."""

    def on_after_setup(self, *args: Any, **kwargs: Any) -> None:
        kwargs["lit_api"].log("after_setup", kwargs["lit_api"].device)
        raise ValueError("a callback harms nobody")

    def on_after_predict(self, *args: Any, **kwargs: Any) -> None:
        kwargs["lit_api"].log("after_predict", 1)


def test_callbacks_are_told_in_the_worker() -> None:
    with starting_worker(Batch(max_batch_size=4), [Noted()], logs=True, device=["cpu"]) as worker:
        assert worker.logged() == ("after_setup", ["cpu"])
        assert worker.control.expect(Kind.STATE).meta["state"] == "ready"
        client = worker.connect()
        client.ask_all({1: {"input": 1}, 2: {"input": 2}})
        client.answers(2)
        assert worker.logged() == ("after_predict", 1)
        client.ask(3, {"input": 1})
        client.answer(3)
        assert worker.logged() == ("after_predict", 1)


PARENT = """
from tests.support.frame_client import running_worker
from tests.support.serve_apis import Slow

if __name__ == "__main__":
    with running_worker(Slow()) as worker:
        client = worker.connect()
        client.ask(1, {})
        client.receive()
"""


def test_a_worker_ends_with_its_parent_even_while_it_computes() -> None:
    with running_script(PARENT, env={"PYTHONPATH": os.pathsep.join(sys.path)}) as script:
        script.wait_for_output("computing", timeout=20)
        script.send(9)
        assert script.wait_until_gone() < 1
