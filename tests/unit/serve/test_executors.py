"""Executors: every request of a batch is answered once, in order, and what is wrong with one is nobody else's trouble."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.background import BackgroundTask
from starlette.responses import Response

from leyden.serve.api import LitAPI
from leyden.serve.executors.batched import BatchedExecutor
from leyden.serve.executors.batched_streaming import BatchedStreamingExecutor
from leyden.serve.executors.executor import Executor, reply_of
from leyden.serve.executors.requests import Reply, Request
from leyden.serve.executors.single import SingleExecutor
from leyden.serve.executors.streaming import StreamingExecutor
from tests.support.heard import Heard


def requests(*bodies: Any, gone: frozenset[int] = frozenset()) -> list[Request]:
    made = [Request(number, json.dumps(body).encode(), facts={"r": f"r-{number}"}) for number, body in enumerate(bodies)]
    for number in gone:
        made[number].cancel()
    return made


def done(kind: type[Executor], api: LitAPI, *bodies: Any, **options: Any) -> Heard:
    heard = Heard()
    kind(api, api.check()).run(requests(*bodies, **options), heard)
    assert sorted(heard.ended) == list(range(len(bodies)))
    return heard


class Square(LitAPI):
    def decode_request(self, request: Any) -> Any:
        return float(request["input"])

    def predict(self, x: Any) -> Any:
        if x is not None and np.any(np.asarray(x) == 13):
            raise ValueError("unlucky")
        return np.asarray(x) ** 2

    def encode_response(self, output: Any) -> Any:
        if output == 49:
            raise RuntimeError("no sevens")
        return {"output": float(output)}


@pytest.mark.parametrize("kind", [SingleExecutor, BatchedExecutor])
def test_each_request_has_its_own_answer(kind: type[Executor]) -> None:
    heard = done(kind, Square(), {"input": 2}, {"x": 1}, {"input": "a"}, {"input": 7}, {"input": 3}, gone=frozenset({4}))
    assert heard.replies == {0: Reply(b'{"output":4.0}')}
    assert {number: fault.status for number, fault in heard.faults.items()} == {1: 422, 2: 422, 3: 500, 4: 499}
    assert heard.faults[1].message == "decode_request() raised KeyError: 'input'; the payload has keys ['x']"
    assert heard.faults[3].message == "encode_response() raised RuntimeError: no sevens"


def test_a_batch_that_cannot_be_computed_fails_together_and_one_alone_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "leyden.serve"):
        heard = done(BatchedExecutor, Square(), {"input": 1}, {"input": 13})
    assert {fault.message for fault in heard.faults.values()} == {"predict() raised ValueError: unlucky"}
    assert "r-0: predict() failed" in caplog.text
    assert "Traceback" in caplog.text
    heard = done(SingleExecutor, Square(), {"input": 1}, {"input": 13})
    assert list(heard.replies) == [0]
    assert list(heard.faults) == [1]


class Wrong(Square):
    def unbatch(self, output: Any) -> Any:
        return [output[0]]


def test_outputs_that_are_not_as_many_as_requests() -> None:
    heard = done(BatchedExecutor, Wrong(max_batch_size=4), {"input": 1}, {"input": 2})
    assert {(fault.status, fault.detail) for fault in heard.faults.values()} == {(500, "Batch size mismatch")}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_batches_and_single_requests_give_the_same(numbers: list[int]) -> None:
    bodies = [{"input": number} for number in numbers if number not in (13, 7)]
    if bodies:
        assert done(SingleExecutor, Square(), *bodies).replies == done(BatchedExecutor, Square(), *bodies).replies


class Contextual(LitAPI):
    def decode_request(self, request: Any, context: Any) -> Any:
        context["twice"] = 2 * request
        return request

    def predict(self, x: Any, context: Any) -> Any:
        return [each["twice"] for each in context] if isinstance(context, list) else context["twice"]

    def encode_response(self, output: Any, context: Any) -> Any:
        return {"id": context.request_id, "output": output}


@pytest.mark.parametrize("kind", [SingleExecutor, BatchedExecutor])
def test_contexts_are_each_requests_own(kind: type[Executor]) -> None:
    heard = done(kind, Contextual(), 1, 2, 3)
    assert [json.loads(heard.replies[number].body) for number in range(3)] == [{"id": f"r-{n}", "output": 2 * (n + 1)} for n in range(3)]


class Answers(LitAPI):
    def predict(self, x: Any) -> Any:
        from starlette.responses import Response

        return Response("teapot", status_code=418, media_type="text/plain", headers={"X-Kind": "pot"}) if x else b"raw"


def test_a_response_keeps_its_status_headers_and_body() -> None:
    heard = done(SingleExecutor, Answers(), 1, 0)
    assert heard.replies[0] == Reply(b"teapot", "text/plain; charset=utf-8", 418, (("x-kind", "pot"),))
    assert heard.replies[1] == Reply(b"raw", "application/octet-stream")


# -- streams ------------------------------------------------------------------------------------------------------


def test_a_background_task_that_nobody_runs_is_told() -> None:
    with pytest.warns(UserWarning, match="A response's background task is not run"):
        assert reply_of(Response("a", background=BackgroundTask(print))).body == b"a"


class Counting(LitAPI):
    closed = 0

    def predict(self, x: Any) -> Iterator[Any]:
        try:
            for number in range(x):
                if number == 5:
                    raise ValueError("too far")
                yield number
        finally:
            Counting.closed += 1


class Lines(Counting):
    def encode_response(self, output: Any) -> Iterator[Any]:
        for number in output:
            yield {"n": number}


class Words(Counting):
    def encode_response(self, output: Any) -> Iterator[Any]:
        for number in output:
            yield f"{number} "


def test_streams_are_sent_piece_by_piece() -> None:
    heard = done(StreamingExecutor, Lines(stream=True), 3, 0)
    assert heard.chunks == {0: [b'{"n":0}\n', b'{"n":1}\n', b'{"n":2}\n']}
    assert heard.types[0] == "application/x-ndjson"
    heard = done(StreamingExecutor, Words(stream=True), 2)
    assert heard.chunks[0] == [b"0 ", b"1 "]
    assert heard.types[0].startswith("text/plain")
    assert done(StreamingExecutor, Counting(stream=True), 2).chunks[0] == [b"0\n", b"1\n"]


class Shouting(Lines):
    def format_encoded_response(self, data: Any) -> Any:
        return f"{data}!"


def test_pieces_are_written_as_an_api_of_its_own_says() -> None:
    assert done(StreamingExecutor, Shouting(stream=True), 1).chunks[0] == [b"{'n': 0}!"]


def test_a_stream_that_breaks_says_so_after_what_it_had() -> None:
    heard = done(StreamingExecutor, Lines(stream=True), 9, 1)
    assert len(heard.chunks[0]) == 5
    assert heard.faults[0].message == "predict() raised ValueError: too far"
    assert heard.chunks[1] == [b'{"n":0}\n']


def test_a_client_that_leaves_ends_its_generator() -> None:
    before, (request,) = Counting.closed, requests(4)

    class Leaving(Heard):
        def chunk(self, request: Request, data: bytes, content_type: str) -> None:
            super().chunk(request, data, content_type)
            if len(self.chunks[0]) == 2:
                request.cancel()

    heard, api = Leaving(), Lines(stream=True)
    StreamingExecutor(api, api.check()).run([request], heard)
    assert len(heard.chunks[0]) == 2
    assert heard.faults[0].code == "request.cancelled"
    assert Counting.closed == before + 1


class Items(LitAPI):
    def decode_request(self, request: Any) -> Iterator[Any]:
        yield from request["items"]

    def predict(self, x: Any) -> Iterator[Any]:
        for item in x:
            yield str(item)


class ItemsTogether(Items):
    def predict(self, x: Any) -> Iterator[Any]:
        for items in zip(*x, strict=True):
            yield list(map(str, items))


def test_a_decoder_that_is_a_generator_refuses_what_it_cannot_read() -> None:
    heard = done(StreamingExecutor, Items(stream=True), {"items": [1, 2]}, {})
    assert heard.chunks == {0: [b"1", b"2"]}
    assert (heard.faults[1].status, heard.faults[1].message) == (422, "decode_request() raised KeyError: 'items'")


def test_of_a_batch_nobody_knows_whose_generator_it_was() -> None:
    api = ItemsTogether(stream=True, max_batch_size=2)
    assert done(BatchedStreamingExecutor, api, {}).faults[0].status == 422
    assert [fault.status for fault in done(BatchedStreamingExecutor, api, {"items": [1]}, {}).faults.values()] == [500, 500]
