"""Async hooks: side by side up to `concurrency`, cancelled as tasks, and hooks that are not async run beside them."""

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

from leyden.serve.api import LitAPI
from leyden.serve.executors.aio import AsyncExecutor
from leyden.serve.executors.requests import Request
from tests.support.heard import Heard


def executor_of(api: LitAPI) -> AsyncExecutor:
    with warnings.catch_warnings(action="ignore"):
        return AsyncExecutor(api, api.check())


class Together(LitAPI):
    """Answers when so many are here."""

    running = most = 0

    async def predict(self, x: Any) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return x


def test_no_more_than_concurrency_run_at_once() -> None:
    api, heard = Together(enable_async=True, concurrency=3), Heard()
    executor_of(api).run([Request(number, b"1") for number in range(10)], heard)
    assert len(heard.replies) == 10
    assert api.most == 3


class Mixed(LitAPI):
    def decode_request(self, request: Any) -> Any:
        self.decoded_in = threading.current_thread()
        return request

    async def predict(self, x: Any) -> Any:
        return x

    def encode_response(self, output: Any) -> Any:
        return {"output": output}


def test_hooks_that_are_not_async_run_in_a_thread() -> None:
    api, heard = Mixed(enable_async=True), Heard()
    executor_of(api).run([Request(0, b"1")], heard)
    assert heard.replies[0].body == b'{"output":1}'
    assert api.decoded_in is not threading.current_thread()


class MixedStream(LitAPI):
    async def predict(self, x: Any) -> AsyncIterator[Any]:
        yield x
        yield x + 1

    def encode_response(self, output: Any) -> Iterator[Any]:
        for each in output:
            yield f"{each} "
            yield "and "


def test_a_generator_that_is_not_async_encodes_a_stream() -> None:
    api, heard = MixedStream(enable_async=True, stream=True), Heard()
    executor_of(api).run([Request(0, b"1")], heard)
    assert b"".join(heard.chunks[0]) == b"1 and 2 and "


class Waiting(LitAPI):
    closed = 0

    async def predict(self, x: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            self.closed += 1


def test_a_request_is_cancelled_while_it_waits_and_before_it_began() -> None:
    api, heard = Waiting(enable_async=True), Heard()
    executor = executor_of(api)
    rooms: list[int] = []

    async def cancelled() -> None:
        is_done = asyncio.Event()

        def ended() -> None:
            rooms.append(executor.room)
            if executor.room == api.concurrency:
                is_done.set()

        executor.on_room = ended
        requests = [Request(number, b"1") for number in range(3)]
        requests[2].cancel()
        executor.start(requests, heard)
        assert heard.ended == [2]
        requests[0].cancel()  # its task has not begun
        await asyncio.sleep(0)
        requests[1].cancel()
        await is_done.wait()

    asyncio.run(cancelled())
    assert {fault.code for fault in heard.faults.values()} == {"request.cancelled"}
    assert api.closed == 1
    assert rooms == [63, 64]


class Counting(LitAPI):
    async def predict(self, x: Any) -> AsyncIterator[Any]:
        for number in range(3):
            yield f"{number}"


def test_a_stream_goes_on_when_its_client_has_read() -> None:
    api, heard = Counting(enable_async=True, stream=True), Heard(room=1, patience=60.0)
    executor = executor_of(api)

    async def read() -> None:
        request = Request(0, b"1")
        executor.start([request], heard)
        while not heard.ended:
            await asyncio.sleep(0)
            if request.on_read is not None:
                request.unread_bytes = 0
                request.on_read()

    asyncio.run(read())
    assert heard.chunks[0] == [b"0", b"1", b"2"]
    assert heard.faults == {}


class Items(LitAPI):
    async def decode_request(self, request: Any) -> AsyncIterator[Any]:
        for item in request["items"]:
            yield item

    async def predict(self, x: Any) -> AsyncIterator[Any]:
        async for item in x:
            yield str(item)


def test_a_decoder_may_be_an_async_generator() -> None:
    heard = Heard()
    executor_of(Items(enable_async=True, stream=True)).run([Request(0, b'{"items":[1,2]}'), Request(1, b"{}")], heard)
    assert heard.chunks == {0: [b"1", b"2"]}
    assert (heard.faults[1].status, heard.faults[1].message) == (422, "decode_request() raised KeyError: 'items'")
