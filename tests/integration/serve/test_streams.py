"""Answers in pieces: their types, their first byte, their errors, clients that read slowly or leave, workers that die."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from leyden.serve.wire import Frame, Kind
from tests.support.fake_worker import Said
from tests.support.fronts import Front, one, serving

NDJSON = {"ct": "application/x-ndjson"}
SSE = "text/event-stream; charset=utf-8"


@pytest.fixture
def front(way: Any) -> Iterator[Front]:
    with serving(one(middlewares=way, is_stream=True)) as found:
        yield found


def three(frame: Frame) -> list[Said]:
    return [*(Said(Kind.CHUNK, b'{"n": %d}\n' % number, NDJSON) for number in range(3)), Said(Kind.END, meta={"us": [1, 2, 3]})]


def texts(frame: Frame) -> list[Said]:
    return [*(Said(Kind.CHUNK, text, {"ct": "text/plain; charset=utf-8"}) for text in (b"a\n", "é".encode())), Said(Kind.END)]


class TestFormats:
    def test_lines_of_json_as_they_come(self, front: Front) -> None:
        front.worker(three)
        found = front.post()
        assert (found.status, found.headers["content-type"], found.headers["transfer-encoding"]) == (200, "application/x-ndjson", "chunked")
        assert found.body == b'{"n": 0}\n{"n": 1}\n{"n": 2}\n'

    def test_events_for_those_who_ask_for_them(self, front: Front) -> None:
        front.worker(three)
        found = front.post(accept="text/event-stream")
        assert (found.headers["content-type"], found.headers["cache-control"]) == (SSE, "no-cache")
        assert found.body == b'data: {"n": 0}\n\ndata: {"n": 1}\n\ndata: {"n": 2}\n\n'

    @pytest.mark.parametrize(
        ("wanted", "kind", "body"),
        [
            ("auto", "text/plain; charset=utf-8", "a\né".encode()),
            ("ndjson", "application/x-ndjson", b'"a\\n"\n"\xc3\xa9"\n'),
            ("sse", SSE, "data: a\n\ndata: é\n\n".encode()),
            ("text", "text/plain; charset=utf-8", "a\né".encode()),
        ],
    )
    def test_texts_as_the_api_wants_them(self, way: Any, wanted: str, kind: str, body: bytes) -> None:
        with serving(one(middlewares=way, is_stream=True, stream_format=wanted), texts) as front:
            found = front.post()
            assert (found.headers["content-type"], found.body) == (kind, body)

    def test_events_of_a_spec_pass_as_they_are(self, front: Front) -> None:
        front.worker(lambda frame: [Said(Kind.CHUNK, b"data: [DONE]\n\n", {"ct": "text/event-stream"}), Said(Kind.END)])
        found = front.post()
        assert (found.headers["content-type"], found.body) == ("text/event-stream", b"data: [DONE]\n\n")

    def test_a_stream_of_nothing_and_an_answer_that_is_no_stream(self, front: Front) -> None:
        front.worker(lambda frame: [Said(Kind.END)] if frame.body == b"0" else [Said(Kind.RES, b"1")])
        assert front.post(b"0").body == b""
        assert front.post(b"1").body == b"1"

    def test_streams_are_not_compressed(self, front: Front) -> None:
        front.worker(lambda frame: [Said(Kind.CHUNK, b'"%b"\n' % (b"x" * 5000), NDJSON), Said(Kind.END)])
        assert "content-encoding" not in front.post(accept_encoding="gzip").headers

    def test_http_1_0_knows_no_chunks(self, front: Front) -> None:
        front.worker(three)
        with front.client() as client:
            client.send(b"POST /predict HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi")
            found = client.response()
            assert (found.body, "transfer-encoding" in found.headers) == (b'{"n": 0}\n{"n": 1}\n{"n": 2}\n', False)

    def test_a_connection_serves_one_stream_after_another(self, front: Front) -> None:
        front.worker(three)
        with front.client() as client:
            assert [client.post().body.count(b"\n") for _ in range(3)] == [3, 3, 3]


class TestTime:
    def test_each_piece_is_there_at_once(self, front: Front) -> None:
        worker = front.worker()
        with front.client() as client:
            client.ask(b"{}")
            request = worker.take()
            worker.say(request, Kind.CHUNK, b"1\n", NDJSON)
            found = client.begin()
            assert found.read1(100) == b"1\n"
            worker.say(request, Kind.CHUNK, b"2\n")
            assert found.read1(100) == b"2\n"
            worker.say(request, Kind.END)
            assert found.read() == b""

    def test_a_client_that_reads_slowly_stops_its_worker_and_nobody_else(self, way: Any) -> None:
        with serving(one(middlewares=way, is_stream=True, max_stream_buffer_bytes=4 << 20)) as front:
            worker = front.worker(conc=2)
            piece = b"x" * (1 << 20)
            with front.client() as slow, front.client() as quick:
                slow.ask(b"slow")
                request = worker.take()
                for _ in range(16):  # more than sockets hold
                    worker.say(request, Kind.CHUNK, piece, {"ct": "text/plain"})
                quick.ask(b"quick")
                other = worker.take()
                worker.say(other, Kind.RES, b"ok")
                assert quick.response().body == b"ok"
                granted = sum(frame.meta["n"] for frame in list(worker.told.queue) if frame.kind is Kind.WINDOW)
                assert granted < 16 << 20, "what is not read is not asked for"
                worker.say(request, Kind.END)
                assert len(slow.response().body) == 16 << 20

    def test_what_is_read_is_granted_again(self, way: Any) -> None:
        with serving(one(middlewares=way, is_stream=True, max_stream_buffer_bytes=4000)) as front:
            worker = front.worker()
            with front.client() as client:
                client.ask(b"")
                request = worker.take()
                worker.say(request, Kind.CHUNK, b"x" * 1500, NDJSON)
                window = worker.heard(Kind.WINDOW)
                assert (window.stream, window.meta) == (request.stream, {"n": 1500})
                worker.say(request, Kind.END)
                assert len(client.response().body) == 1500


class TestErrors:
    def test_before_the_first_piece_they_are_answers(self, front: Front) -> None:
        front.worker(lambda frame: [Said(Kind.ERROR, b"", {"s": 422, "c": "request.invalid", "m": "no"})])
        found = front.post()
        assert (found.status, found.json["code"]) == (422, "request.invalid")

    @pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
    def test_later_they_are_the_last_thing_that_is_said(self, front: Front, accept: str) -> None:
        error = Said(Kind.ERROR, b"", {"s": 500, "c": "worker.failed", "m": "predict() raised ValueError: no"})
        front.worker(lambda frame: [Said(Kind.CHUNK, b"1\n", NDJSON), error])
        with front.client() as client:
            found = client.post(accept=accept, x_request_id="r1")
            assert (found.status, found.is_whole) == (200, False)
            said = {"error": {"code": "worker.failed", "request_id": "r1", "message": "predict() raised ValueError: no"}}
            if accept == "*/*":
                assert [json.loads(line) for line in found.body.splitlines()] == [1, said]
            else:
                first, last = found.body.split(b"\n\n")[:2]
                assert first == b"data: 1"
                assert last.startswith(b"event: error\ndata: ")
                assert json.loads(last.partition(b"data: ")[2]) == said
            assert client.is_closed()

    def test_a_worker_that_dies(self, front: Front) -> None:
        worker = front.worker()
        with front.client() as client:
            client.ask(b"")
            request = worker.take()
            worker.say(request, Kind.CHUNK, b"1\n", NDJSON)
            found = client.begin()
            assert found.read1(100) == b"1\n"
            worker.die()
            with pytest.raises(http.client.IncompleteRead) as raised:
                found.read()
            assert json.loads(raised.value.partial)["error"]["code"] == "worker.lost"

    def test_texts_just_end(self, front: Front) -> None:
        front.worker(lambda frame: [Said(Kind.CHUNK, b"a", {"ct": "text/plain"}), Said(Kind.ERROR, b"", {"s": 500, "c": "worker.failed"})])
        found = front.post()
        assert (found.body, found.is_whole) == (b"a", False)

    def test_a_stream_that_began_does_not_begin_again(self, way: Any) -> None:
        with serving(one(middlewares=way, is_stream=True, is_idempotent=True)) as front:
            worker = front.worker()
            with front.client() as client:
                client.ask(b"")
                worker.say(worker.take(), Kind.CHUNK, b"1\n", NDJSON)
                found = client.begin()
                other = front.worker()
                worker.die()
                with pytest.raises(http.client.IncompleteRead) as raised:
                    found.read()
                assert b"worker.lost" in raised.value.partial
                assert not other.has_request()

    def test_a_deadline_ends_a_stream(self, front: Front) -> None:
        worker = front.worker()
        with front.client() as client:
            client.ask(b"", x_request_timeout="0.15")
            worker.say(worker.take(), Kind.CHUNK, b"1\n", NDJSON)
            found = client.response()
            assert (found.is_whole, json.loads(found.body.splitlines()[-1])["error"]["code"]) == (False, "deadline.exceeded")
            assert worker.heard(Kind.CANCEL).meta == {"why": "deadline"}

    def test_a_client_that_leaves_ends_its_stream(self, front: Front) -> None:
        worker = front.worker()
        client = front.client()
        client.ask(b"")
        request = worker.take()
        worker.say(request, Kind.CHUNK, b"1\n", NDJSON)
        client.begin()
        client.close()
        assert worker.heard(Kind.CANCEL).meta == {"why": "disconnect"}
        worker.say(request, Kind.CHUNK, b"2\n")
        worker.say(request, Kind.END)
        with front.client() as other:
            other.ask(b"next")
            assert worker.take().body == b"next"
