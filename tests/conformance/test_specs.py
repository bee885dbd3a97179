"""What each spec keeps to, whatever its protocol: endpoints, travel, errors, and that nothing of a request stays on it."""

import asyncio
import json
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import pytest

from leyden.serve.api import LitAPI
from leyden.serve.specs.base import LitSpec, checked_spec
from leyden.serve.specs.openai import OpenAISpec
from leyden.serve.specs.openai_embedding import OpenAIEmbeddingSpec
from leyden.serve.test_examples import TestAPI, TestEmbedAPI
from tests.support.spec_server import SpecServer


class Case(NamedTuple):
    """A spec, an API for it, and a request that it answers."""

    make: Callable[[], LitSpec]
    api: type[LitAPI]
    path: str
    body: dict[str, Any]


class Failing(LitAPI):
    """Fails, whatever it is asked."""

    def decode_request(self, request: Any, **kwargs: Any) -> Any:
        raise RuntimeError("it fails")


class FailingChat(Failing, TestAPI):
    pass


class FailingEmbed(Failing, TestEmbedAPI):
    pass


CASES = {
    "chat": Case(OpenAISpec, TestAPI, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
    "completions": Case(OpenAISpec, TestAPI, "/v1/completions", {"prompt": "a"}),
    "embeddings": Case(OpenAIEmbeddingSpec, TestEmbedAPI, "/v1/embeddings", {"input": "a"}),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


async def sent(server: SpecServer, method: str, path: str, *bodies: Any) -> list[httpx.Response]:
    """Return the answers to requests that are there at once."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app()), base_url="http://serve") as client:
        requests = [client.request(method, path, content=json.dumps(body).encode()) for body in bodies]
        return list(await asyncio.gather(*requests))


@cases
def test_its_routes_have_options_and_its_api_has_its_path(case: Case) -> None:
    with SpecServer(case.api(spec=case.make())) as server:
        spec = checked_spec(server.spec)
        assert case.path in {endpoint.path for endpoint in spec.endpoints}
        for path in {endpoint.path.replace("{name:path}", "x") for endpoint in spec.endpoints}:
            (found,) = asyncio.run(sent(server, "OPTIONS", path, None))
            assert found.status_code == 200
            assert found.headers["allow"].endswith("OPTIONS")


@cases
def test_it_answers_many_at_once_and_keeps_nothing_of_them(case: Case) -> None:
    with SpecServer(case.api(spec=case.make())) as server:
        before = {name: value for name, value in server.spec.__dict__.items() if name != "_submitter"}
        answers = asyncio.run(sent(server, "POST", case.path, *[{**case.body, "model": f"m-{number}"} for number in range(20)]))
        assert [answer.json()["model"] for answer in answers] == [f"m-{number}" for number in range(20)]
        assert {name: value for name, value in server.spec.__dict__.items() if name != "_submitter"} == before


@cases
def test_it_travels_after_it_was_set_up(case: Case) -> None:
    with SpecServer(case.api(spec=case.make())) as server:
        copy = pickle.loads(pickle.dumps(server.spec))
    assert type(copy) is type(server.spec)
    assert copy.api_path == server.spec.api_path
    assert copy.stream == server.spec.stream


@cases
@pytest.mark.parametrize("body", [None, [], {}, 5, "text"])
def test_nothing_that_a_client_sends_is_the_servers_fault(case: Case, body: Any) -> None:
    with SpecServer(case.api(spec=case.make())) as server:
        (found,) = asyncio.run(sent(server, "POST", case.path, body))
    assert 400 <= found.status_code < 500
    assert {"detail", "code", "message", "request_id", "error"} <= found.json().keys()


@cases
def test_what_a_hook_raises_is_told_in_both_ways(case: Case) -> None:
    api = FailingEmbed if case.api is TestEmbedAPI else FailingChat
    with SpecServer(api(spec=case.make())) as server:
        (found,) = asyncio.run(sent(server, "POST", case.path, case.body))
    assert (found.status_code, found.json()["detail"]) == (500, "Internal server error")
    assert found.json()["message"] == found.json()["error"]["message"] == "decode_request() raised RuntimeError: it fails"
