"""Heads that are known: what is kept, and what never is."""

from typing import Any

import pytest

from leyden.serve.config import ApiConfig
from leyden.serve.front.calls import HttpCall
from leyden.serve.front.known import MOST_KEPT, KnownHeads

Headers = list[tuple[bytes, bytes]]


class Owner:
    max_payload_bytes = 1e9

    def now(self) -> float:
        return 0.0


def request_of(headers: Headers, body: bytes = b"{}") -> bytes:
    lines = b"".join(b"%b: %b\r\n" % line for line in headers)
    return b"POST /predict HTTP/1.1\r\n%b\r\n%b" % (lines, body)


def learned(known: KnownHeads, headers: Headers, body: bytes = b"{}", **api: Any) -> bytes:
    """Let a head be learned as the protocol does, and return the request."""
    owner: Any = Owner()
    call = HttpCall(1, 0, ApiConfig(path="/predict", **api), owner, owner, owner, "r")
    call.content_type = "text/plain"
    if body:
        call.add(body)
    data = request_of(headers, body)
    known.learn(data, call, b"/predict", headers, "1.1")
    return data


def test_a_request_with_a_known_head_needs_no_parser() -> None:
    known, headers = KnownHeads(), [(b"host", b"x"), (b"content-length", b"2")]
    assert known.find(request_of(headers)) is None
    learned(known, headers)
    found = known.find(request_of(headers, b"[]"))
    assert found is not None
    head, body = found
    assert (head.api, head.url, head.headers, head.content_type, body) == (0, b"/predict", headers, "text/plain", b"[]")


@pytest.mark.parametrize("body", [b"", b"{", b"{}}", b"{}" + request_of([(b"content-length", b"2")])], ids=["none", "less", "more", "two"])
def test_a_request_that_is_not_whole_or_not_alone_is_parsed(body: bytes) -> None:
    known, headers = KnownHeads(), [(b"content-length", b"2")]
    learned(known, headers)
    assert known.find(request_of(headers)) is not None
    assert known.find(request_of(headers, body)) is None


@pytest.mark.parametrize(
    "line",
    [
        (b"x-request-id", b"a"),
        (b"x-request-timeout", b"2"),
        (b"x-priority", b"1"),
        (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"02"),
        (b"content-length", b"3"),
        (b"cookie", b"x" * 5000),
    ],
    ids=["id", "time", "priority", "trace", "chunks", "length with a zero", "another length", "long"],
)
def test_what_one_request_alone_says_is_not_kept(line: tuple[bytes, bytes]) -> None:
    known = KnownHeads()
    headers = [(b"content-length", b"2"), line]
    assert known.find(learned(known, headers)) is None


def test_nothing_is_kept_where_hooks_see_headers() -> None:
    known = KnownHeads()
    assert known.find(learned(known, [(b"content-length", b"2")], wants_context=True)) is None


def test_only_so_many_are_kept() -> None:
    known = KnownHeads()
    sent = [learned(known, [(b"host", b"%d" % number), (b"content-length", b"2")]) for number in range(3 * MOST_KEPT)]
    assert sum(known.find(data) is not None for data in sent) <= MOST_KEPT
    assert known.find(sent[-1]) is not None
