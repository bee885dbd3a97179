"""`Piece`: what a worker sends of one answer. Whatever `predict` may yield becomes one here, and nothing else does.

A piece has what belongs to a message apart from what belongs to its choice, in a form that the front end reads in less than a
microsecond and mostly writes out as it came.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from leyden.serve.codec import write_json
from leyden.serve.faults import Fault

_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_OF_CHOICE: Final = frozenset({"role", "content", "text", "tool_calls", "finish_reason", "logprobs", "usage", *_COUNTS})
_KNOWN: Final = _OF_CHOICE | {"refusal", "reasoning_content", "reasoning", "audio", "annotations", "function_call"}
_USUAL: Final = frozenset({"role", "content"})
_SHOWN: Final = 200
_LISTS: tuple[type, ...] = (list, tuple)


class Piece(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A part of an answer.

    Args:
        text: Of the message.
        role: Whose message it is; the assistant's if that is not said.
        tools: Calls of tools, or parts of them.
        more: Further fields of the message.
        finish: Why the answer ends.
        logprobs: Of its tokens.
        usage: Tokens that it took.
    """

    text: str | None = None
    role: str | None = None
    tools: list[dict[str, Any]] | None = None
    more: dict[str, Any] | None = None
    finish: str | None = None
    logprobs: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


_encode: Final = msgspec.json.Encoder().encode
read_piece: Final = msgspec.json.Decoder(Piece).decode


def write_piece(output: Any) -> bytes:
    r"""Return what a hook yielded as a line for the front end.

    Args:
        output: Text, `None`, a message as a dict or a model, or a list that ends in one.

    Raises:
        Fault: 500: it is nothing of that kind.

    Example:
        >>> write_piece("Hi")
        b'{"text":"Hi"}\n'
        >>> write_piece({"role": "assistant", "content": "Hi", "finish_reason": "length", "total_tokens": 3})
        b'{"text":"Hi","role":"assistant","finish":"length","usage":{"total_tokens":3}}\n'
    """
    if type(output) is str:
        piece = Piece(text=output)
    elif type(output) is dict and output.keys() <= _USUAL and type(output.get("content")) is str:  # a fifth of the time of the rest
        piece = Piece(text=output["content"], role=_str(output.get("role")))
    else:
        piece = _piece(output)
    try:
        return _encode(piece) + b"\n"
    except (TypeError, ValueError, OverflowError):  # arrays and other things that JSON does not have, or what nobody can write
        return _slowly(piece, output) + b"\n"


def _slowly(piece: Piece, output: Any) -> bytes:
    try:
        return write_json(_legible(json.loads(write_json(piece))))
    except (TypeError, ValueError, OverflowError) as error:
        raise _malformed(output, f"it cannot be written: {error}") from error


def _legible(value: Any) -> Any:
    """Return a value without lone surrogates, which JSON can say and nobody can read: a client may have sent them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_legible(each) for each in value]
    if isinstance(value, dict):
        return {_legible(name): _legible(each) for name, each in value.items()}
    return value


def _piece(output: Any) -> Piece:
    if isinstance(output, _LISTS) and output:
        output = output[-1]
    if output is None or isinstance(output, str):
        return Piece(text=output)
    if hasattr(output, "model_dump"):
        output = output.model_dump(exclude_none=True)
    if not isinstance(output, Mapping):
        raise _malformed(output, f"it is a {type(output).__name__}")
    if not _KNOWN & output.keys():
        raise _malformed(output, f"it has none of the keys 'content', 'text', 'tool_calls', only {list(output)}"[:_SHOWN])
    return Piece(
        text=_text(output.get("content", output.get("text"))),
        role=_str(output.get("role")),
        tools=[_tool(each) for each in output.get("tool_calls") or ()] or None,
        more={name: value for name, value in output.items() if name not in _OF_CHOICE and value is not None} or None,
        finish=_str(output.get("finish_reason")),
        logprobs=_plain_dict(output.get("logprobs")),
        usage=_usage(output),
    )


def _text(content: Any) -> str | None:
    """Return a message's content, which may be in parts, as text."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    raise _malformed(content, f"its content is a {type(content).__name__}, and no text")


def _str(value: Any) -> str | None:
    return None if value is None else str(value)


def _tool(call: Any) -> dict[str, Any]:
    """Return a call of a tool as a dict whose arguments are text."""
    call = dict(_plain_dict(call) or {})
    function = _plain_dict(call.get("function"))
    if not function:
        raise _malformed(call, "a call of a tool has no function")
    arguments = function.get("arguments", "")
    if not isinstance(arguments, str):
        function = {**function, "arguments": write_json(arguments).decode()}
    return {**call, "function": function}


def _usage(output: Mapping[str, Any]) -> dict[str, Any] | None:
    counts = {name: output[name] for name in _COUNTS if output.get(name) is not None}
    return {**(_plain_dict(output.get("usage")) or {}), **counts} or None


def _plain_dict(value: Any) -> dict[str, Any] | None:
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    if value is None or isinstance(value, Mapping):
        return None if value is None else dict(value)
    raise _malformed(value, f"a dict is due where {type(value).__name__} is")


def _malformed(output: Any, reason: str) -> Fault:
    message = (
        f"Malformed output from LitAPI.predict: {reason}. It got {output!r:.80}. Yield text, a dict such as "
        '{"role": "assistant", "content": "…"}, or a ChatMessage.'
    )
    return Fault(500, "worker.malformed_output", message, detail="Malformed output from LitAPI.predict")
