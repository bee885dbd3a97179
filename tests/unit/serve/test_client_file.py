"""The program that `run` leaves beside a server: what it asks, and that it is written once."""

from pathlib import Path
from typing import Any, TypedDict

import pydantic
import pytest

from leyden.serve.client_file import source, write_client
from leyden.serve.config import ApiConfig, Secrets, ServerConfig
from leyden.serve.specs.base import LitSpec
from leyden.serve.specs.openai import OpenAISpec
from leyden.serve.specs.openai_embedding import OpenAIEmbeddingSpec


class Color(pydantic.BaseModel):
    """Three numbers."""

    r: int
    g: int | None
    b: float = 0.5


class Picture(pydantic.BaseModel):
    """All kinds of fields."""

    title: str = pydantic.Field(examples=['"Sunset"'])
    colors: list[Color]
    is_new: bool
    note: str = ""


class Node(TypedDict):
    """A class that holds itself."""

    children: "list[Node]"


class OwnProtocol(LitSpec):
    def __init__(self, *methods: str) -> None:
        super().__init__()
        for method in methods:
            self.add_endpoint(f"/own/{method.lower()}", lambda: None, [method])


def asked(**api: Any) -> str:
    return source("http://x", ServerConfig(apis=(ApiConfig(**api),)))


def test_a_typed_api_gets_what_it_can_read() -> None:
    payload = '{"title": "\\"Sunset\\"", "colors": [{"r": 1, "g": 1}], "is_new": True}'
    assert f'client.predict({payload}, "/predict")' in asked(input_type=Picture)


def test_a_class_without_an_end() -> None:
    compile(asked(input_type=Node), "client.py", "exec")


@pytest.mark.parametrize(
    ("spec", "call"),
    [
        (OpenAISpec(models=["tiny"]), 'client.predict({"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]'),
        (OpenAIEmbeddingSpec(), 'client.predict({"model": "LitAPI", "input": "Hello"}, "/v1/embeddings")'),
        (OwnProtocol("GET", "POST"), 'client.predict({"input": 4.0}, "/own/post")'),
        (OwnProtocol(), 'client.predict({"input": 4.0}, "/predict")'),
    ],
)
def test_a_protocol_says_what_it_answers(spec: LitSpec, call: str) -> None:
    assert call in asked(spec=spec, is_stream=spec.stream)


def test_a_stream_is_read_as_one() -> None:
    assert 'for item in client.stream({"input": 4.0}, "/a\\"b"):\n        print(item)\n' in asked(path='/a"b', is_stream=True)


def test_keys_come_from_the_environment_and_certificates_get_a_hint() -> None:
    config = ServerConfig(secrets=Secrets(api_keys=("secret",)))
    text = source("https://127.0.0.1:8000", config)
    assert 'api_key=os.environ["LEYDEN_SERVE_API_KEY"]' in text
    assert "verify='certificate.pem'" in text
    assert "secret" not in text
    compile(text, "client.py", "exec")


def test_it_is_written_once_and_only_where_one_may_write(tmp_path: Path) -> None:
    write_client("http://first", ServerConfig(), tmp_path)
    write_client("http://second", ServerConfig(), tmp_path)
    assert '"http://first"' in (tmp_path / "client.py").read_text()
    write_client("http://third", ServerConfig(), tmp_path / "not there")
