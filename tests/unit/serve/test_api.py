"""`LitAPI`: its defaults, and every mistake that is told before a worker starts."""

import dataclasses
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.serve import api as module
from leyden.serve.api import LitAPI, made, stream_of_batches


class Plain(LitAPI):
    def predict(self, x: Any) -> Any:
        return x


class Stream(LitAPI):
    def predict(self, x: Any) -> Iterator[Any]:
        yield x


class Async(LitAPI):
    async def predict(self, x: Any) -> Any:
        return x

    async def decode_request(self, request: Any) -> Any:
        return request

    async def encode_response(self, output: Any) -> Any:
        return output


class AsyncStream(LitAPI):
    async def predict(self, x: Any) -> AsyncIterator[Any]:
        yield x


def test_defaults() -> None:
    api = Plain()
    assert (api.max_batch_size, api.batch_timeout, api.api_path, api.stream, api.loop, api.enable_async) == (
        1,
        0.0,
        "/predict",
        False,
        None,
        False,
    )
    assert api.decode_request({"a": 1}) == {"a": 1}
    assert api.encode_response(3) == 3
    assert api.health() is True
    assert api.format_encoded_response({"a": 1}) == '{"a":1}\n'
    assert api.format_encoded_response("text") == "text"
    assert api.format_encoded_response(pydantic.create_model("M", x=(int, 1))()) == '{"x":1}\n'
    assert api.check().predict.is_own


def test_batches_are_stacked_and_taken_apart() -> None:
    api = Plain(max_batch_size=4)
    assert torch.equal(api.batch([torch.ones(2), torch.zeros(2)]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert api.batch([np.ones(2), np.zeros(2)]).shape == (2, 2)
    assert api.batch(["a", "b"]) == ["a", "b"]
    assert [int(each) for each in api.unbatch(torch.arange(3))] == [0, 1, 2]
    for output in ("ab", {"a": 1}, {1, 2}):
        with pytest.warns(UserWarning, match=r"unbatch\(\) makes a list of a"):
            api.unbatch(output)
    assert list(stream_of_batches(iter([(1, 2), (3, 4)]))) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_batch_size": 0}, "max_batch_size must be greater than 0"),
        ({"max_batch_size": -1}, "max_batch_size must be greater than 0"),
        ({"batch_timeout": -0.1}, "batch_timeout must be greater than or equal to 0"),
        ({"batch_timeout": float("nan")}, "batch_timeout must be greater than or equal to 0"),
        ({"api_path": "predict"}, r"api_path must start with '/', and is 'predict'\. Pass api_path='/predict'"),
        ({"loop": "manual"}, "loop must be an instance of LitLoop or 'auto'"),
        ({"stream_format": "xml"}, "stream_format='xml'"),
        ({"concurrency": 0}, "concurrency must be greater than 0"),
        ({"autoscale": 3}, r"autoscale=3 is not accepted: it takes AutoscalePolicy"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Plain(**options)


@pytest.mark.parametrize("options", [{"max_batch_size": "4"}, {"max_batch_size": True}, {"batch_timeout": "1"}])
def test_arguments_of_another_type_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigTypeError):
        Plain(**options)


def test_hooks_that_go_together_pass() -> None:
    Stream(stream=True).check()
    Async(enable_async=True).check()
    AsyncStream(stream=True, enable_async=True).check()
    Plain(max_batch_size=8, batch_timeout=1).check(timeout=30)


@pytest.mark.parametrize(
    ("api", "told"),
    [
        (LitAPI(), r"LitAPI has no predict\(\)\. Write one"),
        (Plain(batch_timeout=2), "batch_timeout must be less than request_timeout"),
        (Plain(enable_async=True), "Async validation failed: predict"),
        (Async(enable_async=True, max_batch_size=2), "Async batching is not supported"),
        (Async(), r"predict\(\) is async|decode_request\(\) is async"),
        (Stream(), r"predict\(\) is a generator, and stream is not set"),
        (Plain(stream=True), r"predict\(\) is a function, and stream=True needs a generator:\n    def predict"),
    ],
    ids=["no predict", "timeouts", "not async", "async batches", "async unsaid", "stream unsaid", "no stream"],
)
def test_hooks_that_do_not_go_together_are_told_with_what_would(api: LitAPI, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        api.check(timeout=1.0)


def test_streams_need_generators_everywhere() -> None:
    class Encodes(Stream):
        def encode_response(self, output: Any) -> Any:
            return output

    class Unbatches(Stream):
        def unbatch(self, output: Any) -> Any:
            return output

    with pytest.raises(ConfigError, match=r"encode_response\(\) is a function, and stream=True needs a generator"):
        Encodes(stream=True).check()
    with pytest.raises(ConfigError, match=r"unbatch\(\) is a function, and a stream of batches needs a generator"):
        Unbatches(stream=True, max_batch_size=2).check()


@pytest.mark.parametrize("timeout", [False, -1, None, 30, 2.0])
def test_a_server_without_a_timeout_limits_no_batch(timeout: Any) -> None:
    Plain(max_batch_size=2, batch_timeout=2).check(timeout)


class Two(LitAPI):
    def predict(self, x: Any, size: int) -> Any:
        return x


class Nothing(LitAPI):
    def predict(self) -> Any:
        return 1


class OnlyContext(LitAPI):
    def predict(self, context: Any) -> Any:
        return context


class Further(Plain):
    def predict(self, x: Any, size: int = 3, *, context: Any, **kwargs: Any) -> Any:
        return x


class AsyncSetup(Plain):
    async def setup(self, device: Any) -> None:
        self.model = device


class Lazy(Plain):
    def decode_request(self, request: Any) -> Any:
        yield request


@dataclasses.dataclass
class One:
    x: int


@dataclasses.dataclass
class Other:
    y: int


@dataclasses.dataclass
class Either:
    which: One | Other


class Unclear(Plain):
    def decode_request(self, request: Either) -> Any:
        return request


@pytest.mark.parametrize(
    ("api", "told"),
    [
        (Two(), r"predict\(\) cannot be called with what it gets: missing a required argument: 'size'\. Write def predict\(self, x\)"),
        (Nothing(), "too many positional arguments"),
        (OnlyContext(), "multiple values for argument 'context'"),
        (AsyncSetup(), r"setup\(\) is an async function, and nobody would wait for it"),
        (Lazy(), r"decode_request\(\) is a generator, and stream is not set"),
        (Unclear(), r"decode_request\(\) takes a Either, which cannot be validated"),
        (Plain(enable_async=True, stream=True), r"Async validation failed[^$]*async for token"),
        (Async(enable_async=True, stream=True), r"stream=True needs a generator:\n    async def predict[^$]*yield token"),
    ],
    ids=["two", "nothing", "context first", "async setup", "lazy", "unclear", "async stream", "no async stream"],
)
def test_hooks_that_would_fail_with_every_request_are_told(api: LitAPI, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        api.check()


def test_hooks_may_have_further_arguments_with_defaults() -> None:
    plan = Further().check()
    assert plan.predict.wants_context
    assert plan.predict.keywords == ("size",)


class Mixed(LitAPI):
    async def predict(self, x: Any) -> Any:
        return x

    def decode_request(self, request: Any) -> Any:
        return request


def test_sync_hooks_of_an_async_api_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"decode_request\(\) is not async: it runs in a thread"):
        Mixed(enable_async=True).check()


class Batches(Plain):
    def batch(self, inputs: Any) -> Any:
        return inputs

    def unbatch(self, output: Any) -> Any:
        return output


def test_batch_hooks_without_batches_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="max_batch_size is 1"):
        Batches().check()


def test_arguments_without_effect_are_warned_of_once() -> None:
    with pytest.warns(UserWarning, match=r"^Plain: without effect: batch_timeout=0\.1 \(max_batch_size is 1\), concurrency=2 ") as told:
        Plain(batch_timeout=0.1, concurrency=2, stream_format="sse", max_stream_buffer_bytes=9).check()
    assert len(told) == 1
    assert "stream_format='sse' (stream is not set), max_stream_buffer_bytes=9 (stream is not set)" in str(told[0].message)
    Stream(stream=True, stream_format="sse", max_stream_buffer_bytes=9).check()
    Async(enable_async=True, concurrency=2).check()


class Forgetful(LitAPI):
    def __init__(self) -> None:
        self.model = 1

    def predict(self, x: Any) -> Any:
        return x


class Locked(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_objects_that_cannot_be_used_are_named() -> None:
    with pytest.raises(ConfigError, match=r"Forgetful.__init__ does not call super\(\).__init__\(\)"):
        Forgetful().check()
    with pytest.raises(ConfigError, match=r"Locked\.lock cannot be sent to a worker .*create it in setup\(\)"):
        Locked().check()
    with pytest.raises(StateError, match=r"Plain is a class: pass an object of it, Plain\(\)"):
        made(Plain)
    with pytest.raises(ConfigTypeError, match="it takes a LitAPI"):
        made(lambda: 1)
    assert isinstance(made(Plain()), LitAPI)


def test_a_slow_init_is_told_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_INIT_SECONDS", 0.0)

    class Slow(Plain):
        def __init__(self) -> None:
            super().__init__()

    class Prepared(Slow):
        def __init__(self) -> None:
            super().__init__()

        def setup(self, device: Any) -> None:
            self.model = device

    class Slower(Slow):
        def __init__(self) -> None:
            super().__init__()

    with pytest.warns(RuntimeWarning, match=r"Slow.__init__ took .* Load models in setup"):
        Slow()
    with pytest.warns(RuntimeWarning, match=r"Slower.__init__ took") as told:
        Slower()
    assert len(told) == 1
    Prepared()


def test_logging_goes_to_whoever_listens() -> None:
    api, heard = Plain(), []
    with pytest.warns(UserWarning, match="went nowhere"):
        api.log("a", 1)
    api._send_log = lambda key, value: heard.append((key, value))
    api.log("a", 1)
    assert heard == [("a", 1)]


@pytest.mark.parametrize("name", ["predict", "add_request", "has_capacity", "has_active_requests", "step", "has_finished"])
def test_hooks_that_must_be_written_say_so(name: str) -> None:
    arguments = {"predict": (1,), "add_request": ("u", 1), "step": (None,), "has_finished": ("u", "t", 9)}.get(name, ())
    with pytest.raises(NotImplementedError, match=rf"LitAPI has no {name}\(\)"):
        getattr(LitAPI(), name)(*arguments)
