"""`OpenAISpec` over a server without sockets: requests, streams, several choices, errors, and what an API must be."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import httpx
import pytest

from leyden.core.errors import ConfigError
from leyden.serve.api import LitAPI
from leyden.serve.server import LitServer
from leyden.serve.specs.openai import ChatCompletionRequest, OpenAISpec
from leyden.serve.test_examples import (
    OpenAIBatchContext,
    OpenAIWithUsage,
    TestAPI,
    TestAPIWithCustomEncode,
    TestAPIWithStructuredOutput,
    TestAPIWithToolCalls,
)
from tests.support.spec_server import SpecServer

CHAT, COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"
HI = [{"role": "user", "content": "hi"}]


def answered(server: SpecServer, method: str, path: str, value: Any = None) -> httpx.Response:
    async def sent() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app()), base_url="http://serve") as client:
            content = value if isinstance(value, bytes) else None if value is None else json.dumps(value).encode()
            return await client.request(method, path, content=content)

    return asyncio.run(sent())


def chat(server: SpecServer, **more: Any) -> httpx.Response:
    return answered(server, "POST", CHAT, {"model": "m", "messages": HI, **more})


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream, which ends as OpenAI's do."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    parts = response.text.split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def served(api: type[LitAPI], **options: Any) -> SpecServer:
    return SpecServer(api(spec=OpenAISpec(), **options))


class Words(LitAPI):
    """Says what it was asked for, and counts."""

    def predict(self, x: Any, context: Any) -> Iterator[Any]:
        yield f"{x if isinstance(x, str) else x[-1]['content']} "
        yield {"content": f"{context['temperature']:g}", "prompt_tokens": 3, "completion_tokens": 1}
        yield {"content": f" {context['seed']}", "prompt_tokens": 0, "completion_tokens": 1}


# -- answers ------------------------------------------------------------------------------------------------------


def test_a_chat_is_answered_at_once() -> None:
    with served(Words) as server:
        found = chat(server, temperature=0).json()
        assert server.tokens == [{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}]
    assert found["id"].startswith("chatcmpl-")
    assert (found["object"], found["model"]) == ("chat.completion", "m")
    assert found["choices"] == [{"index": 0, "message": {"role": "assistant", "content": "hi 0 None"}, "finish_reason": "stop"}]
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_a_request_goes_to_the_worker_as_it_came() -> None:
    body = b'{"messages": [{"role": "user", "content": "hi"}],   "odd": 1}'
    with served(Words) as server:
        answered(server, "POST", CHAT, body)
        assert [(call.body, call.endpoint, call.scope["path"]) for call in server.calls] == [(body, "chat", CHAT)]


def test_a_stream_has_one_id_one_role_and_an_end() -> None:
    with served(Words) as server:
        found = events(chat(server, stream=True, seed=7))
    assert len({(each["id"], each["created"], each["object"], each["model"]) for each in found}) == 1
    deltas = [each["choices"][0]["delta"] for each in found]
    assert deltas == [{"role": "assistant", "content": "hi "}, {"content": "0.7"}, {"content": " 7"}, {}]
    assert [each["choices"][0].get("finish_reason") for each in found] == [None, None, None, "stop"]


@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {}}])
def test_tokens_are_in_the_last_chunk_if_nothing_is_said(options: dict[str, Any]) -> None:
    with served(Words) as server:
        found = events(chat(server, stream=True, **options))
    assert ["usage" in each for each in found] == [False, False, False, True]
    assert found[-1]["usage"]["total_tokens"] == 5


def test_tokens_have_a_chunk_of_their_own_if_they_are_asked_for() -> None:
    with served(Words) as server:
        found = events(chat(server, stream=True, stream_options={"include_usage": True}))
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert not any("usage" in each for each in found[:-1])


def test_tokens_are_left_out_if_they_are_not_wanted() -> None:
    with served(Words) as server:
        assert not any("usage" in each for each in events(chat(server, stream=True, stream_options={"include_usage": False})))


def test_several_choices_are_independent() -> None:
    with served(Words) as server:
        found = chat(server, n=3, seed=10).json()
        assert [call.endpoint for call in server.calls] == ["chat"] * 3
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in found["choices"]] == ["hi 0.7 10", "hi 0.7 11", "hi 0.7 12"]
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


class Uneven(LitAPI):
    def predict(self, x: Any, context: Any) -> Iterator[Any]:
        for number in range(context["seed"]):
            yield f"{number}"
        yield {"finish_reason": "length" if context["seed"] % 2 else "stop"}


def test_each_choice_of_a_stream_ends_alone() -> None:
    with served(Uneven) as server:
        found = events(chat(server, stream=True, n=3, seed=1))
    for index in range(3):
        own = [each["choices"][0] for each in found if each["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in own) == "012"[: index + 1]
        assert [choice["delta"].get("role") for choice in own].count("assistant") == 1
        assert [choice.get("finish_reason") for choice in own] == [None] * (index + 1) + ["stop" if index == 1 else "length"]
    assert ["usage" in each for each in found].count(True) == 1
    assert "usage" in found[-1]


def test_the_maximum_is_why_an_answer_ends() -> None:
    with served(Words) as server:
        assert chat(server, max_tokens=2).json()["choices"][0]["finish_reason"] == "length"
        assert chat(server, max_tokens=9, max_completion_tokens=2).json()["choices"][0]["finish_reason"] == "length"
        assert chat(server, max_tokens=3).json()["choices"][0]["finish_reason"] == "stop"


class Silent(LitAPI):
    def predict(self, x: Any) -> Iterator[Any]:
        yield from ()


def test_an_answer_may_be_empty() -> None:
    with served(Silent) as server:
        assert chat(server).json()["choices"][0]["message"] == {"role": "assistant", "content": ""}
        assert [each["choices"][0]["delta"] for each in events(chat(server, stream=True))] == [{"role": "assistant"}]


# -- hooks --------------------------------------------------------------------------------------------------------


class Echo(LitAPI):
    def predict(self, x: Any, context: Any) -> Iterator[Any]:
        yield json.dumps([x, {name: value for name, value in context.items() if value is not None}], sort_keys=True)


def test_predict_gets_messages_and_the_context_all_else() -> None:
    with served(Echo) as server:
        messages = [{"role": "system", "content": "be", "name": None}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        said = {"temperature": 0, "top_k": 5, "tools": [{"type": "function", "function": {"name": "f"}}], "stop": ["x"]}
        message, context = json.loads(chat(server, messages=messages, **said).json()["choices"][0]["message"]["content"])
    assert message == [{"role": "system", "content": "be"}, messages[1]]
    assert context["temperature"] == 0
    assert (context["top_k"], context["stop"], context["model"], context["n"]) == (5, ["x"], "m", 1)
    assert context["tools"][0]["function"]["name"] == "f"
    assert "messages" not in context


class Decoding(TestAPI):
    def decode_request(self, request: ChatCompletionRequest) -> str:
        content = request.messages[-1].content
        assert isinstance(content, str)
        return content.upper()

    def predict(self, x: Any, **kwargs: Any) -> Iterator[Any]:
        yield x

    def encode_response(self, output: Iterable[Any], **kwargs: Any) -> Iterator[Any]:
        for each in output:
            yield {"role": "assistant", "content": f"<{each}>"}


def test_own_hooks_stand_between() -> None:
    with served(Decoding) as server:
        assert chat(server).json()["choices"][0]["message"]["content"] == "<HI>"
        assert answered(server, "POST", COMPLETIONS, {"prompt": "a"}).json()["choices"][0]["text"] == "<A>"


def test_the_examples() -> None:
    sentence = "This is a generated output"
    with served(TestAPI) as server:
        assert chat(server).json()["choices"][0]["message"]["content"] == sentence
    with served(TestAPIWithCustomEncode) as server:
        assert chat(server).json()["choices"][0]["message"]["content"] == "This is a custom encoded output"
    with served(TestAPIWithStructuredOutput) as server:
        assert json.loads(chat(server).json()["choices"][0]["message"]["content"])["date"] == "Friday"
    with served(OpenAIWithUsage) as server:
        assert chat(server).json()["usage"] == {"prompt_tokens": 25, "completion_tokens": 10, "total_tokens": 35}


def test_calls_of_tools() -> None:
    with served(TestAPIWithToolCalls) as server:
        choice = chat(server).json()["choices"][0]
        streamed = [each["choices"][0] for each in events(chat(server, stream=True))]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "function_1", "arguments": '{"arg_1": "arg_1_value"}'}}
    ]
    assert streamed[0]["delta"]["tool_calls"][0]["index"] == 0
    assert streamed[-1]["finish_reason"] == "tool_calls"


class Async(LitAPI):
    async def predict(self, x: Any, context: Any) -> AsyncIterator[Any]:
        for word in ("a", "b"):
            await asyncio.sleep(0)
            yield f"{word}{context['temperature']:g}"


@pytest.mark.parametrize(
    ("api", "options", "wanted"), [(Async, {"enable_async": True}, "a0b0"), (OpenAIBatchContext, {"max_batch_size": 2}, "Hi! It's me. 0.0")]
)
def test_async_and_batches(api: type[LitAPI], options: dict[str, Any], wanted: str) -> None:
    pytest.importorskip("leyden.serve.executors.choice")
    with served(api, **options) as server:
        assert [choice["message"]["content"] for choice in chat(server, n=2, temperature=0).json()["choices"]] == [wanted] * 2
        assert (
            "".join(each["choices"][0]["delta"].get("content", "") for each in events(chat(server, stream=True, temperature=0))) == wanted
        )


# -- completions --------------------------------------------------------------------------------------------------


def test_prompts_are_completed() -> None:
    with served(Words) as server:
        found = answered(server, "POST", COMPLETIONS, {"prompt": "ab", "seed": 1}).json()
    assert found["id"].startswith("cmpl-")
    assert (found["object"], found["model"]) == ("text_completion", "Words")
    assert found["choices"] == [{"index": 0, "text": "ab 0.7 1", "finish_reason": "stop"}]


def test_each_prompt_has_its_own_completions() -> None:
    with served(Words) as server:
        found = answered(server, "POST", COMPLETIONS, {"prompt": ["a", "b"], "n": 2, "seed": 5}).json()
        assert [json.loads(call.body)["prompt"] for call in server.calls] == ["a", "a", "b", "b"]
    assert [choice["text"] for choice in found["choices"]] == ["a 0.7 5", "a 0.7 6", "b 0.7 5", "b 0.7 6"]
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert found["usage"] == {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14}


@pytest.mark.parametrize("prompt", ["a", ["a"]])
def test_predict_gets_one_prompt(prompt: Any) -> None:
    with served(Echo) as server:
        found = answered(server, "POST", COMPLETIONS, {"prompt": prompt}).json()
    assert json.loads(found["choices"][0]["text"])[0] == "a"


def test_prompts_may_be_tokens_and_answers_streams() -> None:
    with served(Echo) as server:
        found = answered(server, "POST", COMPLETIONS, {"prompt": [[1, 2], [3]], "stream": True})
    texts = [each["choices"][0]["text"] for each in events(found)]
    assert [json.loads(text)[0] for text in texts if text] == [[1, 2], [3]]


# -- models and options -------------------------------------------------------------------------------------------


def test_models_are_listed() -> None:
    with served(Words) as server:
        found = answered(server, "GET", MODELS).json()
        assert [(model["id"], model["object"]) for model in found["data"]] == [("Words", "model")]
        assert answered(server, "GET", f"{MODELS}/Words").json() == found["data"][0]
        missing = answered(server, "GET", f"{MODELS}/org/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
    assert "'org/other' does not exist. There are: Words" in missing.json()["error"]["message"]


def test_models_that_are_named_are_the_only_ones() -> None:
    with SpecServer(Words(spec=OpenAISpec(models=["org/tiny", "b"]))) as server:
        assert answered(server, "GET", f"{MODELS}/org/tiny").json()["id"] == "org/tiny"
        assert chat(server, model="b").json()["model"] == "b"
        assert answered(server, "POST", CHAT, {"messages": HI}).json()["model"] == "org/tiny"
        assert chat(server).status_code == 404
    with pytest.raises(ConfigError, match="models='a' is not accepted"):
        OpenAISpec(models="a")


@pytest.mark.parametrize(("path", "allowed"), [(CHAT, "POST"), (COMPLETIONS, "POST"), (MODELS, "GET"), (f"{MODELS}/a", "GET")])
def test_options(path: str, allowed: str) -> None:
    with served(Words) as server:
        found = answered(server, "OPTIONS", path)
    assert (found.status_code, found.headers["allow"], found.content) == (200, f"{allowed}, OPTIONS", b"")


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "request.invalid_json", None),
        (b"[]", 422, "request.invalid", None),
        (b'{"messages": []}', 422, "request.invalid", "messages"),
        (b'{"messages": [{"role": "user", "content": 5}]}', 422, "request.invalid", "messages.0.content.str"),
        (b'{"messages": [{"role": "user", "content": "a"}], "n": 0}', 422, "request.invalid", "n"),
        (b'{"messages": [{"role": "user", "content": "a"}], "stream": true, "top_p": 5}', 422, "request.invalid", "top_p"),
    ],
)
def test_what_a_client_did_wrong_is_told_before_anything_is_computed(body: bytes, status: int, code: str, param: str | None) -> None:
    with served(Words) as server:
        found = answered(server, "POST", CHAT, body)
        assert server.calls == []
    error = found.json()["error"]
    assert (found.status_code, found.json()["code"], error["code"], error["param"]) == (status, code, code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"] == found.json()["message"]


def test_too_many_prompts() -> None:
    with served(Words) as server:
        found = answered(server, "POST", COMPLETIONS, {"prompt": ["a"] * 70, "n": 2})
    assert found.status_code == 422
    assert "70 prompts with n=2" in found.json()["error"]["message"]


class Refusing(LitAPI):
    def predict(self, x: Any, context: Any) -> Iterator[Any]:
        from starlette.exceptions import HTTPException

        if context["seed"] == 1:
            raise HTTPException(402, "Pay first.", {"x-price": "1"})
        if context["seed"] == 2:
            raise ValueError("secret")
        yield "a"
        if context["seed"] == 3:
            raise ValueError("secret")
        if context["seed"] == 4:
            yield 5


@pytest.mark.parametrize("stream", [True, False])
def test_errors_before_the_first_chunk_have_a_status(stream: bool) -> None:
    with served(Refusing) as server:
        paid, broken = chat(server, stream=stream, seed=1), chat(server, stream=stream, seed=2)
    assert (paid.status_code, paid.json(), paid.headers["x-price"]) == (402, {"detail": "Pay first."}, "1")
    assert broken.status_code == 500
    assert broken.json()["detail"] == "Internal server error"
    assert broken.json()["error"] == {
        "message": "predict() raised ValueError: secret",
        "type": "server_error",
        "param": None,
        "code": "worker.failed",
    }


@pytest.mark.parametrize("count", [1, 2])
def test_errors_after_it_are_events_and_the_stream_ends_as_usual(count: int) -> None:
    with served(Refusing) as server:
        first, *_, last = events(chat(server, stream=True, seed=3, n=count))
    assert first["choices"][0]["delta"]["content"] == "a"
    assert last == {
        "error": {"message": "predict() raised ValueError: secret", "type": "server_error", "param": None, "code": "worker.failed"}
    }


def test_malformed_output() -> None:
    with served(Refusing) as server:
        whole, streamed = chat(server, seed=4), chat(server, seed=4, stream=True)
    assert (whole.status_code, whole.json()["detail"]) == (500, "Malformed output from LitAPI.predict")
    assert "it is a int" in events(streamed)[-1]["error"]["message"]


def test_what_went_wrong_in_a_hook_may_be_hidden() -> None:
    with SpecServer(Refusing(spec=OpenAISpec()), exposes_errors=False) as server:
        assert "secret" not in chat(server, seed=2).text
        assert events(chat(server, stream=True, seed=3))[-1]["error"]["message"] == "Internal server error"


# -- what an API must be ------------------------------------------------------------------------------------------


class NoGenerator(LitAPI):
    def predict(self, x: Any) -> Any:
        return "a"


class NoEncoder(TestAPI):
    def encode_response(self, output: Any, **kwargs: Any) -> Any:
        return {"role": "assistant", "content": "a"}


class AsyncNoEncoder(NoEncoder):
    pass


@pytest.mark.parametrize(
    ("api", "options", "message"),
    [
        (
            NoGenerator,
            {},
            r"predict\(\) is a function, and OpenAISpec needs a generator.*\n    def predict\(self, messages\):\n        yield",
        ),
        (NoGenerator, {"enable_async": True}, r"\n    async def predict\(self, messages\):"),
        (LitAPI, {}, r"predict\(\) is a function"),
        (NoEncoder, {}, r"encode_response\(\) is a function.*\n    def encode_response\(self, outputs\):\n        for output in outputs:"),
    ],
)
def test_what_does_not_yield_is_told_with_what_would(api: type[LitAPI], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        OpenAISpec().pre_setup(api(**options))


def test_an_api_gets_the_path_that_clients_expect() -> None:
    api = Words(spec=OpenAISpec())
    api.spec.pre_setup(api)
    assert (api.api_path, api.stream) == (CHAT, True)


def test_another_path_is_told() -> None:
    api = Words(spec=OpenAISpec(), api_path="/chat")
    with pytest.warns(UserWarning, match=r"api_path='/chat': clients of this protocol expect /v1/chat/completions"):
        server = SpecServer(api)
    with server:
        assert answered(server, "POST", "/chat", {"messages": HI}).status_code == 200
        assert answered(server, "POST", CHAT, {"messages": HI}).status_code == 404
        assert answered(server, "OPTIONS", "/chat").headers["allow"] == "POST, OPTIONS"
        assert answered(server, "GET", "/v1/models").status_code == 404


def test_a_path_with_the_usual_end_is_another_base_url() -> None:
    with SpecServer(Words(spec=OpenAISpec(models=["small"]), api_path="/small/v1/chat/completions")) as server:
        assert answered(server, "POST", "/small/v1/chat/completions", {"messages": HI}).status_code == 200
        assert answered(server, "POST", "/small/v1/completions", {"prompt": "a"}).status_code == 200
        assert answered(server, "GET", "/small/v1/models/small").json()["id"] == "small"
        assert answered(server, "GET", "/v1/models").status_code == 404


def test_one_server_may_have_several_chats() -> None:
    one, two = Words(spec=OpenAISpec()), Words(spec=OpenAISpec(), api_path="/two/v1/chat/completions")
    assert [api.path for api in LitServer([one, two], accelerator="cpu").config.apis] == [CHAT, "/two/v1/chat/completions"]
