"""Hooks of every shape are seen for what they are; contexts say what is known and keep what they are given."""

import dataclasses
import functools
import math
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from leyden.serve.context import RequestContext
from leyden.serve.hooks import Form, InputKind, form_of, plan_of


class Base:
    def decode_request(self, request: Any) -> Any:
        return request

    def batch(self, inputs: Any) -> Any:
        return inputs

    def predict(self, x: Any) -> Any:
        raise NotImplementedError

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


class Model(pydantic.BaseModel):
    x: float


class Struct(msgspec.Struct):
    x: float


@dataclasses.dataclass
class Data:
    x: float


class Typed(TypedDict):
    x: float


def api(**methods: Any) -> Any:
    return type("Mine", (Base,), methods)()


def test_defaults_are_seen_as_defaults() -> None:
    plan = plan_of(api(), Base)
    assert not any(hook.is_own or hook.wants_context for hook in plan.hooks().values())
    assert not plan.wants_context
    assert (plan.input, plan.input_type, plan.output_type) == (InputKind.ANY, None, None)


def function(self: Any, x: Any) -> Any:
    return x


async def coroutine(self: Any, x: Any) -> Any:
    return x


def generator(self: Any, x: Any) -> Any:
    yield x


async def async_generator(self: Any, x: Any, context: Any) -> Any:
    yield x


FORMS = [(function, Form.SYNC), (coroutine, Form.ASYNC), (generator, Form.GENERATOR), (async_generator, Form.ASYNC_GENERATOR)]


@pytest.mark.parametrize(("method", "form"), FORMS)
def test_forms(method: Any, form: Form) -> None:
    plan = plan_of(api(predict=method), Base)
    assert plan.predict.form is form
    assert plan.predict.is_own
    assert plan.predict.wants_context == plan.wants_context == (method is async_generator)
    assert form.yields == (method in {generator, async_generator})
    assert form.is_async == (method in {coroutine, async_generator})


@pytest.mark.parametrize(("method", "form"), FORMS)
def test_forms_of_what_is_wrapped(method: Any, form: Form) -> None:
    @functools.wraps(method)
    def wrapped(*args: Any) -> Any:
        return method(*args)

    class Callable:
        __call__ = method

    assert form_of(functools.partial(method, None)) is form
    assert form_of(wrapped) is form
    assert form_of(Callable()) is form
    assert form_of(staticmethod(method)) is form


@pytest.mark.parametrize("kind", [Model, Struct, Data, Typed])
def test_types_are_taken_from_the_annotations(kind: Any) -> None:
    def decode(self: Any, request: Any) -> Any:
        return request

    def encode(self: Any, output: Any) -> Any:
        return output

    decode.__annotations__["request"] = kind
    encode.__annotations__["return"] = kind
    plan = plan_of(api(decode_request=decode, encode_response=encode), Base)
    assert (plan.input, plan.input_type, plan.output_type) == (InputKind.TYPED, kind, kind)


def test_bytes_are_raw_and_the_rest_is_json() -> None:
    def raw(self: Any, request: bytes) -> Any:
        return request

    def plain(self: Any, request: dict) -> Any:
        return request

    def unknown(self: Any, request: "NotThere") -> Any:  # type: ignore[name-defined]  # noqa: F821 - a name that is not there
        return request

    assert plan_of(api(decode_request=raw), Base).input is InputKind.RAW
    assert plan_of(api(decode_request=plain), Base).input is InputKind.ANY
    assert plan_of(api(decode_request=unknown), Base).input is InputKind.ANY


def test_a_context_says_what_is_known_of_its_request() -> None:
    now, gone = [0.0], [False]
    context = RequestContext(
        "r-1", headers={"x-a": "b"}, deadline=5.0, priority=2, trace_id="t", is_cancelled=lambda: gone[0], clock=lambda: now[0]
    )
    assert (context.request_id, context.headers["x-a"], context.priority, context.trace_id) == ("r-1", "b", 2, "t")
    assert (context.seconds_left, context.cancelled) == (5.0, False)
    now[0] = 6.0
    assert (context.seconds_left, context.cancelled) == (0.0, True)
    now[0], gone[0] = 1.0, True
    assert context.cancelled
    context["temperature"] = 0
    assert context == {"temperature": 0}
    with pytest.raises(AttributeError):
        context.cancelled = False  # type: ignore[misc]
    assert RequestContext().seconds_left == math.inf
