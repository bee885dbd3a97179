"""What a client gets for each kind of request: a front end on a real port, and workers that do what a test says."""

import threading
from typing import Any

import pytest

from leyden.serve.config import ApiConfig, Secrets, ServerConfig
from leyden.serve.front.front_end import Events
from leyden.serve.wire import Kind
from tests.support.fake_worker import Said, echo
from tests.support.fronts import Front, one, serving, until


class TestPlain:
    def test_the_body_goes_to_the_worker_untouched_and_comes_back(self, front: Front) -> None:
        found = front.post(b' {"input": [1, NaN]} ')
        assert (found.status, found.body) == (200, b' {"input": [1, NaN]} ')
        assert found.headers["content-type"] == "application/json"
        assert found.headers["x-request-id"]

    @pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
    def test_bodies_of_any_size(self, front: Front, size: int) -> None:
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        assert front.post(body).body == body

    def test_chunked_bodies(self, front: Front) -> None:
        with front.client() as client:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            client.send(b"5\r\nhello\r\n")
            client.send(b"6\r\n world\r\n0\r\n\r\n")
            assert client.response().body == b"hello world"

    def test_a_connection_is_kept_and_closed_as_the_client_wants(self, front: Front) -> None:
        with front.client() as client:
            assert [client.post(b"%d" % number).body for number in range(3)] == [b"0", b"1", b"2"]
            found = client.post(b"3", connection="close")
            assert (found.body, found.headers["connection"]) == (b"3", "close")
            assert client.is_closed()

    def test_http_1_0_gets_its_answer_and_the_connection_ends(self, front: Front) -> None:
        with front.client() as client:
            client.send(b"POST /predict HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi")
            assert client.response().body == b"hi"
            assert client.is_closed()

    def test_requests_in_one_write_are_answered_in_order(self, front: Front) -> None:
        with front.client() as client:
            client.send(b"".join(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n%d" % number for number in range(6)))
            assert [client.response().body for _ in range(6)] == [b"%d" % number for number in range(6)]
            assert client.post(b"after").body == b"after"

    def test_a_pipeline_of_apis_and_other_routes(self, front: Front) -> None:
        with front.client() as client:
            one_post = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx"
            client.send(one_post + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + one_post)
            assert [client.response().body for _ in range(3)] == [b"x", b"litserve running", b"x"]

    def test_expect_100_continue(self, front: Front) -> None:
        with front.client() as client:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
            assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert client.file.readline() == b"\r\n"
            client.send(b"hi")
            assert client.response().body == b"hi"

    @pytest.mark.parametrize("is_chunked", [False, True])
    def test_who_would_rather_speak_http_2_is_answered_all_the_same(self, front: Front, is_chunked: bool) -> None:
        size = "transfer-encoding: chunked" if is_chunked else "content-length: 5"
        asks = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AA"
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\n{asks}\r\n{size}\r\n\r\n"
        body = b"5\r\nhello\r\n0\r\n\r\n" if is_chunked else b"hello"
        following = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nnext"
        data = following + head.encode() + body + following
        for cut in (0, 40, len(following) + 20, len(data) - len(following) - len(body), len(data) - len(following) - 2, len(data) - 1):
            with front.client() as client:
                client.send(data[:cut])
                client.send(data[cut:])
                assert [client.response().body for _ in range(3)] == [b"next", b"hello", b"next"], cut
        with front.client() as client:
            client.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
            assert client.response().body == b"ok"

    def test_one_byte_at_a_time(self, front: Front) -> None:
        with front.client() as client:
            for byte in b"POST /predict?x=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc":
                client.send(bytes([byte]))
            assert client.response().body == b"abc"


class TestNames:
    def test_the_clients_own_name_and_trace_come_back_and_go_to_the_worker(self, idle: Front) -> None:
        worker = idle.worker()
        trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        with idle.client() as client:
            client.ask(b"{}", x_request_id="theirs-1", traceparent=trace, x_priority="3", x_request_timeout="7.5")
            request = worker.take()
            assert (request.meta["r"], request.meta["p"]) == ("theirs-1", 3)
            assert 7000 < request.meta["d"] <= 7500
            assert 29_000 < request.meta["q"] <= 30_000
            assert request.meta["t"].startswith("00-" + "a" * 32)
            assert request.meta["t"] != trace
            worker.say(request, Kind.RES, b"{}")
            found = client.response()
            assert found.headers["x-request-id"] == "theirs-1"
            assert found.headers["traceparent"] == request.meta["t"]

    @pytest.mark.parametrize("headers", [{"x_request_timeout": "soon"}, {"x_request_timeout": "-1"}, {"x_priority": "high"}])
    def test_headers_that_say_nothing_are_the_clients_mistake(self, front: Front, headers: dict[str, str]) -> None:
        found = front.post(b"", **headers)
        assert (found.status, found.json["code"]) == (400, "request.invalid_header")

    def test_headers_travel_where_a_hook_wants_the_context(self, way: Any) -> None:
        with serving(one(wants_context=True, middlewares=way)) as front:
            worker = front.worker()
            with front.client() as client:
                client.ask(b"{}", x_own="1")
                request = worker.take()
                assert request.meta["h"]["x-own"] == "1"
                assert request.meta["t"].startswith("00-")
                worker.say(request, Kind.RES, b"1")
                assert "traceparent" not in client.response().headers


class TestWhatWorkersSay:
    def test_status_type_and_headers_of_an_answer(self, idle: Front) -> None:
        meta = {"s": 201, "ct": "text/csv", "h": {"X-Own": "a\r\nevil: 1", "Connection": "close", "content-length": "7"}}
        idle.worker(lambda frame: [Said(Kind.RES, b"a,b", meta)])
        with idle.client() as client:
            for _ in range(2):
                found = client.post()
                assert (found.status, found.body, found.headers["content-type"]) == (201, b"a,b", "text/csv")
                assert (found.headers["x-own"], "evil" in found.headers) == ("a  evil: 1", False)

    def test_an_answer_without_a_body(self, idle: Front) -> None:
        idle.worker(lambda frame: [Said(Kind.RES, b"", {"s": 204})])
        with idle.client() as client:
            for _ in range(2):
                found = client.post()
                assert (found.status, found.body, found.headers.get("content-length")) == (204, b"", None)

    def test_errors_have_a_detail_a_code_a_message_and_the_requests_name(self, idle: Front) -> None:
        meta = {"s": 500, "c": "worker.failed", "m": "predict() raised ValueError: no"}
        idle.worker(lambda frame: [Said(Kind.ERROR, b'"Internal server error"', meta)])
        found = idle.post(b"", x_request_id="r1")
        assert found.status == 500
        assert found.json == {
            "detail": "Internal server error",
            "code": "worker.failed",
            "message": "predict() raised ValueError: no",
            "request_id": "r1",
        }

    def test_an_exception_of_a_hook_is_answered_as_it_is(self, idle: Front) -> None:
        idle.worker(lambda frame: [Said(Kind.ERROR, b'{"a": 1}', {"s": 418, "c": "request.refused", "m": "x", "h": {"x-why": "tea"}})])
        found = idle.post()
        assert (found.status, found.json, found.headers["x-why"]) == (418, {"detail": {"a": 1}}, "tea")

    @pytest.mark.parametrize("code", ["request.invalid_json", "request.unsupported_type", "request.invalid"])
    def test_what_the_worker_finds_wrong_with_a_body(self, idle: Front, code: str) -> None:
        status = {"request.invalid_json": 400, "request.unsupported_type": 415, "request.invalid": 422}[code]
        idle.worker(lambda frame: [Said(Kind.ERROR, b"", {"s": status, "c": code, "m": "line 1"})])
        found = idle.post(b"{")
        assert (found.status, found.json["code"], found.json["detail"], found.json["message"]) == (status, code, "line 1", "line 1")

    def test_messages_can_be_kept_back(self, way: Any) -> None:
        with serving(one(middlewares=way, exposes_errors=False)) as front:
            front.worker(lambda frame: [Said(Kind.ERROR, b'"Internal server error"', {"s": 500, "c": "worker.failed", "m": "secret"})])
            found = front.post()
            assert b"secret" not in found.body
            assert found.json["code"] == "worker.failed"


class TestCompression:
    def test_large_answers_are_compressed_for_those_who_accept_it(self, front: Front) -> None:
        import gzip

        for size in (1000, 200_000):
            body = b"[" + b"1," * (size // 2) + b"1]"
            found = front.post(body, accept_encoding="deflate, gzip;q=0.5")
            assert found.headers["content-encoding"] == "gzip"
            assert len(found.body) < len(body)
            assert gzip.decompress(found.body) == body

    @pytest.mark.parametrize(("size", "accepted"), [(900, "gzip"), (2000, "br"), (2000, "gzip;q=0")])
    def test_others_are_not(self, front: Front, size: int, accepted: str) -> None:
        found = front.post(b"x" * size, accept_encoding=accepted)
        assert (found.headers.get("content-encoding"), len(found.body)) == (None, size)


class TestRefusals:
    def test_a_path_that_is_nowhere_and_a_method_that_is_not_allowed(self, front: Front) -> None:
        found = front.post(path="/nowhere")
        assert (found.status, found.json["detail"], found.json["code"]) == (404, "Not Found", "request.not_found")
        assert found.headers["x-request-id"] == found.json["request_id"]
        found = front.get("/predict")
        assert (found.status, found.json["detail"], found.headers["allow"]) == (405, "Method Not Allowed", "POST")

    def test_keys(self, way: Any) -> None:
        with serving(one(middlewares=way, secrets=Secrets(api_keys=("one", "two"))), echo) as front:
            found = front.post()
            assert (found.status, found.headers["www-authenticate"], found.json["code"]) == (401, "Bearer", "auth.missing_key")
            assert front.post(x_api_key="three").json["code"] == "auth.invalid_key"
            assert [front.post(x_api_key="two").status, front.post(authorization="bearer one").status] == [200, 200]
            assert [front.get(path).status for path in ("/", "/health", "/info", "/metrics")] == [401] * 4
            assert [front.get("/health/" + name).status for name in ("live", "ready", "startup")] == [200] * 3
            assert front.get("/health", x_api_key="one").body == b"ok"

    def test_a_body_that_says_it_is_too_large_is_not_read(self, way: Any) -> None:
        with serving(one(middlewares=way, max_payload_bytes=1000), echo) as front:
            assert front.post(b"x" * 1000).status == 200
            with front.client() as client:
                client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n")
                found = client.response()
                assert (found.status, found.json["detail"]) == (413, "Payload too large")
                assert found.headers["connection"] == "close"
                client.send(b"x" * 500)
                client.socket.shutdown(1)
                assert client.is_closed()
            with front.client() as client:  # the whole body comes before the answer is read
                assert client.post(b"x" * 100_000).status == 413

    def test_a_body_that_does_not_say_how_large_it_is(self, way: Any) -> None:
        with serving(one(middlewares=way, max_payload_bytes=1000), echo) as front, front.client() as client:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            client.send(b"1\r\nx\r\n")
            found = client.response()
            assert (found.status, found.json["code"], found.headers["connection"]) == (413, "request.too_large", "close")

    def test_more_than_was_announced_is_the_next_request(self, front: Front) -> None:
        with front.client() as client:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhiBOGUS\r\n\r\n")
            found = client.response()
            assert (found.status, found.body) == (200, b"hi")
            assert client.is_closed(), "what follows is no HTTP, and ends the connection"

    @pytest.mark.parametrize("data", [b"BOGUS\r\n\r\n", b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"])
    def test_what_is_no_http(self, front: Front, data: bytes) -> None:
        with front.client() as client:
            client.send(data)
            found = client.response()
            assert (found.status, found.json["code"], found.headers["connection"]) == (400, "request.invalid_http", "close")
            assert found.json["request_id"] == found.headers["x-request-id"]
            client.socket.shutdown(1)
            assert client.is_closed()
        assert front.post(b"1").body == b"1"

    @pytest.mark.parametrize(
        "head",
        [
            "content-length: 2\r\ntransfer-encoding: chunked",
            "content-length: 2\r\ncontent-length: 3",
            "content-length: -2",
            "content-length: 2, 2",
            "content-length: abc",
            "content-length: 99999999999999999999999",
            "transfer-encoding: gzip",
            "x : 1",
            "x: 1\r\n  folded",
            "x: \0",
        ],
    )
    def test_heads_that_may_be_read_in_two_ways_are_refused(self, front: Front, head: str) -> None:
        with front.client() as client:
            client.send(f"POST /predict HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{{}}".encode())
            found = client.response()
            assert (found.status, found.json["code"]) == (400, "request.invalid_http")
            client.socket.shutdown(1)
            assert client.is_closed(), "what follows could be a request that somebody smuggles"

    def test_bytes_of_bodies_are_bounded_while_they_come(self, way: Any) -> None:
        with serving(one(middlewares=way, max_inflight_bytes=1000)) as front:
            worker = front.worker()
            with front.client() as first, front.client() as second:
                first.ask(b"x" * 900)
                request = worker.take()
                second.ask(b"x" * 200)
                found = second.response()
                assert (found.status, found.json["code"], found.headers["retry-after"]) == (429, "queue.full", "1")
                worker.say(request, Kind.RES, b"ok")
                assert first.response().body == b"ok"
            assert front.front.dispatcher.num_open == 0

    def test_bytes_of_answers_are_not_those_of_bodies(self, way: Any) -> None:
        with serving(one(middlewares=way, max_inflight_bytes=1000), lambda frame: [Said(Kind.RES, b"x" * 3_000_000)]) as front:
            assert len(front.post(b"1").body) == 3_000_000

    def test_a_queue_that_is_full(self, way: Any) -> None:
        with serving(one(middlewares=way, max_queue_size=1)) as front:
            worker = front.worker()
            with front.client() as running, front.client() as waiting:
                running.ask(b"1")
                request = worker.take()
                waiting.ask(b"2")
                assert front.post(b"3").status == 429
                worker.say(request, Kind.RES, b"1")
                worker.say(worker.take(), Kind.RES, b"2")
                assert (running.response().body, waiting.response().body) == (b"1", b"2")


def test_calls_of_apis_do_not_meet(way: Any) -> None:
    config = ServerConfig(apis=(ApiConfig(path="/a"), ApiConfig(path="/b", max_batch_size=4)), middlewares=way)
    with serving(config) as front:
        a, b = front.worker(api=0), front.worker(api=1, mb=4)
        with front.client() as first, front.client() as second:
            first.ask(b"1", "/a")
            second.ask(b"2", "/b")
            a_request, b_request = a.take(), b.take()
            assert (a_request.body, b_request.body) == (b"1", b"2")
            b.say(b_request, Kind.RES, b"b")
            a.say(a_request, Kind.RES, b"a")
            assert (first.response().body, second.response().body) == (b"a", b"b")


def test_callbacks_are_told_and_one_that_raises_does_not_matter(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    told = list[str]()

    def on_response() -> None:
        told.append("response")
        raise ValueError("no")

    events = Events(on_request=lambda: told.append("request"), on_response=on_response)
    with serving(one(middlewares=way), echo, events=events) as front:
        assert front.post(b"1").body == b"1"
    assert told == ["request", "response"]
    assert "a callback failed" in caplog.text


def test_a_dependency_guards_an_api_and_nothing_else(way: Any) -> None:
    from fastapi import HTTPException, Request

    async def authorize(request: Request) -> None:
        if request.headers.get("x-user") != "me":
            raise HTTPException(403, {"who": "are you"}, {"x-why": "no"})

    with serving(one(authorize=authorize, secrets=Secrets(api_keys=("k",))), echo) as front:
        found = front.post()
        assert (found.status, found.json, found.headers["x-why"]) == (403, {"detail": {"who": "are you"}}, "no")
        assert front.post(b"1", x_user="me").body == b"1"
        assert front.get("/").status == 401


def test_more_connections_than_uvicorn_is_to_serve(way: Any) -> None:
    with serving(one(middlewares=way), echo, limit_concurrency=2) as front, front.client() as first:
        assert first.post(b"1").status == 200
        with front.client() as second:
            assert second.post(b"2").status == 503
            assert second.is_closed()


def test_requests_are_logged_as_uvicorn_does(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "uvicorn.access")
    with serving(one(middlewares=way), echo, access_log=True) as front, front.client() as client:
        client.post(b"1", "/predict?x=1")
        name = client.socket.getsockname()
        client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\nx-priority: a\r\n\r\n")
        client.response()
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    start = f"{name[0]}:{name[1]} - "
    assert lines == [start + '"POST /predict?x=1 HTTP/1.1" 200', start + '"POST /predict HTTP/1.1" 400']


def test_the_log_names_the_client_behind_a_proxy_and_each_request_of_a_row(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "uvicorn.access")
    first = b"POST /predict?first HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nx-forwarded-for: 192.0.2.7\r\n\r\n1"
    second = b"GET /health/live?second HTTP/1.1\r\nhost: x\r\n\r\n"
    for trusted in ("127.0.0.1", "10.0.0.1"):
        with serving(one(middlewares=way), echo, access_log=True, forwarded_allow_ips=trusted) as front, front.client() as client:
            client.send(first + second)
            assert [client.response().status, client.response().status] == [200, 200]
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert [line.partition(" - ")[2] for line in lines] == [
        '"POST /predict?first HTTP/1.1" 200',
        '"GET /health/live?second HTTP/1.1" 200',
    ] * 2
    assert [line.partition(":")[0] for line in lines] == ["192.0.2.7", "127.0.0.1", "127.0.0.1", "127.0.0.1"]


def numbers(front: Front) -> dict[str, float]:
    """Return what was counted, by name and labels."""
    text = front.get("/metrics", x_api_key="k").body.decode()
    found = (line.removeprefix("leyden_serve_").rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in found}


def test_what_is_refused_by_its_head_is_counted(way: Any) -> None:
    apis = (ApiConfig(), ApiConfig(path="/other"))
    config = ServerConfig(apis=apis, middlewares=way, max_payload_bytes=1000, secrets=Secrets(api_keys=("k",)), body_timeout=0.1)
    with serving(config, echo) as front:
        assert front.post(b"x" * 1001, x_api_key="k").status == 413
        assert front.post(b"x").status == 401
        assert front.post(b"x", x_api_key="k", x_priority="high").status == 400
        with front.client() as client:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\ncontent-length: 9\r\n\r\n")
            assert client.response().status == 408
        assert front.post(b"x", "/nowhere").status == 404
        assert front.get("/predict").status == 405
        assert front.get("/info").status == 401
        for data in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"):
            with front.client() as client:
                client.send(data)
                assert client.response().status in (400, 431)
        found = numbers(front)
        reasons = {"size": 1, "key": 1, "invalid": 1, "slow": 1, "path": 1}  # the method, which an API does not have
        assert {name: found[f'rejected_total{{api="/predict",reason="{name}"}}'] for name in reasons} == reasons
        strays = {"path": 1, "key": 1, "invalid": 1, "head": 1}
        assert {name: found[f'rejected_total{{api="",reason="{name}"}}'] for name in strays} == strays
        assert {name: value for name, value in found.items() if name.startswith('requests_total{api="",')} == {
            f'requests_total{{api="",status="{status}"}}': 1 for status in (400, 401, 404, 431)
        }
        assert [found[f'requests_total{{api="/predict",status="{status}"}}'] for status in (400, 401, 405, 408, 413)] == [1] * 5
        assert not any('api="/other"' in name and value and name.startswith(("requests", "rejected")) for name, value in found.items())


def test_why_a_queue_takes_no_more_is_counted(way: Any) -> None:
    with serving(one(middlewares=way, max_queue_size=1, max_inflight_bytes=1000)) as front:
        worker = front.worker()
        with front.client() as running, front.client() as waiting:
            running.ask(b"1")
            request = worker.take()
            waiting.ask(b"2")
            assert front.post(b"3").status == 429
            assert front.post(b"x" * 1000).status == 429
            with front.client() as slow:  # while it comes
                slow.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1500\r\n\r\n" + b"x" * 400)
                until(lambda: front.front.dispatcher.num_open == 3)
                slow.send(b"x" * 700)
                assert slow.response().status == 429
            found = numbers(front)
            assert found['rejected_total{api="/predict",reason="queue"}'] == 1
            assert found['rejected_total{api="/predict",reason="bytes"}'] == 2
            worker.say(request, Kind.RES, b"1")
            worker.say(worker.take(), Kind.RES, b"2")
            assert (running.response().body, waiting.response().body) == (b"1", b"2")


def test_a_worker_that_says_nothing_for_a_minute_is_told_of_once(idle: Front) -> None:
    told = list[Any]()
    dispatcher = idle.front.dispatcher
    dispatcher.tell = lambda **said: told.append(said) if "silent" in said else None
    worker, start = idle.worker(), dispatcher.now()

    def after(seconds: float) -> list[Any]:
        looked = threading.Event()
        idle.call(lambda: (dispatcher.sweep(start + seconds), looked.set()))
        assert looked.wait(10)
        return told

    assert after(100) == []
    with idle.client() as client:
        client.ask(b"1")
        request = worker.take()
        assert after(200) == []
        assert after(259) == []
        assert after(261) == [{"at": worker.address, "silent": [0, 0], "seconds": 60.0}]
        assert len(after(400)) == 1
        worker.say(request, Kind.CHUNK, b"1", {"ct": "text/plain"})
        client.begin()
        assert len(after(500)) == 1, "it has spoken"
        assert len(after(561)) == 2
        worker.say(request, Kind.END)
    until(lambda: dispatcher.num_open == 0)
    assert len(after(900)) == 2
