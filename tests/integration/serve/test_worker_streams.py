"""Streams, async hooks and continuous batching in a real worker: windows, clients that leave, many requests at once."""

from collections.abc import Iterator

import pytest

from leyden.serve import LitServer
from leyden.serve.effects import WorkerId
from leyden.serve.loops import ContinuousBatchingLoop
from leyden.serve.wire import Kind
from tests.support.frame_client import RunningWorker, running_worker, value_of
from tests.support.fronts import serving
from tests.support.serve_apis import AsyncEcho, AsyncStream, Stream, Tokens


@pytest.fixture(scope="module")
def streams() -> Iterator[RunningWorker]:
    with running_worker(Stream(stream=True, max_stream_buffer_bytes=1000), logs=True, stall_seconds=0.2) as worker:
        yield worker


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


def test_a_deadline_ends_a_stream(streams: RunningWorker) -> None:
    client = streams.connect()
    client.ask(1, {"count": 10**9, "size": 0}, d=20)
    assert client.answer(1).meta["c"] == "deadline.exceeded", "not cancelled: the front end may not know yet"
    assert streams.logged() == ("closed", True)
    client.close()


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
        assert value_of(answers[3]) == {"output": 3}
        assert worker.logged() == ("cancelled", True)
        client.ask(4, {"input": "wake"})
        assert [value_of(frame)["output"] for frame in client.answers(2).values()] == ["wake", "wait"]
        client.ask(5, {"input": "wait"})
        assert value_of(client.answer(5)) == {"output": "wait"}
        worker.leave(client)


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


def test_a_request_joins_those_of_a_full_server() -> None:
    api = Tokens(loop=ContinuousBatchingLoop(), stream=True, max_batch_size=2)
    with serving(LitServer(api, accelerator="cpu").config) as front, running_worker(api, logs=True) as worker:
        front.call(lambda: front.front.add_worker(WorkerId(0, 0), f"unix:{worker.address}"))
        with front.client() as first:
            first.ask(b'{"input": 1000000000}')
            begun = first.begin()
            assert begun.read(2) == b"10"
            for _ in range(3):  # none of them waits for a batch of two
                assert front.post({"input": 3}).body == b"3 2 1 "


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
        worker.leave(client)
