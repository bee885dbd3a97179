"""Choices: chunks and whole answers say the same, and each chunk is what OpenAI's clients read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.serve.specs.openai.choices import ChatChoice, Choice, Head, TextChoice, added_up, usage_of
from leyden.serve.specs.openai.pieces import Piece
from leyden.serve.specs.openai.protocol import ChatCompletionChunk, CompletionResponse

HEAD = Head("chatcmpl-1", 7, 'a "model"')


def event(data: bytes) -> dict[str, Any]:
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    assert data.count(b"\n") == 2
    return json.loads(data[6:])


def events(choice: Choice, *pieces: Piece) -> list[dict[str, Any]]:
    return [event(data) for data in [*map(choice.chunk, pieces), choice.last_chunk()] if data]


def deltas(*pieces: Piece) -> list[dict[str, Any]]:
    return [each["choices"][0]["delta"] for each in events(ChatChoice(0, HEAD), *pieces)]


def whole(*pieces: Piece, most: int | None = None) -> dict[str, Any]:
    choice = ChatChoice(0, HEAD, most)
    for piece in pieces:
        choice.add(piece)
    return choice.whole()


def call(name: str | None = None, arguments: str = "", **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments} if name else {"arguments": arguments}, **more}


def test_chunks_have_one_head_and_no_nulls() -> None:
    found = events(ChatChoice(2, HEAD), Piece(text="a"), Piece(text="b"))
    assert found[0] == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": 'a "model"',
        "choices": [{"index": 2, "delta": {"role": "assistant", "content": "a"}}],
    }
    assert found[1]["choices"] == [{"index": 2, "delta": {"content": "b"}}]
    assert found[2]["choices"] == [{"index": 2, "delta": {}, "finish_reason": "stop"}]
    for each in found:
        ChatCompletionChunk.model_validate(each)


def test_the_role_comes_once_and_first() -> None:
    first, second = Piece(text="a", role="assistant"), Piece(text="b", role="assistant")
    assert deltas(first, second) == [{"role": "assistant", "content": "a"}, {"content": "b"}, {}]
    assert deltas(Piece(role="tool"), Piece(text="b")) == [{"role": "tool"}, {"content": "b"}, {}]
    assert deltas() == [{"role": "assistant"}]


def test_what_adds_nothing_is_no_chunk() -> None:
    choice = ChatChoice(0, HEAD)
    choice.chunk(Piece(text="a"))
    assert choice.chunk(Piece()) == choice.chunk(Piece(finish="stop", usage={"prompt_tokens": 1})) == b""
    assert TextChoice(0, HEAD).chunk(Piece(role="assistant")) == b""


def test_further_fields_and_logprobs_have_their_places() -> None:
    choice = ChatChoice(0, HEAD)
    choice.chunk(Piece(text="a"))
    found = event(choice.chunk(Piece(text="b", more={"reasoning_content": "c"}, logprobs={"content": [1]})))
    assert found["choices"] == [{"index": 0, "delta": {"content": "b", "reasoning_content": "c"}, "logprobs": {"content": [1]}}]
    assert event(choice.chunk(Piece(logprobs={"content": [2]})))["choices"] == [{"index": 0, "delta": {}, "logprobs": {"content": [2]}}]


def test_calls_of_tools_are_numbered_and_continued() -> None:
    calls = [call("f", '{"x"', id="a"), call(None, ":1}"), call("g", "{}"), call(None, "{}", index=0)]
    first, second, third, fourth, _ = deltas(*(Piece(tools=[each]) for each in calls))
    assert first["tool_calls"] == [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x"'}, "index": 0}]
    assert second["tool_calls"] == [{"function": {"arguments": ":1}"}, "index": 0}]
    assert third["tool_calls"][0]["index"] == 1
    assert third["tool_calls"][0]["id"].startswith("call_")
    assert fourth["tool_calls"] == [{"function": {"arguments": "{}"}, "index": 0}]


def test_a_whole_message_has_whole_calls() -> None:
    found = whole(Piece(tools=[call("f", '{"x"', id="a"), call("g", "{}", id="b")]), Piece(tools=[call(None, ":1}", index=0)]))
    assert found == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        "finish_reason": "tool_calls",
    }


def test_a_whole_message_joins_what_comes_in_parts() -> None:
    found = whole(
        Piece(text="a", more={"reasoning_content": "x", "audio": 1}, logprobs={"content": [1], "refusal": None}),
        Piece(text="b", role="tool", more={"reasoning_content": "y", "audio": 2}, logprobs={"content": [2]}),
    )
    assert found["message"] == {"role": "tool", "content": "ab", "reasoning_content": "xy", "audio": 2}
    assert found["logprobs"] == {"content": [1, 2], "refusal": None}
    assert whole()["message"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("pieces", "most", "reason"),
    [
        ([Piece(text="a")], None, "stop"),
        ([Piece(text="a", finish="content_filter")], None, "content_filter"),
        ([Piece(tools=[call("f")], finish="stop")], None, "stop"),
        ([Piece(tools=[call("f")])], 1, "tool_calls"),
        ([Piece(usage={"completion_tokens": 2}), Piece(usage={"completion_tokens": 1})], 3, "length"),
        ([Piece(usage={"completion_tokens": 2})], 3, "stop"),
        ([Piece(text="a")], 0, "stop"),
    ],
)
def test_why_an_answer_ends(pieces: list[Piece], most: int | None, reason: str) -> None:
    assert whole(*pieces, most=most)["finish_reason"] == reason
    choice = ChatChoice(0, HEAD, most)
    for piece in pieces:
        choice.chunk(piece)
    assert event(choice.last_chunk())["choices"][0]["finish_reason"] == reason


def test_completions_are_text() -> None:
    choice = TextChoice(1, Head("cmpl-1", 7, "m"))
    found = events(choice, Piece(text="a"), Piece(logprobs={"tokens": ["b"]}))
    assert [each["choices"] for each in found] == [
        [{"index": 1, "text": "a"}],
        [{"index": 1, "text": "", "logprobs": {"tokens": ["b"]}}],
        [{"index": 1, "text": "", "finish_reason": "stop"}],
    ]
    for each in found:
        CompletionResponse.model_validate(each)
    for piece in (Piece(text="a"), Piece(text="b", logprobs={"tokens": ["b"]})):
        choice.add(piece)
    assert choice.whole() == {"index": 1, "text": "ab", "logprobs": {"tokens": ["b"]}, "finish_reason": "stop"}


@given(st.lists(st.none() | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5), max_size=8))
def test_chunks_say_what_the_whole_says(texts: list[str | None]) -> None:
    pieces = [Piece(text=text) for text in texts]
    for kind, read in ((ChatChoice, lambda each: each["delta"].get("content")), (TextChoice, lambda each: each["text"])):
        once, parts = kind(0, HEAD), kind(0, HEAD)
        for piece in pieces:
            once.add(piece)
        joined = "".join(read(each["choices"][0]) or "" for each in events(parts, *pieces))
        found = once.whole()
        assert joined == (found["message"]["content"] if "message" in found else found["text"])


# -- tokens -------------------------------------------------------------------------------------------------------


def test_counts_add_up_whatever_they_count() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 2}}
    assert added_up(details, {**details, "cost": None, "tier": "a"}) == {"completion_tokens_details": {"reasoning_tokens": 4}, "tier": "a"}


@pytest.mark.parametrize(
    ("parts", "num_prompts", "wanted"),
    [
        ([], 1, (0, 0, 0)),
        ([{}], 1, (0, 0, 0)),
        ([{"total_tokens": 9}], 1, (0, 0, 9)),
        ([{"prompt_tokens": 3, "completion_tokens": 2}] * 2, 1, (3, 4, 7)),
        ([{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}] * 4, 2, (6, 8, 14)),
    ],
)
def test_a_prompt_counts_once_however_many_answers_it_has(parts: list[Any], num_prompts: int, wanted: tuple[int, int, int]) -> None:
    found = usage_of(parts, num_prompts)
    assert (found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]) == wanted
