"""Requests to try an API with."""

import dataclasses
import datetime
import enum
import json
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, Field

from leyden.core.errors import ConfigError, NotFoundError
from leyden.serve.command.samples import read_inputs, sample_of
from leyden.serve.config import ApiConfig
from leyden.serve.schema.image import ImageInput
from leyden.serve.specs.openai.chat import OpenAISpec
from leyden.serve.specs.openai_embedding import OpenAIEmbeddingSpec
from leyden.serve.typed import validated


class Colour(enum.Enum):
    RED = "red"


class Part(BaseModel):
    weight: Annotated[float, Field(gt=0, lt=0.5)]
    count: Annotated[int, Field(ge=3)]
    code: Annotated[str, Field(min_length=6, max_length=8)]


class Model(BaseModel):
    part: Part
    parts: Annotated[list[Part], Field(min_length=2)]
    colour: Colour
    when: datetime.datetime
    key: uuid.UUID
    kind: Literal["a", "b"]
    maybe: int | None
    pair: tuple[int, str]
    flag: bool
    even: Annotated[int, Field(multiple_of=4, gt=5)]
    low: Annotated[float, Field(le=-2)]
    optional: str = "left out"


class Shown(BaseModel):
    text: Annotated[str, Field(pattern="^[a-z]+$", examples=["abc"])]


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Struct(msgspec.Struct):
    items: list[int]
    name: Annotated[str, msgspec.Meta(max_length=2)]


class Words(TypedDict):
    text: str


@pytest.mark.parametrize("kind", [Model, Part, Shown, Point, Struct, Words, ImageInput, list[Model], Part | None])
def test_a_body_that_is_made_up_is_valid(kind: Any) -> None:
    sample = sample_of(ApiConfig(path="/a", input_type=kind))
    assert sample is not None
    assert (sample.path, sample.content_type, sample.is_made_up) == ("/a", "application/json", True)
    assert validated(json.loads(sample.body), kind) is not None


class Pattern(BaseModel):
    text: Annotated[str, Field(pattern="^[a-z]+$")]


class Endless(BaseModel):
    inner: "Endless"


class Anything(BaseModel):
    value: Any
    values: list[Any]


class Narrow(BaseModel):
    number: Annotated[int, Field(gt=3, lt=4)]


@pytest.mark.parametrize("kind", [Pattern, Endless, Anything, Narrow, None])
def test_what_no_schema_tells_is_not_made_up(kind: Any) -> None:
    assert sample_of(ApiConfig(input_type=kind)) is None


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (OpenAISpec(), "/v1/chat/completions"),
        (OpenAISpec(models=["tiny"]), "/v1/chat/completions"),
        (OpenAIEmbeddingSpec(), "/v1/embeddings"),
    ],
)
def test_a_protocol_knows_a_request(spec: Any, path: str) -> None:
    sample = sample_of(ApiConfig(path=path, spec=spec))
    assert sample is not None
    assert (sample.path, sample.is_made_up) == (path, False)
    assert spec.read(json.loads(sample.body)) is not None


def test_an_image_is_one() -> None:
    sample = sample_of(ApiConfig(input_type=ImageInput))
    assert sample is not None
    assert ImageInput(**json.loads(sample.body)).get_image().size == (1, 1)


def test_inputs_are_json_or_files_with_a_path_where_one_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}')
    (tmp_path / "a.bin").write_bytes(b"\x00\xff")
    only = read_inputs(['{"input": 4}'], ["/predict"])["/predict"]
    assert (only.body, only.content_type, only.is_made_up) == (b'{"input": 4}', "application/json", False)
    many = read_inputs([f"/a=@{tmp_path}/a.json", f"/b=@{tmp_path}/a.bin", "/c=[1]"], ["/a", "/b", "/c"])
    assert [(each.body, each.content_type) for each in many.values()] == [
        (b'{"x": 1}', "application/json"),
        (b"\x00\xff", "application/octet-stream"),
        (b"[1]", "application/json"),
    ]


@pytest.mark.parametrize(
    ("texts", "error", "words"),
    [
        (["{"], ConfigError, "which API it is for. Write --input '/a={'"),
        (["/a={"], ConfigError, "is no JSON"),
        (["/aa=1"], NotFoundError, "no API answers at '/aa'"),
        (["/a=@no-such-file"], NotFoundError, "there is no file"),
        (["/a=1", "/a=2"], ConfigError, "given twice for /a"),
    ],
)
def test_inputs_that_cannot_be_sent_are_refused(texts: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_inputs(texts, ["/a", "/b"])
