"""OpenAI's own client talks to the endpoints of specs: chats, streams, tools, several choices, vectors, errors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from leyden.serve.api import LitAPI
from leyden.serve.specs.openai import OpenAISpec
from leyden.serve.specs.openai_embedding import OpenAIEmbeddingSpec
from leyden.serve.test_examples import TestAPIWithToolCalls, TestEmbedAPI, TestEmbedBatchedAPI
from tests.support.spec_server import SpecServer

openai = pytest.importorskip("openai")
httpx2 = pytest.importorskip("httpx2")

HI: list[Any] = [{"role": "user", "content": "hi"}]
FUNCTION: Any = {"type": "function", "function": {"name": "function_1", "parameters": {"type": "object", "properties": {}}}}


class Reading(LitAPI):
    """Reads a text back, letter by letter, and counts."""

    def predict(self, x: Any, context: Any) -> Iterator[Any]:
        text = x if isinstance(x, str) else x[-1]["content"]
        for place, letter in enumerate(text):
            yield {"content": letter, "prompt_tokens": len(text) if place == 0 else 0, "completion_tokens": 1}
            if letter == "!":
                raise ValueError("too loud")
        yield f"@{context['temperature']:g}"


@contextlib.asynccontextmanager
async def client_of(server: SpecServer) -> AsyncIterator[Any]:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(server.app()))
    async with openai.AsyncOpenAI(base_url="http://serve/v1", api_key="none", http_client=http, max_retries=0) as client:
        yield client


def talked(api: LitAPI, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Return what comes of a use of the client."""

    async def used(server: SpecServer) -> Any:
        async with client_of(server) as client:
            return await use(client)

    with SpecServer(api) as server:
        return asyncio.run(asyncio.wait_for(used(server), 30))


def test_chats() -> None:
    async def use(client: Any) -> Any:
        return await client.chat.completions.create(model="m", messages=HI, temperature=0, n=2)

    found = talked(Reading(spec=OpenAISpec()), use)
    assert found.model == "m"
    assert [choice.message.content for choice in found.choices] == ["hi@0", "hi@0"]
    assert {choice.finish_reason for choice in found.choices} == {"stop"}
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (2, 4, 6)


@pytest.mark.parametrize("count", [1, 2])
def test_streams(count: int) -> None:
    async def use(client: Any) -> Any:
        options = {"include_usage": True}
        stream = await client.chat.completions.create(model="m", messages=HI, stream=True, n=count, stream_options=options)
        return [chunk async for chunk in stream]

    chunks = talked(Reading(spec=OpenAISpec()), use)
    for index in range(count):
        own = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(choice.delta.content or "" for choice in own) == "hi@0.7"
        assert [choice.finish_reason for choice in own if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 2 + 2 * count


def test_the_clients_own_collector_of_streams() -> None:
    async def use(client: Any) -> Any:
        async with client.chat.completions.stream(model="m", messages=HI, tools=[FUNCTION]) as stream:
            async for _ in stream:
                pass
            return await stream.get_final_completion()

    choice = talked(TestAPIWithToolCalls(spec=OpenAISpec()), use).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.arguments == '{"arg_1": "arg_1_value"}'


def test_tools() -> None:
    async def use(client: Any) -> Any:
        named = {"type": "function", "function": {"name": "function_1"}}
        return await client.chat.completions.create(model="m", messages=HI, tools=[FUNCTION], tool_choice=named)

    choice = talked(TestAPIWithToolCalls(spec=OpenAISpec()), use).choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, call.id, call.type, call.function.name) == ("tool_calls", "call_1", "function", "function_1")


def test_completions_and_models() -> None:
    async def use(client: Any) -> Any:
        return await client.completions.create(model="m", prompt=["ab", "c"]), [model.id async for model in client.models.list()]

    completed, models = talked(Reading(spec=OpenAISpec(models=["m", "org/n"])), use)
    assert [choice.text for choice in completed.choices] == ["ab@0.7", "c@0.7"]
    assert models == ["m", "org/n"]


@pytest.mark.parametrize(("api", "batch"), [(TestEmbedAPI, 1), (TestEmbedBatchedAPI, 4)])
def test_vectors(api: type[LitAPI], batch: int) -> None:
    async def use(client: Any) -> Any:
        once = await client.embeddings.create(model="m", input="a")  # as base64: the client's default
        return once, await client.embeddings.create(model="m", input=["a", "bc"], encoding_format="float")

    once, many = talked(api(spec=OpenAIEmbeddingSpec(), max_batch_size=batch), use)
    assert once.data[0].embedding == [1.0, 2.0, 3.0, 4.0]
    assert [each.embedding for each in many.data] == [[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]]


def test_errors() -> None:
    async def use(client: Any) -> None:
        with pytest.raises(openai.UnprocessableEntityError, match=r"body\.temperature") as wrong:
            await client.chat.completions.create(model="m", messages=HI, temperature=5)
        assert (wrong.value.param, wrong.value.code) == ("temperature", "request.invalid")
        with pytest.raises(openai.NotFoundError, match="'x' does not exist"):
            await client.models.retrieve("x")
        loud: list[Any] = [{"role": "user", "content": "a!"}]
        with pytest.raises(openai.InternalServerError, match="too loud"):
            await client.chat.completions.create(model="m", messages=loud)
        stream = await client.chat.completions.create(model="m", messages=loud, stream=True)
        assert [(await anext(stream)).choices[0].delta.content for _ in "a!"] == ["a", "!"]
        with pytest.raises(openai.APIError, match="too loud"):
            await anext(stream)

    talked(Reading(spec=OpenAISpec()), use)
