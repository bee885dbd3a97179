"""Hooks of every shape are seen for what they are; contexts say what is known and keep what they are given."""

import dataclasses
import functools
import typing
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from leyden.serve.hooks import Form, Hook, InputKind, form_of, misfit, plan_of


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


def test_what_is_made_of_such_types_is_typed_too() -> None:
    for kind in (list[Model], Model | None, Data | int, dict[str, list[Struct]], typing.Annotated[Typed, "a note"]):

        def decode(self: Any, request: Any) -> Any:
            return request

        decode.__annotations__["request"] = kind
        assert plan_of(api(decode_request=decode), Base).input is InputKind.TYPED, kind


def test_bytes_are_raw_and_the_rest_is_json() -> None:
    def raw(self: Any, request: bytes) -> Any:
        return request

    def plain(self: Any, request: dict) -> Any:
        return request

    def unknown(self: Any, request: "NotThere") -> Any:  # type: ignore[name-defined]  # noqa: F821 - a name that is not there
        return request

    assert plan_of(api(decode_request=raw), Base).input is InputKind.RAW
    assert plan_of(api(decode_request=plain), Base).input is InputKind.ANY
    with pytest.warns(UserWarning, match="'NotThere' is no name at run time"):
        assert plan_of(api(decode_request=unknown), Base).input is InputKind.ANY


def test_an_annotation_counts_by_itself_whatever_the_others_are() -> None:
    def raw(self: Any, request: "bytes", context: "NotThere") -> "NotThere":  # type: ignore[name-defined]  # noqa: F821 - not there
        return request

    def quiet(self: Any, request: "fastapi.Request") -> Any:  # type: ignore[name-defined]  # noqa: F821 - as under TYPE_CHECKING
        return request

    class Local(pydantic.BaseModel):
        x: int

    def local(self: Any, request: "Local") -> Any:
        return Local.model_validate(request)

    assert plan_of(api(decode_request=raw), Base).input is InputKind.RAW
    assert plan_of(api(decode_request=quiet), Base).input is InputKind.ANY
    assert plan_of(api(decode_request=local), Base).input_type is Local


def test_further_arguments_are_named() -> None:
    def predict(self: Any, x: Any, context: Any, size: int = 1, *rest: Any, scale: float = 1.0, **more: Any) -> Any:
        return x

    hook = plan_of(api(predict=predict), Base).predict
    assert hook.keywords == ("size", "scale")
    assert not misfit(api(predict=predict).predict, hook)
    assert not misfit(print, Hook(Form.SYNC, wants_context=False, is_own=True))
