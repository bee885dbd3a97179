"""OpenAI's own client on a real server: a port, front ends, workers."""

import re
from typing import Any

import httpx
import pytest

from tests.support.served import Served, served

openai = pytest.importorskip("openai")

HI: list[Any] = [{"role": "user", "content": "hi"}]


def client_of(server: Served, key: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=30)


def test_chats_streams_and_models_with_a_key() -> None:
    with served("Spelling(spec=OpenAISpec())", env={"LEYDEN_SERVE_API_KEY": "secret"}) as server:
        with client_of(server, "secret") as client:
            answer = client.chat.completions.create(model="m", messages=HI, n=2)
            assert [choice.message.content for choice in answer.choices] == ["hi", "hi"]
            pieces = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}], stream=True)
            assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == "hello"
            numbers = httpx.get(f"{server.url}/metrics", headers={"x-api-key": "secret"}).text
            assert int(re.findall(r"stream_chunks_total{[^}]*} (\d+)", numbers)[0]) >= 5
            assert [model.id for model in client.models.list()] == ["Spelling"]
            with pytest.raises(openai.APIStatusError, match="too loud"):
                client.chat.completions.create(model="m", messages=[{"role": "user", "content": "!"}])
            left = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x" * 100_000}], stream=True)
            next(iter(left))
            left.close()  # the worker goes on to others
            assert client.chat.completions.create(model="m", messages=HI).choices[0].message.content == "hi"
        with client_of(server, "wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        refused = httpx.post(f"{server.url}/v1/chat/completions", json={"bad": 1})
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")


def test_embeddings_are_made_in_batches() -> None:
    with served("Lengths(spec=OpenAIEmbeddingSpec(), max_batch_size=8)") as server, client_of(server) as client:
        found = client.embeddings.create(model="m", input=["a", "bb", "ccc"] * 4)
        assert [each.embedding for each in found.data] == [[float(len(text)), 0.5] for text in ["a", "bb", "ccc"] * 4]
