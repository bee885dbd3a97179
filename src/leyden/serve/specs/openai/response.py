"""`OpenAIResponse`: the answers to one request, at once or as events; and errors as OpenAI's clients read them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple, final

from leyden.serve.codec import JSON, write_json
from leyden.serve.faults import Fault
from leyden.serve.specs.answers import EVENTS, ErrorStyle, Sender, Work
from leyden.serve.specs.base import SpecCall, Submitter
from leyden.serve.specs.merging import merged
from leyden.serve.specs.openai.choices import Choice, Head, usage_of
from leyden.serve.specs.openai.pieces import read_piece

_DONE: Final = b"data: [DONE]\n\n"
_TYPES: Final[Mapping[int, str]] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Plan(NamedTuple):
    """What is to be answered, and how.

    Args:
        calls: One for each choice; those of one prompt after another.
        choices: In the same order.
        head: Of the response.
        num_prompts: How many prompts there are.
        is_stream: Whether as events.
        include_usage: Whether the tokens have an event of their own; `None`: they are in the last one of a choice.
    """

    calls: Sequence[SpecCall]
    choices: Sequence[Choice]
    head: Head
    num_prompts: int = 1
    is_stream: bool = False
    include_usage: bool | None = None


@final
class OpenAIResponse(Work):
    """Answers a request. Its choices are independent of each other: each has a call of its own, and ends alone.

    Args:
        server: Computes.
        plan: What is to be answered.
        style: How errors are told.
    """

    def __init__(self, server: Submitter, plan: Plan, style: ErrorStyle) -> None:
        super().__init__(style, EVENTS if plan.is_stream else JSON)
        self._server, self._plan = server, plan
        self._left = len(plan.calls)

    async def work(self, sender: Sender) -> None:
        await (self._stream(sender) if self._plan.is_stream else self._whole(sender))
        self._server.used(self._usage())

    async def break_off(self, fault: Fault, sender: Sender) -> None:
        await sender.write(b"data: " + write_json(openai_error(fault, self._style.told(fault))) + b"\n\n" + _DONE, is_last=True)

    async def _whole(self, sender: Sender) -> None:
        plan = self._plan
        await self._each_list(lambda choice, lines: [choice.add(read_piece(line)) for line in lines])
        whole = [choice.whole() for choice in plan.choices]
        body = {**plan.head.fields(plan.choices[0].kind), "choices": whole, "usage": self._usage()}
        await sender.write(write_json(body), is_last=True)

    async def _each_list(self, take: Callable[[Choice, list[bytes]], Any]) -> None:
        async with aclosing(merged(self._server, self._plan.calls)) as lists:
            async for place, lines in lists:
                if lines is not None:
                    take(self._plan.choices[place], lines)

    async def _stream(self, sender: Sender) -> None:
        choices = self._plan.choices
        async with aclosing(merged(self._server, self._plan.calls)) as lists:
            async for place, lines in lists:
                choice = choices[place]
                data = self._last(choice) if lines is None else b"".join([choice.chunk(read_piece(line)) for line in lines])
                if data:
                    await sender.write(data)
        await sender.write(self._usage_event() + _DONE, is_last=True)

    def _last(self, choice: Choice) -> bytes:
        """Return the last event of a choice; of the last choice it tells the tokens of all, unless the client said where they go."""
        self._left -= 1
        return choice.last_chunk(self._usage() if self._left == 0 and self._plan.include_usage is None else None)

    def _usage_event(self) -> bytes:
        plan = self._plan
        if not plan.include_usage:
            return b""
        event = {**plan.head.fields(plan.choices[0].chunk_kind), "choices": list[Any](), "usage": self._usage()}
        return b"data: " + write_json(event) + b"\n\n"

    def _usage(self) -> dict[str, Any]:
        return usage_of([choice.usage for choice in self._plan.choices], self._plan.num_prompts)


def openai_error(fault: Fault, told: str) -> dict[str, Any]:
    """Return what OpenAI's clients read of an error.

    Args:
        fault: The error.
        told: What they may know of it.

    Example:
        >>> openai_error(Fault(429, "queue.full", "Too many."), "Too many.")
        {'error': {'message': 'Too many.', 'type': 'rate_limit_error', 'param': None, 'code': 'queue.full'}}
    """
    kind = _TYPES.get(fault.status, "invalid_request_error" if fault.status < 500 else "server_error")
    return {"error": {"message": told, "type": kind, "param": _param(fault.detail), "code": fault.code}}


def _param(detail: Any) -> str | None:
    """Return which field of a request is wrong."""
    if not isinstance(detail, list) or not detail or not isinstance(detail[0], dict):
        return None
    return ".".join(str(step) for step in detail[0].get("loc", ())[1:]) or None
