"""All executors keep the promises of `ExecutorSuite`; streams those of `StreamSuite` too."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

from leyden.serve.api import LitAPI
from leyden.serve.executors.choice import executor_for
from leyden.serve.executors.executor import Executor
from leyden.serve.executors.requests import Request
from leyden.serve.loops import ContinuousBatchingLoop, LitAPIStatus, Output
from tests.conformance.executor_suite import ExecutorSuite
from tests.support.heard import Heard

SPEAKER = logging.getLogger("tests.hooks")


def read(request: Any, context: Any) -> Any:
    SPEAKER.info("read")
    return {"value": request["value"], "fail": request.get("fail"), "id": context.request_id}


def computed(x: Any) -> Any:
    if x["fail"] == "predict":
        raise ValueError("unlucky")
    SPEAKER.info("computed")
    return x


def written(output: Any) -> Any:
    if output["fail"] == "encode":
        raise RuntimeError("no words")
    return {"output": output["value"], "id": output["id"]}


def made(api: LitAPI) -> Executor:
    api.setup("cpu")
    return executor_for(api, api.check())


class StreamSuite(ExecutorSuite):
    """A stream that its client does not read ends, and harms no other."""

    streams = True

    def test_a_client_that_does_not_read_ends_alone(self) -> None:
        heard = Heard(room=10)
        read_by = [Request(number, json.dumps({"value": "x", "times": 1 if number else 9}).encode()) for number in range(2)]
        self.executor().run(read_by, heard)
        assert sorted(heard.ended) == [0, 1]
        assert heard.faults[0].code == "stream.stalled"
        assert heard.faults.keys() == {0}


class Single(LitAPI):
    def decode_request(self, request: Any, context: Any) -> Any:
        return read(request, context)

    def predict(self, x: Any) -> Any:
        return computed(x)

    def encode_response(self, output: Any) -> Any:
        return written(output)


class TestSingleExecutor(ExecutorSuite):
    def executor(self) -> Executor:
        return made(Single())


class Batched(Single):
    def predict(self, x: Any) -> Any:
        return [computed(each) for each in x]


class TestBatchedExecutor(ExecutorSuite):
    fails_together = True

    def executor(self) -> Executor:
        return made(Batched(max_batch_size=8))


class Streaming(LitAPI):
    def decode_request(self, request: Any, context: Any) -> Any:
        return {**read(request, context), "times": request.get("times", 1)}

    def predict(self, x: Any) -> Iterator[Any]:
        for _ in range(x["times"]):
            yield computed(x)

    def encode_response(self, output: Any) -> Iterator[Any]:
        for each in output:
            yield written(each)


class TestStreamingExecutor(StreamSuite):
    def executor(self) -> Executor:
        return made(Streaming(stream=True))


class Unwritable:
    """What no encoder knows."""


class BatchedStreaming(Streaming):
    def predict(self, x: Any) -> Iterator[Any]:
        for _ in range(max(each["times"] for each in x)):
            yield [computed(each) for each in x]

    def encode_response(self, output: Any) -> Iterator[Any]:
        for step in output:
            yield [Unwritable() if each["fail"] == "encode" else written(each) for each in step]


class TestBatchedStreamingExecutor(StreamSuite):
    fails_together = True

    def executor(self) -> Executor:
        return made(BatchedStreaming(stream=True, max_batch_size=8))

    def test_a_client_that_does_not_read_ends_alone(self) -> None:
        """Every step has a piece for each, so that all are as long as the longest: the others read."""

        class Reading(Heard):
            def has_room(self, request: Request) -> bool:
                return request.number != 0 or super().has_room(request)

        heard = Reading(room=10)
        self.executor().run([Request(number, b'{"value": "x", "times": 5}') for number in range(3)], heard)
        assert sorted(heard.ended) == [0, 1, 2]
        assert heard.faults.keys() == {0}
        assert len(heard.chunks[1]) == len(heard.chunks[2]) == 5


class Async(LitAPI):
    async def decode_request(self, request: Any, context: Any) -> Any:
        return read(request, context)

    async def predict(self, x: Any) -> Any:
        return computed(x)

    async def encode_response(self, output: Any) -> Any:
        return written(output)


class TestAsyncExecutor(ExecutorSuite):
    def executor(self) -> Executor:
        return made(Async(enable_async=True, concurrency=2))


class AsyncStreaming(LitAPI):
    async def decode_request(self, request: Any, context: Any) -> Any:
        return {**read(request, context), "times": request.get("times", 1)}

    async def predict(self, x: Any) -> AsyncIterator[Any]:
        for _ in range(x["times"]):
            yield computed(x)

    async def encode_response(self, output: Any) -> AsyncIterator[Any]:
        async for each in output:
            yield written(each)


class TestAsyncStreams(StreamSuite):
    def executor(self) -> Executor:
        return made(AsyncStreaming(enable_async=True, stream=True))


class Stepping(LitAPI):
    """Computes one request a step, each to its end, so that a step that fails fails one."""

    def setup(self, device: Any) -> None:
        self.waiting: dict[str, Any] = {}

    def decode_request(self, request: Any, context: Any) -> Any:
        return {**read(request, context), "times": request.get("times", 1)}

    def add_request(self, uid: str, request: Any) -> None:
        self.waiting[uid] = request

    def has_capacity(self) -> bool:
        return not self.waiting

    def has_active_requests(self) -> bool:
        return bool(self.waiting)

    def cancel_request(self, uid: str) -> None:
        self.waiting.pop(uid, None)

    def step(self, prev_outputs: Any) -> Any:
        uid, x = self.waiting.popitem()
        return [Output(uid, computed(x)) for _ in range(x["times"])] + [Output(uid, "", LitAPIStatus.FINISH_STREAMING)]

    def encode_response(self, output: Any) -> Any:
        return written(output)


class TestContinuousExecutor(ExecutorSuite):
    def executor(self) -> Executor:
        return made(Stepping(loop=ContinuousBatchingLoop()))


class TestContinuousStreams(StreamSuite):
    def executor(self) -> Executor:
        return made(Stepping(loop=ContinuousBatchingLoop(), stream=True))
