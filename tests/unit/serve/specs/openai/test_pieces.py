"""Pieces: whatever `predict` may yield becomes one, and nothing else does."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.serve.faults import Fault
from leyden.serve.specs.openai.pieces import Piece, read_piece, write_piece
from leyden.serve.specs.openai.protocol import ChatMessage, ChatMessageWithUsage, FunctionCall, Role, ToolCall

COUNTED = ChatMessageWithUsage(role=Role.assistant, content="a", prompt_tokens=1)


def function(arguments: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}


def counts(*numbers: int) -> dict[str, int]:
    return dict(zip(("prompt_tokens", "completion_tokens", "total_tokens"), numbers, strict=True))


CALL = function("{}")


def told(output: Any) -> Piece:
    written = write_piece(output)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    return read_piece(written)


@pytest.mark.parametrize(
    ("output", "piece"),
    [
        ("a\nb", Piece(text="a\nb")),
        ("", Piece(text="")),
        (None, Piece()),
        ({"role": "assistant", "content": "a"}, Piece(text="a", role="assistant")),
        ({"text": "a"}, Piece(text="a")),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, Piece(text="ab")),
        ({"content": "a", "finish_reason": "length"}, Piece(text="a", finish="length")),
        ({"finish_reason": "stop"}, Piece(finish="stop")),
        ({"content": "a", "logprobs": {"content": [{"token": "a"}]}}, Piece(text="a", logprobs={"content": [{"token": "a"}]})),
        ({"content": None, "tool_calls": [CALL]}, Piece(tools=[CALL])),
        ({"tool_calls": [function({"x": 1})]}, Piece(tools=[function('{"x":1}')])),
        ({"content": "a", "reasoning_content": "because", "name": None}, Piece(text="a", more={"reasoning_content": "because"})),
        ({"content": "a", **counts(1, 2, 3)}, Piece(text="a", usage=counts(1, 2, 3))),
        ({"usage": {"prompt_tokens": 1}, "completion_tokens": 2}, Piece(usage={"prompt_tokens": 1, "completion_tokens": 2})),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], Piece(text="a", role="assistant")),
        (ChatMessage(role=Role.assistant, content="a"), Piece(text="a", role="assistant")),
        (COUNTED, Piece(text="a", role="assistant", usage=counts(1, 0, 0))),
        ({"tool_calls": [ToolCall(id="call_1", function=FunctionCall(name="f", arguments="{}"))]}, Piece(tools=[CALL])),
        ({"content": "a", "more": 1, "score": np.float32(0.5)}, Piece(text="a", more={"more": 1, "score": 0.5})),
    ],
)
def test_what_predict_may_yield(output: Any, piece: Piece) -> None:
    assert told(output) == piece


@pytest.mark.parametrize(
    "output",
    [
        5,
        b"bytes",
        [],
        [1],
        {},
        {"output": "a"},
        {"content": 5},
        {"content": [{"type": "image_url"}]},
        {"content": "a", "usage": 5},
        {"tool_calls": [{"id": "x"}]},
        {"tool_calls": ["f"]},
        {"content": "a", "more": object()},
    ],
)
def test_anything_else_is_malformed_and_says_what_is_not(output: Any) -> None:
    with pytest.raises(Fault, match=r"Malformed output from LitAPI.predict: .* Yield text, a dict such as") as caught:
        write_piece(output)
    assert caught.value.status == 500
    assert caught.value.detail == "Malformed output from LitAPI.predict"


@given(st.text())
def test_text_comes_out_as_it_went_in(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert told(text).text == told({"content": text}).text == text
    assert json.loads(write_piece(text)) == {"text": text}


def test_half_a_character_that_a_client_may_have_sent_is_replaced() -> None:
    piece = told({"content": "a\ud800b", "tool_calls": [{"function": {"name": "\udc00"}}], "more": {"\ud800": ["\ud83d"]}})
    assert (piece.text, piece.more) == ("a\ufffdb", {"more": {"\ufffd": ["\ufffd"]}})
    assert piece.tools == [{"function": {"name": "\ufffd"}}]
    assert told("\ud83d\ude00").text == "\U0001f600", "a pair is a character"
