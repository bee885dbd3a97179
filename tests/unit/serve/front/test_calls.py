"""Bodies of calls: what comes in large pieces is not copied, what drips in is not kept in thousands of objects."""

from types import SimpleNamespace
from typing import Any

import pytest

from leyden.serve.config import ApiConfig
from leyden.serve.faults import Fault
from leyden.serve.front.calls import HttpCall


def call(most: float = 1 << 30, reserves: bool = True) -> HttpCall:
    owner: Any = SimpleNamespace(now=lambda: 0.0, max_payload_bytes=most, reserve=lambda num_bytes: reserves)
    nobody: Any = None
    return HttpCall(1, 0, ApiConfig(path="/predict"), nobody, owner, nobody, "r1")


def test_a_body_that_came_at_once_is_itself() -> None:
    made, body = call(), b"abc"
    made.add(body)
    assert made.body is body
    assert (made.num_bytes, made.reserved) == (3, 0)


def test_large_pieces_stay_as_they_came() -> None:
    made, pieces = call(), [bytes(70_000), bytes(50_000), b"end"]
    for piece in pieces:
        made.add(piece)
    assert isinstance(made.body, list)
    assert all(kept is piece for kept, piece in zip(made.body, pieces, strict=True))
    assert made.num_bytes == made.reserved == 120_003


def test_what_drips_in_is_put_together() -> None:
    made, body = call(), bytes(range(256)) * 400
    for each in body:
        made.add(bytes([each]))
    assert isinstance(made.body, list)
    assert b"".join(made.body) == body
    assert len(made.body) < 10


def test_too_much_is_refused_as_it_comes() -> None:
    with pytest.raises(Fault, match="Payload too large"):
        call(most=2).add(b"abc")
    full = call(reserves=False)
    full.add(b"a")
    with pytest.raises(Fault, match="fill what this server holds"):
        full.add(b"b")
