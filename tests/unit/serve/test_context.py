"""A context says what is known of its request, lets nobody change that, and keeps what it is given."""

import math
from typing import Any

import pytest

from leyden.serve.context import RequestContext


def test_a_context_says_what_is_known_of_its_request() -> None:
    now, gone = [0.0], [False]
    context = RequestContext(
        "r-1", headers={"x-a": "b"}, deadline=5.0, priority=2, trace_id="t", is_cancelled=lambda: gone[0], clock=lambda: now[0]
    )
    assert (context.request_id, context.headers["x-a"], context.priority, context.trace_id) == ("r-1", "b", 2, "t")
    assert (context.seconds_left, context.cancelled) == (5.0, False)
    now[0] = 6.0
    assert (context.seconds_left, context.cancelled) == (0.0, True)
    now[0], gone[0] = 1.0, True
    assert context.cancelled
    context["temperature"] = 0
    assert context == {"temperature": 0}
    with pytest.raises(AttributeError):
        context.cancelled = False  # type: ignore[misc]
    assert RequestContext().seconds_left == math.inf


@pytest.mark.parametrize("name", ["cancelled", "seconds_left", "headers", "request_id", "priority", "trace_id", "temperature"])
def test_attributes_are_read_only_and_items_are_not(name: str) -> None:
    context: Any = RequestContext()
    with pytest.raises(AttributeError):
        setattr(context, name, 1)
    context[name] = 0
    assert context.get(name) == 0
    assert context == {name: 0}
