"""`ChatChoice` and `TextChoice`: one of the answers to a request, as chunks or as a whole.

A chunk is bytes around bytes: what all chunks of a choice have in common is written once. From the worker's line to the event
for the client that takes 1 µs; building the classes of `protocol.py` and writing them would take 11, without reading the line.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, final

import msgspec

from leyden.serve.specs.openai.pieces import Piece

_json: Final = msgspec.json.Encoder().encode
TOOL_CALLS, LENGTH, STOP = "tool_calls", "length", "stop"
_JOINED: Final = frozenset({"refusal", "reasoning_content", "reasoning"})


class Head(NamedTuple):
    """What all chunks of a response have in common.

    Args:
        id: Of the response.
        created: When, in seconds since 1970.
        model: As the client asked for it.
    """

    id: str
    created: int
    model: str

    def fields(self, kind: str) -> dict[str, Any]:
        """Return them, for an object of a kind."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class Choice(ABC):
    """One answer, taken piece by piece.

    Args:
        index: Its place among the answers.
        head: Of the response.
        most: How many tokens it may have; `None` if that is not said.
    """

    kind: str
    chunk_kind: str

    def __init__(self, index: int, head: Head, most: int | None = None) -> None:
        self.index, self._most = index, most
        self.usage: dict[str, Any] = {}
        self._finish: str | None = None
        self._has_tools = self._has_begun = False
        self._before = b"data: " + _json({**head.fields(self.chunk_kind), "choices": []})[:-2] + b'{"index":%d' % index

    def chunk(self, piece: Piece) -> bytes:
        """Return what a piece adds, as an event; nothing if it adds nothing."""
        self._take(piece)
        added = self._added(piece)
        if piece.logprobs is not None:
            added += b',"logprobs":' + _json(piece.logprobs)
        return self._before + added + b"}]}\n\n" if added else b""

    def last_chunk(self, usage: Mapping[str, Any] | None = None) -> bytes:
        """Return the event that says why the answer ends.

        Args:
            usage: Tokens of all choices, if this is where they are told.
        """
        told = b"" if usage is None else b',"usage":' + _json(usage)
        return self._before + self._nothing() + b',"finish_reason":' + _json(self.finish) + b"}]" + told + b"}\n\n"

    def add(self, piece: Piece) -> None:
        """Keep a piece for `whole`."""
        self._take(piece)
        self._keep(piece)

    @property
    def finish(self) -> str:
        """Why the answer ends."""
        if self._finish is not None:
            return self._finish
        if self._has_tools:
            return TOOL_CALLS
        completion = self.usage.get("completion_tokens") or 0
        return LENGTH if self._most is not None and completion >= self._most > 0 else STOP

    def _take(self, piece: Piece) -> None:
        if piece.finish is not None:
            self._finish = piece.finish
        if piece.usage is not None:
            self.usage = added_up(self.usage, piece.usage)

    @abstractmethod
    def whole(self) -> dict[str, Any]:
        """Return all pieces as one."""

    @abstractmethod
    def _added(self, piece: Piece) -> bytes:
        """Return what a piece adds to the fields of the choice in a chunk."""

    @abstractmethod
    def _nothing(self) -> bytes:
        """Return what the last chunk adds."""

    @abstractmethod
    def _keep(self, piece: Piece) -> None:
        """Keep a piece."""


@final
class ChatChoice(Choice):
    r"""A message of the assistant.

    Example:
        >>> choice = ChatChoice(0, Head("chatcmpl-1", 0, "m"))
        >>> choice.chunk(Piece(text="Hi")).partition(b'"choices":')[2]
        b'[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}\n\n'
        >>> choice.chunk(Piece(text="!")).partition(b'"choices":')[2]
        b'[{"index":0,"delta":{"content":"!"}}]}\n\n'
    """

    kind, chunk_kind = "chat.completion", "chat.completion.chunk"

    def __init__(self, index: int, head: Head, most: int | None = None) -> None:
        super().__init__(index, head, most)
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        self._texts = list[str]()
        self._calls: dict[int, dict[str, Any]] = {}
        self._last_call = -1
        self._logprobs: dict[str, Any] | None = None

    def _added(self, piece: Piece) -> bytes:
        if self._has_begun and piece.tools is None and piece.more is None:
            if piece.text is None:
                return b',"delta":{}' if piece.logprobs is not None else b""
            return b',"delta":{"content":' + _json(piece.text) + b"}"
        delta: dict[str, Any] = {} if self._has_begun else {"role": piece.role or "assistant"}
        self._has_begun = True
        if piece.text is not None:
            delta["content"] = piece.text
        if piece.more is not None:
            delta.update(piece.more)
        if piece.tools is not None:
            delta["tool_calls"] = self._numbered(piece.tools)
        return b',"delta":' + _json(delta)

    def _nothing(self) -> bytes:
        return b',"delta":{}' if self._has_begun else self._added(Piece())

    def _numbered(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return calls of tools with the places that they, or what they go on, have in the message."""
        self._has_tools = True
        return [self._number(call) for call in calls]

    def _number(self, call: dict[str, Any]) -> dict[str, Any]:
        index = call.get("index")
        if not isinstance(index, int):
            names_one = call.get("id") or call["function"].get("name")
            index = self._last_call + 1 if names_one or self._last_call < 0 else self._last_call
        if index <= self._last_call:
            return {**call, "index": index}
        self._last_call = index
        said = {name: each for name, each in call.items() if each is not None}
        return {"id": f"call_{os.urandom(12).hex()}", "type": "function", **said, "index": index}

    def _keep(self, piece: Piece) -> None:
        if piece.role is not None:
            self._message["role"] = piece.role
        if piece.text is not None:
            self._texts.append(piece.text)
        for name, value in (piece.more or {}).items():
            self._message[name] = _joined(name, self._message.get(name), value)
        for call in self._numbered(piece.tools) if piece.tools else ():
            index = call.pop("index")
            known = self._calls.get(index)
            self._calls[index] = call if known is None else _continued(known, call)
        if piece.logprobs is not None:
            self._logprobs = _with_logprobs(self._logprobs, piece.logprobs)

    def whole(self) -> dict[str, Any]:
        message = {**self._message, "content": "".join(self._texts) if self._texts or not self._calls else None}
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        logprobs = {} if self._logprobs is None else {"logprobs": self._logprobs}
        return {"index": self.index, "message": message, **logprobs, "finish_reason": self.finish}


@final
class TextChoice(Choice):
    r"""A completion of a prompt.

    Args:
        index: Its place among the answers.
        head: Of the response.
        most: How many tokens it may have.

    Example:
        >>> TextChoice(0, Head("cmpl-1", 0, "m")).chunk(Piece(text="Hi")).partition(b'"choices":')[2]
        b'[{"index":0,"text":"Hi"}]}\n\n'
    """

    kind = chunk_kind = "text_completion"

    def __init__(self, index: int, head: Head, most: int | None = None) -> None:
        super().__init__(index, head, most)
        self._texts = list[str]()
        self._logprobs: dict[str, Any] | None = None

    def _added(self, piece: Piece) -> bytes:
        if piece.text is None and piece.logprobs is None:
            return b""
        return b',"text":' + _json(piece.text or "")

    def _nothing(self) -> bytes:
        return b',"text":""'

    def _keep(self, piece: Piece) -> None:
        if piece.text is not None:
            self._texts.append(piece.text)
        if piece.logprobs is not None:
            self._logprobs = _with_logprobs(self._logprobs, piece.logprobs)

    def whole(self) -> dict[str, Any]:
        logprobs = {} if self._logprobs is None else {"logprobs": self._logprobs}
        return {"index": self.index, "text": "".join(self._texts), **logprobs, "finish_reason": self.finish}


# -- adding up ----------------------------------------------------------------------------------------------------


def added_up(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts added to counts, whatever they count.

    Example:
        >>> added_up({"prompt_tokens": 3}, {"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 2}})
        {'prompt_tokens': 4, 'completion_tokens_details': {'reasoning_tokens': 2}}
    """
    total = dict(first)
    for name, value in second.items():
        known = total.get(name)
        if isinstance(value, Mapping):
            total[name] = added_up(known if isinstance(known, Mapping) else {}, value)
        elif isinstance(value, int | float) and isinstance(known, int | float):
            total[name] = known + value
        elif value is not None:
            total[name] = value
    return total


def usage_of(parts: list[Mapping[str, Any]], num_prompts: int = 1) -> dict[str, Any]:
    """Return the tokens of a response: those of a prompt count once, however many answers it has.

    Args:
        parts: Of each choice, those of one prompt after another.
        num_prompts: How many prompts there are.

    Example:
        >>> usage_of([{"prompt_tokens": 3, "completion_tokens": 2}, {"prompt_tokens": 3, "completion_tokens": 4}])
        {'prompt_tokens': 3, 'completion_tokens': 6, 'total_tokens': 9}
    """
    total: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    for_each = max(1, len(parts) // num_prompts)
    for place, part in enumerate(parts):
        prompt, completion = part.get("prompt_tokens") or 0, part.get("completion_tokens") or 0
        said = part.get("total_tokens") or prompt + completion
        repeated = {"prompt_tokens": 0, "total_tokens": said - prompt} if place % for_each else {"total_tokens": said}
        total = added_up(total, {**part, **repeated})
    return total


def _joined(name: str, known: Any, value: Any) -> Any:
    return known + value if name in _JOINED and isinstance(known, str) and isinstance(value, str) else value


def _continued(known: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return a call of a tool, and what a later piece adds to its arguments."""
    function, more = known["function"], part["function"]
    arguments = f"{function.get('arguments') or ''}{more.get('arguments') or ''}"
    return {**known, "function": {**function, "arguments": arguments}}


def _with_logprobs(known: dict[str, Any] | None, more: dict[str, Any]) -> dict[str, Any]:
    """Return logprobs, and those of a later piece: their lists have one entry for each token."""
    total = dict(known or {})
    for name, value in more.items():
        before = total.get(name)
        total[name] = [*before, *value] if isinstance(before, list) and isinstance(value, list) else value
    return total
