"""The law of the two ways in: whatever is asked, the short way and ASGI give the same status, headers and body."""

import re
import socket
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from leyden.serve.config import ApiConfig, Secrets, ServerConfig
from leyden.serve.front.probe import RELIED_ON, missing
from leyden.serve.wire import Frame, Kind
from tests.support.fake_worker import Said
from tests.support.fronts import THROUGH_ASGI, Front, serving

LINE = {"ct": "application/x-ndjson"}
SAYINGS: dict[bytes, list[Said]] = {
    b"empty": [Said(Kind.RES)],
    b"created": [Said(Kind.RES, b"{}", {"s": 201, "h": [["x-a", "1"], ["x-a", "2"]]})],
    b"odd": [Said(Kind.RES, b"\x00", {"s": 799, "ct": "image/png\r\nx: y", "h": {"bad name": "1", "ok": "é\x00"}})],
    b"none": [Said(Kind.RES, b"ignored", {"s": 204})],
    b"large": [Said(Kind.RES, b"[" + b"0," * 60_000 + b"0]")],
    b"text": [Said(Kind.RES, b"x" * 1500, {"ct": "text/plain"})],
    b"error": [Said(Kind.ERROR, b"[1]", {"s": 422, "c": "request.invalid", "m": "no", "h": {"x-why": "1"}})],
    b"bare": [Said(Kind.ERROR, b'"x"', {"s": 404, "c": "request.refused", "m": "x"})],
    b"pieces": [Said(Kind.CHUNK, b"1\n", LINE), Said(Kind.CHUNK, b"2\n"), Said(Kind.END)],
    b"broken": [Said(Kind.CHUNK, b"1\n", LINE), Said(Kind.ERROR, b"", {"s": 500, "c": "worker.failed", "m": "no"})],
    b"nothing": [Said(Kind.END)],
}


def answering(frame: Frame) -> list[Said]:
    said = SAYINGS.get(bytes(frame.body))
    return said or [Said(Kind.RES, repr((bytes(frame.body), frame.meta.get("ct"), frame.meta.get("p"), "t" in frame.meta)).encode())]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Front, Front]]:
    def config(middlewares: Any) -> ServerConfig:
        apis = (ApiConfig(path="/predict"), ApiConfig(path="/stream", is_stream=True))
        return ServerConfig(apis=apis, middlewares=middlewares, max_payload_bytes=3000, secrets=Secrets(api_keys=("key",)))

    with serving(config(()), answering) as hot, serving(config(THROUGH_ASGI), answering) as asgi:
        for front in (hot, asgi):
            front.worker(answering, api=1, stream=True)
        yield hot, asgi


def heard(front: Front, data: bytes) -> bytes:
    """Return all that comes until the connection ends, but the dates: there are two heads if the first one says 100."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=10.0) as found:
        found.sendall(data)
        came = b""
        while part := found.recv(1 << 20):
            came += part
    return re.sub(rb"date: [^\r]*\r\n", b"", came)


HEADERS = st.sampled_from(
    [
        ("content-type", "application/json"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("accept-encoding", "gzip"),
        ("accept", "text/event-stream"),
        ("x-priority", "2"),
        ("x-priority", "two"),
        ("x-request-timeout", "9"),
        ("x-request-timeout", "nan"),
        ("x-request-timeout", "1e18"),
        ("x-request-timeout", "1e308"),
        ("traceparent", "nonsense"),
        ("expect", "100-continue"),
        ("upgrade", "websocket"),
        ("cookie", "a=b"),
        ("x-request-id", "another"),
    ]
)
BODIES = st.sampled_from(sorted(SAYINGS)) | st.binary(max_size=50) | st.just(b"x" * 3000) | st.just(b"x" * 3001)


@given(
    method=st.sampled_from(["POST"] * 8 + ["GET", "PUT", "OPTIONS"]),
    path=st.sampled_from(["/predict", "/predict", "/stream", "/stream", "/predict?a=1", "/predict/", "/pr%65dict", "//predict", "/no"]),
    key=st.sampled_from(["x-api-key: key\r\n"] * 6 + ["authorization: Bearer key\r\n", "x-api-key: no\r\n", ""]),
    headers=st.lists(HEADERS, max_size=3),
    body=BODIES,
    chunked=st.booleans(),
    version=st.sampled_from(["1.1", "1.1", "1.1", "1.0"]),
)
@settings(max_examples=150)
def test_both_ways_say_the_same(
    both: Any, method: str, path: str, key: str, headers: Any, body: bytes, chunked: bool, version: str
) -> None:
    given_headers = key + "".join(f"{name}: {value}\r\n" for name, value in headers)
    if chunked and version == "1.1":
        sent = b"transfer-encoding: chunked\r\n\r\n" + (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    else:
        sent = b"content-length: %d\r\n\r\n%b" % (len(body), body)
    head = f"{method} {path} HTTP/{version}\r\nhost: x\r\nx-request-id: r1\r\nconnection: close\r\n{given_headers}"
    hot, asgi = (heard(front, head.encode() + sent) for front in both)
    assert hot == asgi


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["/predict", "/predict", "/stream", "/predict?a=1", "/no"]),
            st.lists(HEADERS.filter(lambda line: line[0] not in {"expect", "upgrade", "x-request-id"}), max_size=1),
            BODIES,
            st.sampled_from(["whole", "whole", "whole", "in two", "twice"]),
            st.integers(0, 2),
        ),
        min_size=2,
        max_size=4,
    )
)
@settings(max_examples=40)
def test_both_ways_say_the_same_again_and_again(both: Any, steps: Any) -> None:
    """On a connection that lasts, a head that was read once is known: nobody can tell."""
    assert _answers(both[0], steps) == _answers(both[1], steps)


def _answers(front: Front, steps: Any) -> list[Any]:
    """Return what a client gets that sends each request some times more: at once, in two parts, or two before it reads."""
    found, ids = list[Any](), list[str]()
    with front.client() as client:
        for path, headers, body, how, more in steps:
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: key\r\ncontent-length: {len(body)}\r\n"
            data = (head + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n").encode() + body
            for _ in range(1 + more):
                if how == "in two":
                    client.send(data[: len(data) // 2])
                    client.send(data[len(data) // 2 :])
                else:
                    client.send(data * (2 if how == "twice" else 1))
                for _ in range(2 if how == "twice" else 1):
                    came = client.response()
                    ids.append(came.headers.pop("x-request-id"))
                    told = {name: text for name, text in came.headers.items() if name != "date"}
                    found.append((came.status, told, came.body.replace(ids[-1].encode(), b"its id")))
                    if came.headers.get("connection") == "close" or not came.is_whole:
                        return found
    assert len(set(ids)) == len(ids)
    return found


def test_a_body_that_looks_like_a_known_request_is_none(both: Any) -> None:
    for front in both:
        known = b"POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: key\r\ncontent-length: 4\r\n\r\n"
        with front.client() as client:
            for body in (b"1111", b"2222"):
                client.send(known + body)
                assert client.response().body.startswith(repr(body)[:6].encode(), 1)
            smuggled = known + b"3333"
            client.send(b"POST /no HTTP/1.1\r\nhost: x\r\nx-api-key: key\r\ncontent-length: %d\r\n\r\n" % len(smuggled))
            assert client.response().status == 404
            client.send(smuggled)
            client.send(known + b"4444")
            assert b"4444" in client.response().body


def test_the_short_way_is_taken_where_it_can_be(both: Any) -> None:
    hot, asgi = both
    assert hot.front._hot.routes == {b"/predict": 0, b"/stream": 1}
    assert asgi.front._hot.routes == {}


def test_uvicorn_has_what_the_short_way_relies_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing() == []
    monkeypatch.setattr("leyden.serve.front.probe.RELIED_ON", RELIED_ON + " on_something_else")
    assert missing() == ["on_something_else"]
