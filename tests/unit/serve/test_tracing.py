"""Trace contexts in and out, and the names of requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.serve.tracing import RequestIds, TraceContext, new_trace, read_traceparent

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_context_comes_back_as_it_was_sent() -> None:
    found = read_traceparent(GOOD)
    assert found == TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
    assert found.header == GOOD
    child = found.child()
    assert child.trace_id == found.trace_id
    assert child.span_id != found.span_id
    assert read_traceparent(child.header) == child
    assert read_traceparent(new_trace().header) is not None


@pytest.mark.parametrize(
    "value",
    [
        None, "", "x", GOOD[:-1], GOOD + "-more", "ff" + GOOD[2:], "00-" + "0" * 32 + GOOD[35:], GOOD[:36] + "0" * 16 + "-01",
        GOOD.replace("-", "_"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_ignored(value: str | None) -> None:
    assert read_traceparent(value) is None


def test_later_versions_and_other_flags_are_read() -> None:
    later = read_traceparent("01" + GOOD[2:] + "-more")
    assert later is not None
    assert later.header == GOOD
    other = read_traceparent(GOOD[:-2] + "ff")
    assert other is not None
    assert other.flags == 1


@given(st.text(max_size=200))
def test_a_request_id_can_always_stand_in_a_header(given_id: str) -> None:
    found = RequestIds().of(given_id)
    assert found
    assert found.isascii()
    assert found.isprintable()
    assert " " not in found
    assert len(found) <= 128


def test_ids_are_never_the_same() -> None:
    one, other = RequestIds(), RequestIds()
    found = {ids.new() for ids in (one, other) for _ in range(1000)}
    assert len(found) == 2000
