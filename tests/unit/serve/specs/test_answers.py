"""Answers of endpoints: given up when the client leaves, and errors that say what clients may know."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request

from leyden.serve.faults import Fault
from leyden.serve.specs.answers import ErrorStyle, Sender, Work, body_of
from leyden.serve.specs.base import SpecCall
from leyden.serve.specs.merging import merged


def no_more(fault: Fault, told: str) -> dict[str, Any]:
    return {}


class Told(Work):
    """Works as it is told, and remembers how that ended."""

    def __init__(self, *steps: Any) -> None:
        super().__init__(ErrorStyle(exposes=True, more=no_more))
        self.steps, self.ended = steps, ""

    async def work(self, sender: Sender) -> None:
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if step is None:
                    await asyncio.Event().wait()
                await sender.write(step)
            self.ended = "well"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


def sent(work: Work, *, leaves: bool = False) -> list[dict[str, Any]]:
    """Return what a response sends to a client that stays, or leaves once something has come."""
    messages, has_come = list[dict[str, Any]](), asyncio.Event()

    async def send(message: Any) -> None:
        messages.append(message)
        has_come.set()

    async def receive() -> Any:
        await (has_come if leaves else asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    asyncio.run(asyncio.wait_for(work({"type": "http", "leyden.request_id": "r-1"}, receive, send), 10))
    return messages


def test_a_client_that_leaves_ends_the_work() -> None:
    work = Told(b"a", None)
    assert [message.get("body") for message in sent(work, leaves=True)] == [None, b"a"]
    assert work.ended == "cancelled"


def test_work_that_ends_is_answered() -> None:
    work = Told(b"a", b"b")
    messages = sent(work)
    assert messages[0] == {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    assert [message["body"] for message in messages[1:]] == [b"a", b"b"]
    assert work.ended == "well"


def test_an_error_before_the_first_byte_is_a_status() -> None:
    messages = sent(Told(Fault(429, "queue.full", "Too many.", headers={"retry-after": "1"}), b"a"))
    assert messages[0]["status"] == 429
    assert (b"retry-after", b"1") in messages[0]["headers"]
    assert json.loads(messages[1]["body"]) == {"detail": "Too many.", "code": "queue.full", "message": "Too many.", "request_id": "r-1"}


def test_an_error_after_it_is_raised_and_so_is_a_bug() -> None:
    with pytest.raises(Fault, match="late"):
        sent(Told(b"a", Fault(500, "worker.failed", "late")))
    with pytest.raises(ZeroDivisionError):
        sent(Told(ZeroDivisionError()))


def test_what_went_wrong_in_a_hook_may_be_hidden() -> None:
    style = ErrorStyle(exposes=False, more=no_more)
    inner = Fault(500, "worker.failed", "predict() raised ValueError: secret", detail="Internal server error")
    assert style.body(inner, {}) == {"detail": "Internal server error", "code": "worker.failed", "request_id": ""}
    assert style.told(Fault(500, "worker.failed", "secret")) == "Internal server error"
    assert style.told(Fault(422, "request.invalid", "body.n: too small")) == "body.n: too small"


def test_a_hooks_own_error_is_nothing_but_its_detail() -> None:
    fault = Fault(418, "request.refused", "teapot", detail={"a": 1})
    fault.is_bare = True
    assert ErrorStyle(exposes=True, more=lambda fault, told: {"error": 1}).body(fault, {}) == {"detail": {"a": 1}}


def test_a_body_that_never_comes_is_none() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    assert asyncio.run(body_of(Request({"type": "http"}, receive))) == b""


# -- several streams as one ---------------------------------------------------------------------------------------


class Streams:
    """A `Submitter` whose streams go on when they are told to."""

    exposes_errors = True

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts, self.closed, self.taken = scripts, list[int](), 0

    async def submit(self, call: SpecCall) -> bytes:
        raise NotImplementedError

    async def stream(self, call: SpecCall) -> Any:
        place = int(call.body)
        try:
            for step in self.scripts[place]:
                if isinstance(step, Exception):
                    raise step
                if step is None:
                    await asyncio.Event().wait()
                await asyncio.sleep(0)
                self.taken += 1
                yield [step]
        finally:
            self.closed.append(place)

    def used(self, usage: Any) -> None:
        raise NotImplementedError


def calls(count: int) -> list[SpecCall]:
    return [SpecCall(b"%d" % place) for place in range(count)]


def test_streams_are_merged_and_each_ends_alone() -> None:
    async def all_of() -> list[Any]:
        return [each async for each in merged(Streams([b"a", b"b", b"c"], [], [b"d"]), calls(3))]

    found = asyncio.run(all_of())
    assert [pieces for place, pieces in found if place == 0] == [[b"a"], [b"b"], [b"c"], None]
    assert [pieces for place, pieces in found if place == 1] == [None]
    assert [pieces for place, pieces in found if place == 2] == [[b"d"], None]
    assert found[0] == (1, None)


@pytest.mark.parametrize("count", [1, 3])
def test_who_stops_listening_ends_all_streams(count: int) -> None:
    streams = Streams(*[[b"a", None] for _ in range(count)])

    async def first() -> None:
        several = merged(streams, calls(count))
        assert await anext(several) == (0, [b"a"])
        await several.aclose()

    asyncio.run(asyncio.wait_for(first(), 10))
    assert sorted(streams.closed) == list(range(count))


def test_one_error_ends_all_streams() -> None:
    streams = Streams([b"a", None], [b"b", Fault(503, "worker.lost", "lost")])

    async def all_of() -> None:
        with pytest.raises(Fault, match="lost"):
            async for _ in merged(streams, calls(2)):
                pass

    asyncio.run(asyncio.wait_for(all_of(), 10))
    assert sorted(streams.closed) == [0, 1]


def test_streams_wait_for_a_slow_listener() -> None:
    streams = Streams([b"a"] * 1000, [b"b"] * 1000)

    async def slow() -> None:
        several = merged(streams, calls(2))
        await anext(several)
        for _ in range(200):
            await asyncio.sleep(0)
        assert streams.taken <= 10
        await several.aclose()

    asyncio.run(asyncio.wait_for(slow(), 10))
