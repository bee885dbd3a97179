"""`OpenAIEmbeddingSpec`: one input or many, batches, floats and base64, and outputs that are none."""

import array
import asyncio
import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.serve.api import LitAPI
from leyden.serve.specs.openai_embedding import EmbeddingRequest, EmbeddingResponse, OpenAIEmbeddingSpec, packed
from leyden.serve.test_examples import TestEmbedAPI, TestEmbedAPIWithUsage, TestEmbedBatchedAPI
from tests.support.spec_server import SpecServer

PATH = "/v1/embeddings"
A, BC = [1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]


def answered(server: SpecServer, value: Any, method: str = "POST", path: str = PATH) -> httpx.Response:
    async def sent() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app()), base_url="http://serve") as client:
            return await client.request(method, path, content=value if isinstance(value, bytes) else json.dumps(value).encode())

    return asyncio.run(sent())


def served(api: type[LitAPI], **options: Any) -> SpecServer:
    return SpecServer(api(spec=OpenAIEmbeddingSpec(), **options))


def vectors(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    found = EmbeddingResponse.model_validate(response.json())
    assert [each.index for each in found.data] == list(range(len(found.data)))
    return [each.embedding for each in found.data]


def read(text: str) -> list[float]:
    return list(np.frombuffer(base64.b64decode(text), "<f4"))


def test_one_and_many() -> None:
    with served(TestEmbedAPI) as server:
        found = answered(server, {"input": "a", "model": "m"})
        assert vectors(found) == [A]
        assert found.json() == {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": A}],
            "model": "m",
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }
        assert vectors(answered(server, {"input": ["a", "bc"]})) == [A, BC]
        assert len(server.calls) == 2


def test_lists_are_split_where_the_api_batches() -> None:
    with served(TestEmbedBatchedAPI, max_batch_size=4) as server:
        found = answered(server, {"input": ["a", "bc", "a", "bc", "a"], "user": "u"})
        assert vectors(found) == [A, BC, A, BC, A]
        assert [json.loads(call.body) for call in server.calls[:2]] == [{"input": "a", "user": "u"}, {"input": "bc", "user": "u"}]
        assert server.batches == [4, 1]
        assert found.json()["model"] == "TestEmbedBatchedAPI"


def test_tokens_are_counted_once_for_each_call() -> None:
    with served(TestEmbedAPIWithUsage) as server:
        assert answered(server, {"input": ["a", "bc"]}).json()["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
        assert server.tokens == [{"prompt_tokens": 10, "total_tokens": 10}]


@pytest.mark.parametrize("batch", [1, 8])
def test_base64_is_what_clients_ask_for(batch: int) -> None:
    with served(TestEmbedBatchedAPI if batch > 1 else TestEmbedAPI, max_batch_size=batch) as server:
        found = vectors(answered(server, {"input": ["a", "bc"], "encoding_format": "base64"}))
    assert [read(text) for text in found] == [A, BC]


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=8))
def test_base64_is_floats_of_32_bits_the_least_significant_byte_first(numbers: list[float]) -> None:
    assert read(packed(numbers)) == numbers
    assert packed(np.asarray(numbers)) == packed(numbers)


def test_base64_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = array.array("f", [1.0, -2.0])
    swapped.byteswap()
    monkeypatch.setattr(sys, "byteorder", "big")
    assert base64.b64decode(packed([1.0, -2.0])) == swapped.tobytes()


@pytest.mark.parametrize(
    ("given", "items"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]])],
)
def test_a_list_of_tokens_is_one_input(given: Any, items: list[Any]) -> None:
    assert EmbeddingRequest(input=given).ensure_list() == items
    with served(TestEmbedBatchedAPI, max_batch_size=2) as server:
        assert len(vectors(answered(server, {"input": given}))) == len(items)


@pytest.mark.parametrize(("given", "item"), [(["bc"], "bc"), ("bc", "bc"), ([[1, 2]], [1, 2]), ([1, 2], [1, 2])])
def test_a_list_of_one_is_an_item_of_a_batch_like_those_of_others(given: Any, item: Any) -> None:
    with served(TestEmbedBatchedAPI, max_batch_size=2) as server:
        assert vectors(answered(server, {"input": given})) == [BC]
        assert [json.loads(call.body)["input"] for call in server.calls] == [item]


class Told(LitAPI):
    """Answers with what it is told to."""

    def decode_request(self, request: EmbeddingRequest, context: Any) -> Any:
        return (request.input, context["encoding_format"], context["dimensions"])

    def predict(self, x: Any) -> Any:
        return OUTPUTS[x[0]]


OUTPUTS: dict[str, Any] = {
    "one": [1.0, 2.0],
    "array": np.asarray([1.0, 2.0], np.float32),
    "rows": [np.asarray([1.0, 2.0], np.float32)],
    "scalars": list(np.asarray([1.0, 2.0], np.float32)),
    "matrix": np.asarray([[1.0, 2.0]]),
    "nested": {"embeddings": [[1.0, 2.0]], "usage": {"prompt_tokens": 2, "total_tokens": 2}},
    "model": EmbeddingResponse(data=[], model="m"),
    "none": {"vectors": []},
    "text": "text",
    "empty": [],
    "two": [[1.0], [2.0]],
}


@pytest.mark.parametrize("name", ["one", "array", "rows", "scalars", "matrix", "nested"])
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_may_be_lists_or_arrays(name: str, encoding: str) -> None:
    with served(Told) as server:
        (found,) = vectors(answered(server, {"input": name, "encoding_format": encoding}))
    assert (found if encoding == "float" else read(found)) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model", "the dict has no key 'embeddings'"),
        ("none", r"only \['vectors'\]"),
        ("text", "there is 'text', and no vector"),
        ("empty", r"there is \[\], and no vector"),
        ("two", "there are 2 vectors for 1 inputs"),
    ],
)
def test_other_outputs_are_malformed(name: str, message: str) -> None:
    with served(Told) as server:
        found = answered(server, {"input": name})
    assert (found.status_code, found.json()["detail"]) == (500, "Malformed output from LitAPI.encode_response")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found.json()["error"]["message"])


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        ({"input": ""}, 422, "input"),
        ({"input": []}, 422, "input"),
        ({"input": [[1], []]}, 422, "input"),
        ({"input": 5}, 422, "input"),
        ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format"),
        ({"input": "a", "dimensions": 0}, 422, "dimensions"),
        ({"input": ["a"] * 2049}, 422, None),
    ],
)
def test_what_a_client_did_wrong(body: Any, status: int, param: str | None) -> None:
    with served(TestEmbedAPI) as server:
        found = answered(server, body)
        assert server.calls == []
    assert found.status_code == status
    assert found.json()["error"]["type"] == "invalid_request_error"
    assert (found.json()["error"]["param"] or "").partition(".")[0] == (param or "")


class Failing(TestEmbedBatchedAPI):
    def decode_request(self, request: Any, **kwargs: Any) -> Any:
        if request.input == "bad":
            raise ValueError("no such text")
        return request.input


def test_one_input_that_fails_is_the_answer() -> None:
    with served(Failing, max_batch_size=4) as server:
        found = answered(server, {"input": ["a", "bad", "bc"]})
    assert found.status_code == 422
    assert "no such text" in found.json()["error"]["message"]


def test_options() -> None:
    with served(TestEmbedAPI) as server:
        assert answered(server, b"", "OPTIONS").headers["allow"] == "POST, OPTIONS"


class Yielding(LitAPI):
    def predict(self, x: Any) -> Iterator[Any]:
        yield [1.0]


class YieldingLate(TestEmbedAPI):
    def encode_response(self, output: Any, **kwargs: Any) -> Iterator[Any]:
        yield {"embeddings": output}


STREAMING = [
    (Yielding(), r"predict\(\) is a generator"),
    (YieldingLate(), r"encode_response\(\) is a generator"),
    (TestEmbedAPI(stream=True), "stream=True"),
]


@pytest.mark.parametrize(("api", "message"), STREAMING)
def test_vectors_do_not_stream(api: LitAPI, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OpenAIEmbeddingSpec().pre_setup(api)


def test_another_path_is_told() -> None:
    with pytest.warns(UserWarning, match="clients of this protocol expect /v1/embeddings"):
        server = served(TestEmbedAPI, api_path="/embed")
    with server:
        assert vectors(answered(server, {"input": "a"}, path="/embed")) == [A]
        assert answered(server, {"input": "a"}).status_code == 404


def test_requests_keep_what_they_do_not_list() -> None:
    assert EmbeddingRequest.model_validate({"input": "a", "truncate": True}).model_dump()["truncate"] is True
    with pytest.raises(pydantic.ValidationError):
        EmbeddingRequest.model_validate({"model": "m"})


class AsyncEmbed(LitAPI):
    async def predict(self, x: Any) -> Any:
        return [A]


def test_async_hooks() -> None:
    pytest.importorskip("leyden.serve.executors.choice")
    with served(AsyncEmbed, enable_async=True) as server:
        assert vectors(answered(server, {"input": "a"})) == [A]
