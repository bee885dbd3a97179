"""Requests: what is documented is read and has its defaults, what is not is kept, what is wrong is told."""

from typing import Any

import pydantic
import pytest

from leyden.serve.specs import openai
from leyden.serve.specs.openai.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    ImageContent,
    JSONSchema,
    NamedToolChoice,
    OtherContent,
    TextContent,
)

HI = [{"role": "user", "content": "hi"}]


def test_defaults_are_the_documented_ones() -> None:
    settings = ChatCompletionRequest(messages=HI).settings()  # type: ignore[arg-type]
    wanted = {
        "temperature": 0.7,
        "top_p": 1.0,
        "n": 1,
        "tool_choice": "auto",
        "stream": False,
        "max_tokens": None,
        "stop": None,
        "tools": None,
    }
    assert {name: settings[name] for name in wanted} == wanted
    assert "messages" not in settings


def test_zero_is_said_and_null_is_not() -> None:
    request = ChatCompletionRequest.model_validate({"messages": HI, "temperature": 0, "top_p": None, "n": None, "seed": 0})
    settings = request.settings()
    assert (settings["temperature"], settings["top_p"], settings["n"], settings["seed"]) == (0, 1.0, 1, 0)


def test_unknown_fields_are_kept() -> None:
    request = ChatCompletionRequest.model_validate({"messages": [{**HI[0], "weight": 0}], "top_k": 3, "extra": {"a": 1}})
    assert request.settings()["top_k"] == 3
    assert request.settings()["extra"] == {"a": 1}
    assert request.messages[0].model_dump(exclude_none=True) == {**HI[0], "weight": 0}


@pytest.mark.parametrize("choice", ["none", "auto", "required", "any"])
def test_choices_of_tools(choice: str) -> None:
    assert ChatCompletionRequest.model_validate({"messages": HI, "tool_choice": choice}).settings()["tool_choice"] == choice


def test_a_named_tool() -> None:
    request = ChatCompletionRequest.model_validate({"messages": HI, "tool_choice": {"type": "function", "function": {"name": "f"}}})
    assert isinstance(request.tool_choice, NamedToolChoice)
    assert request.settings()["tool_choice"] == {"type": "function", "function": {"name": "f"}}


def test_contents_in_parts() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"type": "file", "file": {"file_id": "1"}},
    ]
    content = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": parts}]}).messages[0].content
    assert [type(part) for part in content or ()] == [TextContent, ImageContent, OtherContent]


def test_a_schema_keeps_its_name() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "Event", "schema": {"type": "object"}, "strict": True}}
    settings = ChatCompletionRequest.model_validate({"messages": HI, "response_format": wanted}).settings()
    assert settings["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert JSONSchema(name="a", schema_def={}).schema_def == {}


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"messages": []}, ("messages",)),
        ({"messages": "hi"}, ("messages",)),
        ({"messages": [{"content": "hi"}]}, ("messages", 0, "role")),
        ({"messages": [{"role": "nobody", "content": "hi"}]}, ("messages", 0, "role")),
        ({"messages": HI, "temperature": 3}, ("temperature",)),
        ({"messages": HI, "top_p": -1}, ("top_p",)),
        ({"messages": HI, "n": 0}, ("n",)),
        ({"messages": HI, "n": 1000}, ("n",)),
        ({"messages": HI, "max_tokens": -1}, ("max_tokens",)),
        ({"messages": HI, "tools": [{"type": "function"}]}, ("tools", 0, "function")),
        ({"messages": HI, "response_format": {"type": "xml"}}, ("response_format",)),
    ],
)
def test_what_is_wrong_is_told_with_its_place(wrong: dict[str, Any], place: tuple[Any, ...]) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        ChatCompletionRequest.model_validate(wrong)
    assert caught.value.errors()[0]["loc"] == place


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2], [[1], [2]]])
def test_prompts(prompt: Any) -> None:
    request = CompletionRequest(prompt=prompt)
    assert request.prompt == prompt
    assert "prompt" not in request.settings()


@pytest.mark.parametrize(("prompt", "texts"), [("a", ["a"]), ("", [""]), (["a", "b"], ["a", "b"])])
def test_a_prompt_is_a_chat_to_who_reads_chats(prompt: Any, texts: list[str]) -> None:
    assert [(each.role, each.content) for each in CompletionRequest(prompt=prompt).messages] == [("user", text) for text in texts]


@pytest.mark.parametrize("prompt", [[1, 2], [[1], [2]]])
def test_tokens_are_no_chat(prompt: Any) -> None:
    with pytest.raises(ValueError, match="prompt has tokens, and this model reads messages: send text"):
        _ = CompletionRequest(prompt=prompt).messages


def test_the_newer_name_of_a_limit_counts_first() -> None:
    request = ChatCompletionRequest.model_validate({"messages": HI, "max_tokens": 5, "max_completion_tokens": 7})
    assert request.max_completion == 7
    assert ChatCompletionRequest.model_validate({"messages": HI, "max_tokens": 5}).max_completion == 5


def test_litserves_names_are_here() -> None:
    names = """
        ChatMessage ChatMessageWithUsage ChatCompletionRequest ChatCompletionResponse ChatCompletionResponseChoice
        ChatCompletionChunk ChatCompletionStreamingChoice ChoiceDelta UsageInfo Role Tool ToolCall ToolChoice Function
        FunctionCall TextContent ImageContent ImageContentURL AudioContent InputAudio ResponseFormat ResponseFormatText
        ResponseFormatJSONObject ResponseFormatJSONSchema JSONSchema OpenAISpec
    """
    for name in names.split():
        assert getattr(openai, name) is not None
