"""Continuous batching: requests join while there is room, a step that fails fails those in it, and nobody waits for a slow reader."""

import json
from typing import Any

import pytest

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.serve.api import LitAPI
from leyden.serve.executors.choice import executor_for
from leyden.serve.executors.continuous import ContinuousExecutor
from leyden.serve.executors.requests import Request
from leyden.serve.loops import ContinuousBatchingLoop, DefaultContinuousBatchingLoop, LitAPIStatus, LitLoop, Output
from tests.support.heard import Heard


def requests(*bodies: Any) -> list[Request]:
    return [Request(number, json.dumps(body).encode()) for number, body in enumerate(bodies)]


def executor_of(api: LitAPI) -> ContinuousExecutor:
    executor = executor_for(api, api.check())
    assert isinstance(executor, ContinuousExecutor)
    return executor


class Letters(LitAPI):
    """The letters of a word, one a step; the seen batches are what shared a step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.batches: list[list[str]] = []

    def predict(self, x: Any, generated: Any) -> Any:
        self.batches.append(list(x))
        if "bad" in x:
            raise ValueError("no")
        return [word[len(done)] if len(done) < len(word) else None for word, done in zip(x, generated, strict=True)]

    def has_finished(self, uid: str, token: Any, max_sequence_length: int) -> bool:
        return token is None


class ToTheDot(Letters):
    def has_finished(self, uid: str, token: Any, max_sequence_length: int) -> bool:
        return token == "."


def test_the_default_loop_asks_predict_for_one_token_after_another() -> None:
    api, heard = Letters(loop=DefaultContinuousBatchingLoop(), max_batch_size=2, stream=True), Heard()
    executor_of(api).run(requests("abc", "d", "ef"), heard)
    assert heard.chunks == {0: [b"a", b"b", b"c"], 1: [b"d"], 2: [b"e", b"f"]}
    assert heard.ended == [1, 0, 2]
    assert api.batches[:3] == [["abc", "d"], ["abc", "d"], ["abc", "ef"]]


def test_an_answer_has_an_end_and_without_a_stream_all_parts_come_together() -> None:
    api, heard = Letters(loop=DefaultContinuousBatchingLoop(2), max_batch_size=2), Heard()
    executor_of(api).run(requests("abc", "d"), heard)
    assert [json.loads(heard.replies[number].body) for number in (0, 1)] == [["a", "b"], "d"]


def test_the_token_that_ends_an_answer_is_part_of_it() -> None:
    api, heard = ToTheDot(loop=DefaultContinuousBatchingLoop(), max_batch_size=2, stream=True), Heard()
    executor_of(api).run(requests("ab.cd", "."), heard)
    assert heard.chunks == {0: [b"a", b"b", b"."], 1: [b"."]}
    assert heard.ended == [1, 0]


def test_hooks_and_loops_that_are_async_are_refused() -> None:
    class Waiting(ContinuousBatchingLoop):
        async def step(self, prev_outputs: Any, lit_api: Any, lit_spec: Any) -> Any:  # type: ignore[override]
            return []

    class Asking(Own):
        async def add_request(self, uid: str, request: Any) -> None:  # type: ignore[override]
            pass

    with pytest.raises(ConfigError, match=r"Waiting.step\(\) is async, and Waiting does not wait for it.*Write def step"):
        Own(loop=Waiting(), stream=True).check()
    with pytest.raises(ConfigError, match=r"Asking.add_request\(\) is async"):
        Asking(loop=ContinuousBatchingLoop(), stream=True).check()


def test_a_step_that_fails_fails_those_in_it() -> None:
    api, heard = Letters(loop=DefaultContinuousBatchingLoop(), max_batch_size=2, stream=True), Heard()
    executor_of(api).run(requests("a", "bad", "c"), heard)
    assert heard.faults.keys() == {0, 1}
    assert heard.faults[0].message == "step() raised ValueError: no"
    assert heard.chunks == {2: [b"c"]}


def test_with_no_pending_requests_a_batch_is_done_before_others_begin() -> None:
    loop = DefaultContinuousBatchingLoop(no_pending_requests=True)
    api, heard = Letters(loop=loop, max_batch_size=2, stream=True), Heard()
    executor_of(api).run(requests("abc", "d", "ef"), heard)
    assert [len(batch) for batch in api.batches] == [2, 2, 1, 1, 1, 1, 1]
    assert sorted(heard.ended) == [0, 1, 2]


def test_who_leaves_is_taken_out() -> None:
    api, heard = Letters(loop=DefaultContinuousBatchingLoop(), max_batch_size=2, stream=True), Heard()
    executor = executor_of(api)
    asked = requests("abcdef", "xy")
    executor.take(asked, heard)
    assert executor.advance(heard)
    asked[0].cancel()
    assert not executor.has_room
    executor.advance(heard)
    assert executor.has_room
    assert heard.faults[0].code == "request.cancelled"
    assert api.batches[-1] == ["xy"]


def test_nobody_waits_for_a_client_that_does_not_read() -> None:
    class Slow(Heard):
        def has_room(self, request: Request) -> bool:
            return request.number != 0 or request.unread_bytes == 0

    api, heard = Letters(loop=DefaultContinuousBatchingLoop(), max_batch_size=2, stream=True), Slow(patience=60.0)
    executor = executor_of(api)
    slow, quick = requests("abc", "xyz")
    executor.take([slow, quick], heard)
    while 1 not in heard.ended:
        executor.advance(heard)
    assert heard.chunks == {0: [b"a"], 1: [b"x", b"y", b"z"]}
    assert executor.has_room
    for _ in range(3):
        slow.unread_bytes = 0
        executor.advance(heard)
    assert heard.chunks[0] == [b"a", b"b", b"c"]
    assert heard.ended == [1, 0]
    assert not executor.is_active


class Own(LitAPI):
    """Hooks of a user who says what happens in each step."""

    script: Any = None

    def add_request(self, uid: str, request: Any) -> None:
        if request == "no":
            raise ValueError("not that")
        self.uid = uid

    def has_capacity(self) -> bool:
        if self.script == "broken":
            raise KeyError("capacity")
        return True

    def has_active_requests(self) -> bool:
        return False

    def step(self, prev_outputs: Any) -> Any:
        return [Output("999", "nobody's"), Output(self.uid, *self.script)]


def test_what_a_request_of_ones_own_may_say() -> None:
    api, heard = Own(loop=ContinuousBatchingLoop()), Heard()
    executor = executor_of(api)
    api.script = ("boom", LitAPIStatus.ERROR)
    executor.run(requests("x"), heard)
    assert (heard.faults[0].status, heard.faults[0].message) == (500, "step() said: boom")
    heard = Heard()
    executor.run(requests("no"), heard)
    assert heard.faults[0].message == "add_request() raised ValueError: not that"
    heard, api.script = Heard(), ("last words", "FINISH_STREAMING")
    executor.run(requests("x"), heard)
    assert heard.replies[0].body == b'"last words"'


def test_hooks_that_fail_beside_a_step_end_nothing() -> None:
    api, heard = Own(loop=ContinuousBatchingLoop()), Heard()
    executor = executor_of(api)
    api.script = "broken"
    assert executor.has_room
    api.has_active_requests = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    api.cancel_request = lambda uid: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    assert not executor.advance(heard)
    assert not executor.is_active
    (request,) = requests("x")
    executor.take([request], heard)
    request.cancel()
    assert not executor.advance(heard)
    assert heard.faults[0].code == "request.cancelled"


class Lacking(LitAPI):
    def predict(self, x: Any) -> Any:
        return x


class OldLoop(LitLoop):
    def run(self, *args: Any) -> None:
        raise AssertionError


def test_what_is_missing_is_told_before_a_worker_starts() -> None:
    with pytest.raises(ConfigError, match=r"Lacking has no add_request\(\), which ContinuousBatchingLoop calls"):
        Lacking(loop=ContinuousBatchingLoop()).check()
    with pytest.raises(ConfigError, match=r"Lacking has no has_finished\(\)"):
        Lacking(loop=DefaultContinuousBatchingLoop()).check()
    with pytest.raises(UnsupportedError, match=r"OldLoop has no executor\(\)"):
        Lacking(loop=OldLoop()).check()
    with pytest.raises(ConfigError, match="max_sequence_length=0"):
        ContinuousBatchingLoop(0)
