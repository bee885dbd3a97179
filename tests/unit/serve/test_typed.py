"""Typed bodies: whichever library found a mistake, it is told as FastAPI tells it."""

import asyncio
import dataclasses
import io
import json
from typing import Annotated, Any, TypedDict

import fastapi
import httpx
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from leyden.core.errors import ConfigError
from leyden.serve.codec import write_json
from leyden.serve.faults import Fault
from leyden.serve.forms import Upload
from leyden.serve.typed import checked_type, name_of, validated


class Model(pydantic.BaseModel):
    x: float
    tags: list[str] | None = None

    @pydantic.field_validator("x")
    @classmethod
    def positive(cls, value: float) -> float:
        if value < 0:
            raise ValueError("below zero")
        return value


class Struct(msgspec.Struct):
    x: float
    tags: list[str] = []
    sizes: dict[str, list[int]] = {}


@dataclasses.dataclass
class Data:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("below zero")


@pydantic.dataclasses.dataclass
class Strict:
    x: Annotated[float, pydantic.Field(gt=0)]


@dataclasses.dataclass
class Outer:
    inner: Model


class Keys(TypedDict):
    inner: Model


@dataclasses.dataclass
class Other:
    y: int


@dataclasses.dataclass
class Either:
    which: Data | Other


def mistakes(value: Any, wanted: Any) -> list[dict[str, Any]]:
    with pytest.raises(Fault) as raised:
        validated(value, wanted)
    assert (raised.value.status, raised.value.code) == (422, "request.invalid")
    return raised.value.detail


@pytest.mark.parametrize("value", [{}, {"x": "q"}, {"x": -1}, {"x": 1, "tags": [1, "a", 2]}, [], 3])
def test_pydantic_mistakes_are_those_of_fastapi(value: Any) -> None:
    app = fastapi.FastAPI()

    @app.post("/")
    async def post(body: Model) -> None: ...

    async def answer() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return (await client.post("/", json=value)).json()["detail"]

    theirs = asyncio.run(answer())
    ours = json.loads(write_json(mistakes(value, Model)))
    assert [{**each, "ctx": None} for each in ours] == [{**each, "ctx": None} for each in theirs]


@dataclasses.dataclass(frozen=True)
class Part:
    x: int
    y: int = 3


@dataclasses.dataclass
class Whole:
    one: Part
    many: list[Part]
    by_name: dict[str, Part] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("value", "wanted", "mistake"),
    [
        ({}, Struct, {"type": "missing", "loc": ["body", "x"], "msg": "Field required", "input": {}}),
        ({"x": 1, "tags": ["a", 3]}, Struct, {"loc": ["body", "tags", 1], "msg": "Expected `str`, got `int`", "input": 3}),
        ({"x": 1, "sizes": {"a.b": ["q"]}}, Struct, {"loc": ["body", "sizes", "[...]", 0], "msg": "Expected `int`, got `str`"}),
        ({"x": -1}, Data, {"loc": ["body"], "msg": "below zero"}),
        ({"x": -1}, Strict, {"loc": ["body", "x"], "type": "greater_than"}),
        ({"inner": {"x": -1}}, Outer, {"loc": ["body", "inner"], "msg": "x: Value error, below zero"}),
        ({"inner": {"x": "q"}}, Keys, {"loc": ["body", "inner"]}),
    ],
)
def test_mistakes_say_where(value: Any, wanted: Any, mistake: dict[str, Any]) -> None:
    (found,) = mistakes(value, wanted)
    assert {name: found[name] for name in mistake} == mistake
    assert {"type", "loc", "msg"} <= set(found)


def test_models_inside_of_other_classes_are_validated() -> None:
    assert validated({"inner": {"x": 1}}, Outer).inner == Model(x=1)
    assert validated({"inner": {"x": 1}}, Keys) == {"inner": Model(x=1)}
    assert validated({"x": "2"}, Strict) == Strict(2.0)


def test_defaults_of_dataclasses_are_their_own_and_so_are_written() -> None:
    made = validated({"one": {"x": 1}, "many": [{"x": 2}]}, Whole)
    assert write_json(made) == b'{"one":{"x":1,"y":3},"many":[{"x":2,"y":3}],"by_name":{}}'


def test_forms_may_say_numbers_as_text_and_one_value_for_a_list() -> None:
    assert validated({"x": "1.5", "tags": "a"}, Struct, is_form=True) == Struct(1.5, ["a"])
    assert validated({"x": "1.5", "tags": ["a", "b"]}, Model, is_form=True) == Model(x=1.5, tags=["a", "b"])
    assert validated({"x": "1.5", "tags": "a"}, Model, is_form=True) == Model(x=1.5, tags=["a"])
    with pytest.raises(Fault):
        validated({"x": "1.5"}, Struct)


def test_an_answer_repeats_no_long_body_and_always_is_json() -> None:
    assert "input" not in mistakes({"x": "y" * 10_000}, Model)[0]
    assert len(mistakes({"x": 1, "tags": [1] * 10_000}, Model)) == 100
    upload = Upload("a.png", "image/png", io.BytesIO(b"z"))
    for wanted in (Model, Struct):
        for value in (upload, float("nan"), {"\ud800": [upload]}, 2**80, b"\xff"):
            if mistaken := _mistakes_if_any({"x": 1, "tags": value}, wanted):
                assert json.loads(write_json(mistaken))


def _mistakes_if_any(value: Any, wanted: Any) -> Any:
    try:
        validated(value, wanted)
    except Fault as fault:
        return fault.body
    return None


def test_classes_that_cannot_be_validated_are_told_before_a_request_comes() -> None:
    for wanted in (Model, Struct, Data, Strict, Outer, Keys):
        checked_type(wanted)
    with pytest.raises(ConfigError, match=r"decode_request\(\) takes a Either, which cannot be validated: Type unions"):
        checked_type(Either)


class Other(pydantic.BaseModel):
    y: int


@pytest.mark.parametrize(
    ("value", "wanted", "made"),
    [
        ([{"x": 1}], list[Model], [Model(x=1)]),
        ({"y": 2}, Model | Other, Other(y=2)),
        (None, Model | None, None),
        ({"x": 1}, Model | None, Model(x=1)),
        ({"a": [{"x": 1}]}, dict[str, list[Struct]], {"a": [Struct(x=1.0)]}),
        ([{"x": 1}], list[Data], [Data(1)]),
    ],
)
def test_lists_and_unions_of_classes_are_validated(value: Any, wanted: Any, made: Any) -> None:
    checked_type(wanted)
    assert validated(value, wanted) == made


@pytest.mark.parametrize(
    ("value", "wanted", "loc"),
    [
        ([{"x": "q"}], list[Model], ["body", 0, "x"]),
        ({"z": 1}, Model | None, ["body", "x"]),
        ([{"x": 1}, {}], list[Data], ["body", 1, "x"]),
        ({}, list[Struct], ["body"]),
    ],
)
def test_a_mistake_in_one_of_them_says_where(value: Any, wanted: Any, loc: list[Any]) -> None:
    with pytest.raises(Fault) as caught:
        validated(value, wanted)
    assert (caught.value.status, caught.value.detail[0]["loc"]) == (422, loc)


def test_unions_that_nobody_can_tell_apart_are_refused_beforehand() -> None:
    with pytest.raises(ConfigError, match=r"takes a Data \| Outer, which cannot be validated"):
        checked_type(Data | Outer)
    with pytest.raises(ConfigError, match=r"takes a list\[Model \| Struct\], which cannot"):
        checked_type(list[Model | Struct])
    assert name_of(list[Model]) == "list[Model]"
