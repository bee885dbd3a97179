"""`RequestContext`: what hooks may know of the request they work on, and a place for what they want to hand on."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, final

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@final
class RequestContext(dict[str, Any]):
    """A dict of one request, handed to hooks that name an argument `context`; specs fill it, hooks may add to it.

    Args:
        request_id: The request's name, in its answer and in every log line.
        headers: Of the request, by lower-case name.
        deadline: When its answer must have ended, by `clock`; infinite if never.
        priority: As the client asked.
        trace_id: Of the trace that it belongs to.
        is_cancelled: Returns whether nobody waits for it any more.
        clock: Returns seconds.

    Example:
        >>> context = RequestContext("a-1", deadline=12.5, clock=lambda: 10.0)
        >>> context["temperature"] = 0.7
        >>> context.seconds_left, context.cancelled, dict(context)
        (2.5, False, {'temperature': 0.7})
    """

    __slots__ = ("_clock", "_deadline", "_headers", "_is_cancelled", "_priority", "_request_id", "_trace_id")

    def __init__(
        self,
        request_id: str = "",
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        deadline: float = math.inf,
        priority: int = 0,
        trace_id: str = "",
        is_cancelled: Callable[[], bool] = bool,
        clock: Callable[[], float] = float,
    ) -> None:
        super().__init__()
        self._request_id, self._headers, self._deadline = request_id, headers, deadline
        self._priority, self._trace_id, self._is_cancelled, self._clock = priority, trace_id, is_cancelled, clock

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more: the client left, or the deadline is over. Ask now and then, and stop."""
        return self._is_cancelled() or self._clock() >= self._deadline

    @property
    def seconds_left(self) -> float:
        """The time until the deadline; infinite without one, never below 0."""
        return max(0.0, self._deadline - self._clock())

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, by lower-case name."""
        return self._headers

    @property
    def request_id(self) -> str:
        """The request's name."""
        return self._request_id

    @property
    def priority(self) -> int:
        """What the client asked for; 0 is usual."""
        return self._priority

    @property
    def trace_id(self) -> str:
        """The trace that the request belongs to."""
        return self._trace_id
