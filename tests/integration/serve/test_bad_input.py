"""No client mistake is ever a 500: what may be wrong with a request, at APIs of every kind, on both ways in."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fronts import Front, Response, until
from tests.support.real_workers import both_fronts, every_kind

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="input"\r\n\r\n4\r\n--b--\r\n'
DEEP = b"[" * 100_000
CHAT: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

# What is no JSON, or not the JSON that is wanted, wherever JSON is read.
NO_JSON = [
    b"",
    b"   ",
    b"{",
    b'{"input": }',
    b"\xff\xfe{",
    b"nope",
    b"{'input': 1}",
    b'{"input": 1}x',
    DEEP,
    b"\x00",
    b'{"a":"\x01"}',
    b"-",
    b"[1,]",
]
READERS = ["/number", "/model", "/data", "/file", "/together", "/pieces", "/async", "/async-pieces"]
OTHER_JSON = [b"null", b"true", b"3", b'"text"', b"[]", b"{}", b'{"x": "no"}', b'{"input": null}', b'{"input": {}}', b'{"count": "many"}']
SPECS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]


@pytest.fixture(scope="module")
def fronts() -> Iterator[dict[str, Front]]:
    with both_fronts(every_kind, max_payload_size="1MB", body_timeout=0.3) as found:
        yield found


def same(fronts: dict[str, Front], path: str, body: bytes, kind: str = JSON, **headers: str) -> Response:
    """Return what both ways answer."""
    found = [front.post(body, path, content_type=kind, x_request_id="r1", **headers) for front in fronts.values()]
    told = [(each.status, {**each.headers, "date": ""}, each.body) for each in found]
    assert told[0] == told[1]
    return found[0]


def refused(fronts: dict[str, Front], path: str, body: bytes, kind: str = JSON, **headers: str) -> tuple[int, str]:
    found = same(fronts, path, body, kind, **headers)
    assert 400 <= found.status < 500, (path, body[:50], found.status, found.body[:300])
    assert found.json["request_id"] == "r1"
    assert isinstance(found.json["detail"], str | list)
    assert len(found.body) < 4000
    return found.status, found.json["code"]


@pytest.mark.parametrize("path", [*READERS, "/any"])
def test_what_is_no_json(fronts: dict[str, Front], path: str) -> None:
    for body in NO_JSON:
        assert refused(fronts, path, body) == (400, "request.invalid_json"), body[:50]


@pytest.mark.parametrize("path", READERS)
def test_json_of_another_shape(fronts: dict[str, Front], path: str) -> None:
    for body in OTHER_JSON:
        assert refused(fronts, path, body) == (422, "request.invalid"), body


@pytest.mark.parametrize("path", [*READERS, "/any"])
def test_types_that_nobody_reads_and_forms_that_are_none(fronts: dict[str, Front], path: str) -> None:
    for kind in ("image/png", "text/html", "application/xml", "x", "é"):
        assert refused(fronts, path, b'{"input": 1}', kind) == (415, "request.unsupported_type"), kind
    assert refused(fronts, path, b'{"input": 1}', FORM) == (415, "request.unsupported_type")
    for body, kind in (
        (b"\xff=1", FORM),
        (b"", MULTIPART),
        (PART[:-9], MULTIPART),
        (PART, "multipart/form-data"),
        (PART, "multipart/form-data; boundary="),
        (PART, "multipart/form-data; boundary=other"),
        (b"junk" * 100, MULTIPART),
    ):
        assert refused(fronts, path, body, kind) == (400, "request.invalid_form"), (body[:30], kind)
    if path != "/any":
        assert refused(fronts, path, b"other=1", FORM) == (422, "request.invalid")


def test_good_requests_of_each_kind_are_answered(fronts: dict[str, Front]) -> None:
    upload = PART.replace(b'name="input"', b'name="file"; filename="f"')
    for path, body, kind, answer in (
        ("/number", b'{"input": "4"}', "", b'{"input":"4"}'),
        ("/number", b"input=4", FORM, b'{"input":"4"}'),
        ("/number", PART, MULTIPART, b'{"input":"4"}'),
        ("/number", b'{"input": 4}', "application/vnd.x+json; charset=utf-8", b'{"input":4}'),
        ("/model", b'{"x": "1.5"}', JSON, b'{"x":1.5,"name":"a"}'),
        ("/data", b'{"x": 1}', JSON, b'{"x":1,"y":0}'),
        ("/data", b"x=1", FORM, b'{"x":1,"y":0}'),
        ("/raw", b"\xff\x00", "image/png", b'{"bytes":2}'),
        ("/raw", b"", JSON, b'{"bytes":0}'),
        ("/file", upload, MULTIPART, b"1"),
        ("/together", b'{"input": 9}', JSON, b'{"root":3.0}'),
        ("/pieces", b'{"count": 2}', JSON, b'{"n":0}\n{"n":1}\n'),
        ("/async", b'{"input": 3}', JSON, b"3"),
        ("/async-pieces", b'{"count": 1}', JSON, b'{"n":0}\n'),
    ):
        found = same(fronts, path, body, kind)
        assert (found.status, found.body) == (200, answer), path


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"NaN", None),
        (b"[Infinity, -Infinity]", [None, None]),
        (b'"\\ud800"', "\ud800"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"1e400", None),
        (b"-0", 0),
        (b'{"": {"": []}}', {"": {"": []}}),
        (b"[" * 500 + b"]" * 500, "deep"),
        ('"é"'.encode("utf-16"), "é"),
        (b'"\\u0000"', "\x00"),
        (b"1" * 4000, int("1" * 4000)),
    ],
    ids=["nan", "infinite", "surrogate", "mark", "large", "twice", "overflow", "minus zero", "no names", "deep", "utf-16", "zero", "long"],
)
def test_json_at_the_edge_is_read_and_written_as_python_does(fronts: dict[str, Front], body: bytes, value: Any) -> None:
    found = same(fronts, "/any", body)
    assert found.status == 200, found.body[:300]
    assert value == "deep" or found.json["value"] == value


def test_numbers_that_are_too_long_and_values_that_are_too_deep(fronts: dict[str, Front]) -> None:
    assert refused(fronts, "/any", b"1" * 10_000) == (400, "request.invalid_json")
    for depth in (900, 990, 1000, 5000):  # what can be read can be written, or else is the client's
        body = b"[" * depth + b"]" * depth
        assert same(fronts, "/any", body).status in (200, 400), depth


def test_one_of_a_batch_that_is_wrong_leaves_the_others_alone(fronts: dict[str, Front]) -> None:
    for front in fronts.values():
        bodies = [b'{"input": 4}', b'{"input": "x"}', b"{", b'{"input": 9}']
        clients = [front.client() for _ in bodies]
        for client, body in zip(clients, bodies, strict=True):
            client.ask(body, "/together")
        found = [client.response() for client in clients]
        assert [each.status for each in found] == [200, 422, 400, 200]
        assert [found[0].json, found[3].json] == [{"root": 2.0}, {"root": 3.0}]
        for client in clients:
            client.close()


BAD_CHATS = [
    *[json.dumps(CHAT | change).encode() for change in (
        {"messages": []}, {"messages": None}, {"messages": "hi"}, {"messages": [3]}, {"messages": [{"role": "user", "content": 3}]},
        {"messages": [{"role": "nobody", "content": "x"}]}, {"messages": [{"content": "x"}]}, {"temperature": "hot"}, {"n": 0}, {"n": 1000},
        {"n": "x"}, {"max_tokens": -1}, {"stream": "perhaps"}, {"stop": 3}, {"tools": [{}]}, {"tool_choice": "some"}, {"top_p": []},
        {"response_format": {"type": "poem"}}, {"stream_options": 3}, {"logit_bias": []}, {"seed": "s"}, {"model": 3},
    )],
    b"{}", b"[]", b"null", b'"x"', b"3",
]  # fmt: skip
BAD_COMPLETIONS = [
    json.dumps(value).encode() for value in ({}, {"prompt": None}, {"prompt": {}}, {"prompt": [[]]}, {"prompt": "x", "n": 0}, [], 3)
]
BAD_EMBEDDINGS = [
    json.dumps(value).encode()
    for value in ({}, {"input": None}, {"input": ""}, {"input": []}, {"input": [None]}, {"input": {}}, {"input": [[]]},
                  {"input": "x", "dimensions": 0}, {"input": "x", "encoding_format": "hex"}, {"input": ["x"] * 3000}, [], "x")
]  # fmt: skip


@pytest.mark.parametrize(("path", "bodies"), list(zip(SPECS, [BAD_CHATS, BAD_COMPLETIONS, BAD_EMBEDDINGS], strict=True)), ids=SPECS)
def test_what_clients_of_specs_get_wrong(fronts: dict[str, Front], path: str, bodies: list[bytes]) -> None:
    for body in NO_JSON:
        assert refused(fronts, path, body) == (400, "request.invalid_json"), body[:50]
    for body in bodies:
        assert refused(fronts, path, body) == (422, "request.invalid"), body
        assert same(fronts, path, body).json["error"]["type"] == "invalid_request_error"


def test_texts_that_are_no_text_reach_specs(fronts: dict[str, Front]) -> None:
    odd = json.dumps(CHAT | {"messages": [{"role": "user", "content": "\ud800\x00é"}]}).encode()
    for front in fronts.values():
        assert front.post(odd, SPECS[0]).status in (200, 422)
        assert front.post(json.dumps({"input": ["\ud800"]}).encode(), SPECS[2]).status in (200, 422)


GOOD = {
    "/number": b'{"input": 1}',
    "/raw": b"",
    "/pieces": b'{"count": 1}',
    SPECS[0]: json.dumps(CHAT).encode(),
    SPECS[1]: b'{"prompt": "x"}',
    SPECS[2]: b'{"input": "x"}',
}


@pytest.mark.parametrize("path", GOOD)
class TestHeads:
    """What is wrong with a head, wherever it goes."""

    def test_methods_keys_and_headers(self, fronts: dict[str, Front], path: str) -> None:
        for front in fronts.values():
            found = front.get(path)
            assert (found.status, found.json["code"]) == (405, "request.method_not_allowed")
        assert refused(fronts, path, GOOD[path], x_request_timeout="soon") == (400, "request.invalid_header")

    def test_a_body_that_says_it_is_too_large(self, fronts: dict[str, Front], path: str) -> None:
        for front in fronts.values():
            with front.client() as client:
                client.send(f"POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1048577\r\n\r\n".encode())
                found = client.response()
                assert (found.status, found.json["code"], found.headers["connection"]) == (413, "request.too_large", "close")
            with front.client() as client:  # the whole body comes, whatever is answered
                client.ask(b"x" * 1_300_000, path)
                assert client.response().status == 413

    def test_a_body_that_becomes_too_large(self, fronts: dict[str, Front], path: str) -> None:
        for front in fronts.values():
            with front.client() as client:
                client.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
                client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                client.send((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 16)
                found = client.response()
                assert (found.status, found.json["code"], found.headers["connection"]) == (413, "request.too_large", "close")

    def test_a_body_that_does_not_come(self, fronts: dict[str, Front], path: str) -> None:
        for front in fronts.values():
            with front.client() as client:
                client.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345".encode())
                found = client.response()
                assert (found.status, found.json["code"], found.headers["connection"]) == (408, "request.timeout", "close")
                client.socket.shutdown(socket.SHUT_WR)
                assert client.is_closed()

    def test_a_body_that_ends_early(self, fronts: dict[str, Front], path: str) -> None:
        for front in fronts.values():
            with front.client() as client:
                client.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345".encode())
                client.socket.shutdown(socket.SHUT_WR)
                assert client.is_closed()


@pytest.mark.parametrize("path", SPECS)
def test_bodies_that_come_are_bounded_together(fronts: dict[str, Front], path: str) -> None:
    for front in fronts.values():
        router: Any = front.front.dispatcher._router
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n".encode()
        bound, router._max_inflight_bytes = router._max_inflight_bytes, 1_000_000
        with front.client() as first, front.client() as second:
            first.send(head + b"x" * 600_000)
            until(lambda router=router: router.inflight_bytes >= 500_000)
            second.send(head + b"x" * 600_000)
            found = second.response()
            assert (found.status, found.json["code"], found.json["error"]["type"]) == (429, "queue.full", "rate_limit_error")
        router._max_inflight_bytes = bound
        until(lambda router=router: router.inflight_bytes == 0)


def test_nothing_is_left_of_all_that(fronts: dict[str, Front]) -> None:
    for front in fronts.values():
        assert front.post(b'{"input": 4}', "/number").status == 200
        assert front.front.dispatcher.num_open == 0
        text = front.get("/metrics").body.decode()
        assert 'inflight_bytes{api="/number"} 0' in text
        for path in (SPECS[0], SPECS[2]):  # all that was refused before anything was computed; completions are the chat's API
            counted = set(re.findall(rf'requests_total{{api="{path}",status="(\d+)"}} [1-9]', text))
            assert counted >= {"400", "408", "413", "422"}, path
            assert counted.isdisjoint({"500", "503"}), path
            reasons = set(re.findall(rf'rejected_total{{api="{path}",reason="(\w+)"}} [1-9]', text))
            assert reasons >= {"size", "slow", "invalid", "bytes", "path"}, path
