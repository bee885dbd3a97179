"""What `leyden serve check` finds, in this process."""

import dataclasses
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from leyden.serve import LitAPI, LitServer, OpenAIEmbeddingSpec, OpenAISpec
from leyden.serve.command.checking import Report, check
from leyden.serve.command.samples import read_inputs
from leyden.serve.command.trial import _Client
from leyden.serve.test_examples import TestEmbedAPI
from tests.support.serve_apis import AsyncEcho, Batch, Broken, Counting, Spelling, Square, Tokens


class Body(BaseModel):
    x: int


@dataclasses.dataclass
class Point:
    x: float


class Typed(LitAPI):
    def decode_request(self, request: Body) -> Any:
        return request.x

    def predict(self, x: Any) -> Any:
        return {"pid": os.getpid(), "device": self.device, "x": x}


class Raw(LitAPI):
    def decode_request(self, request: bytes) -> Any:
        return len(request)

    def predict(self, x: Any) -> Any:
        return x


class Divides(LitAPI):
    def decode_request(self, request: Point) -> Any:
        return request.x

    def predict(self, x: Any) -> Any:
        return 1 / (x - 1)


class Picky(LitAPI):
    def decode_request(self, request: Point) -> Any:
        raise ValueError("too pointed")

    def predict(self, x: Any) -> Any:
        return x


class BreaksOff(LitAPI):
    def predict(self, x: Any) -> Iterator[Any]:
        yield {"n": 1}
        raise RuntimeError("no more")


class Leaves(LitAPI):
    def predict(self, x: Any) -> Any:
        raise SystemExit(5)


class AsyncWords(LitAPI):
    async def predict(self, x: Any) -> AsyncIterator[str]:
        yield "one "
        yield "two"


class Guarded(Square):
    def authorize(self) -> None:
        raise AssertionError("it is left out")


def checked(*apis: LitAPI, inputs: tuple[str, ...] = (), **options: Any) -> Report:
    server = LitServer(list(apis), accelerator="cpu", **options)
    return check(server, read_inputs(inputs, [api.path for api in server.config.apis]))


def test_routes_say_what_they_are() -> None:
    report = checked(
        Square(),
        Batch(api_path="/batch", max_batch_size=8, batch_timeout=0.005),
        Counting(api_path="/count"),
        Typed(api_path="/typed"),
        Raw(api_path="/raw"),
        Guarded(api_path="/guarded"),
        Spelling(spec=OpenAISpec()),
        workers_per_device={"/predict": 2},
    )
    rows = {route.path: route.row() for route in report.routes}
    assert rows["/predict"] == ("/predict", "POST", "hot", "no", "no", "JSON or a form", "2")
    assert rows["/batch"] == ("/batch", "POST", "hot", "no", "8, 5 ms", "JSON or a form", "1")
    assert rows["/count"][3] == "yes"
    assert (rows["/typed"][5], rows["/raw"][5]) == ("Body", "bytes")
    assert rows["/guarded"][2] == "not hot: it has authorize()"
    chat = rows["/v1/chat/completions"]
    assert (chat[1], chat[2], chat[5]) == ("POST OPTIONS", "not hot: its spec answers", "ChatCompletionRequest")
    assert {"GET /health", "GET /metrics", "GET /docs"} <= set(report.own)
    assert report.faults == []
    lines = report.lines()
    assert lines[0].split() == ["path", "methods", "way", "stream", "batch", "body", "workers"]
    assert lines[-1] == "all is well"
    assert "/raw: set up in 0.0 s; no request was tried: pass --input '/raw=…' with JSON or @FILE" in lines


def test_each_kind_of_api_answers_a_request() -> None:
    report = checked(
        Guarded(),
        Batch(api_path="/batch", max_batch_size=8),
        Tokens(api_path="/tokens", loop=continuous(), stream=True),
        AsyncEcho(api_path="/async", enable_async=True),
        AsyncWords(api_path="/words", enable_async=True, stream=True),
        TestEmbedAPI(spec=OpenAIEmbeddingSpec()),
        Spelling(spec=OpenAISpec()),
        inputs=("/predict={\"input\": 3}", "/batch={\"input\": 3}", "/tokens={\"input\": 2}", "/async={\"input\": 1}", "/words={}"),
    )  # fmt: skip
    assert report.faults == []
    answers = {each.path: each.answer for each in report.tried}
    assert answers["/predict"] == '{"output":9}'
    assert answers["/batch"] == '{"output":9,"size":1}'
    assert answers["/tokens"] == "2 1"
    assert answers["/async"] == '{"output":1}'
    assert answers["/words"] == "one two"
    assert '"object":"embedding"' in answers["/v1/embeddings"]
    assert '"object":"chat.completion"' in answers["/v1/chat/completions"]


def continuous() -> Any:
    from leyden.serve.loops import ContinuousBatchingLoop

    return ContinuousBatchingLoop()


def test_a_worker_that_ends_is_told_also_if_its_client_has_ended_before(monkeypatch: pytest.MonkeyPatch) -> None:
    run, give_up, has_ended = _Client.run, _Client.give_up, threading.Event()

    def run_and_tell(client: Any, control: Any) -> None:
        run(client, control)
        has_ended.set()

    def give_up_later(client: Any) -> None:
        assert has_ended.wait(60)
        give_up(client)

    monkeypatch.setattr(_Client, "run", run_and_tell)
    monkeypatch.setattr(_Client, "give_up", give_up_later)
    (fault,) = checked(Leaves(), inputs=("1",)).faults
    assert "/predict failed: SystemExit: 5" in fault.message


def test_an_api_is_tried_in_this_process_and_on_its_device() -> None:
    (tried,) = checked(Typed()).tried
    assert (tried.status, tried.origin) == (200, "made from the schema of Body")
    assert tried.answer == f'{{"pid":{os.getpid()},"device":"cpu","x":1}}'


@pytest.mark.parametrize(
    ("api", "text", "told"),
    [
        (Broken(), "", "/predict failed: OSError: no weights"),
        (Leaves(), "1", "/predict failed: SystemExit: 5"),
        (Square(), '{"x": 1}', '/predict answers 422 to the request {"x": 1} (as given by --input): decode_request() raised KeyError'),
        (BreaksOff(stream=True), "1", "/predict breaks off in the middle of its answer to the request 1"),
        (Divides(), "", "ZeroDivisionError: float division by zero Pass --input '/predict=…' to try another one."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LitAPI) else "",
)
def test_what_fails_is_told_in_one_line(api: LitAPI, text: str, told: str) -> None:
    report = checked(api, inputs=(text,) if text else ())
    (fault,) = report.faults
    assert told in fault.message
    assert "\n" not in fault.message
    assert report.to_json()["ok"] is False


def test_a_value_that_nobody_gave_may_be_refused() -> None:
    report = checked(Picky())
    assert report.faults == []
    assert report.tried[0].status == 422


def test_the_json_says_the_same() -> None:
    found = checked(Square(max_batch_size=1), inputs=('{"input": 3}',)).to_json()
    assert found["routes"] == [
        {
            "path": "/predict", "methods": ("POST",), "why_not_hot": "", "stream": False, "batch": {"max_size": 1, "timeout": 0.0},
            "body": "JSON or a form", "workers": "1", "hot": True,
        }
    ]  # fmt: skip
    assert found["tried"][0]["answer"] == '{"output":9}'
    assert (found["ok"], found["devices"], found["faults"]) == (True, ["cpu"], [])
