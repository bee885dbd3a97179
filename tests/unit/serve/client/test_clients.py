"""Both clients: what they send, when they send it again, what they raise; on a scripted transport and a fake clock."""

import io
import json
import pickle
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from leyden.serve.client import Client
from leyden.serve.errors import BrokenStreamError, BusyError, FailedError, LateError, NoAnswerError, RejectedError, RequestError
from tests.support.asking import KINDS, URL, Asking, Pieces
from tests.support.fake_clock import FakeClock

Answer = httpx.Response | Exception
Ask = Callable[..., Asking]
OK = {"output": 16.0}
NDJSON, SSE = "application/x-ndjson", "text/event-stream; charset=utf-8"
CUT = httpx.RemoteProtocolError("peer closed connection without sending complete message body (incomplete chunked read)")


@pytest.fixture(params=KINDS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return what makes a client whose requests are answered in turn, the last answer again and again."""

    def made(*answers: Answer, url: str = URL, **options: Any) -> Asking:
        left = list(answers)

        def handler(request: httpx.Request) -> httpx.Response:
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)  # httpx writes into it

        return KINDS[request.param](handler, FakeClock(), url, options)

    return made


def error(status: int, code: str = "", **headers: str) -> httpx.Response:
    body = {"detail": "Said", "code": code, "message": "what it is", "request_id": "theirs"} if code else {"detail": "Said"}
    return httpx.Response(
        status, json=body, headers={"x-request-id": "theirs", **{name.replace("_", "-"): v for name, v in headers.items()}}
    )


def stream(kind: str, *pieces: bytes, broken: Exception | None = None) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": kind, "x-request-id": "theirs"}, stream=Pieces(*pieces, error=broken))


class TestWhatIsSent:
    def test_json_with_a_name_a_key_and_a_deadline(self, ask: Ask) -> None:
        asking = ask(httpx.Response(200, json=OK), url=URL + "/v1/", api_key="secret", timeout=30)
        assert asking.predict({"input": np.float32(4)}, "/square") == OK
        (request,) = asking.requests
        assert (request.method, str(request.url), json.loads(request.content)) == ("POST", URL + "/v1/square", {"input": 4.0})
        assert (request.headers["content-type"], request.headers["authorization"]) == ("application/json", "Bearer secret")
        assert float(request.headers["x-request-timeout"]) == 30
        assert request.headers["x-request-id"]
        assert request.extensions["timeout"] == {"connect": 10, "read": 31, "write": 31, "pool": 31}, "a second for the answer itself"

    def test_without_a_timeout_there_is_no_deadline(self, ask: Ask) -> None:
        asking = ask(httpx.Response(200, json=OK))
        asking.predict(1, timeout=None)
        assert "x-request-timeout" not in asking.requests[0].headers
        assert asking.requests[0].extensions["timeout"] == {"connect": 10, "read": None, "write": None, "pool": None}

    def test_null_is_a_payload_and_nothing_is_none(self, ask: Ask) -> None:
        asking = ask(httpx.Response(200, json=OK))
        asking.predict(None)
        asking.predict()
        assert [request.content for request in asking.requests] == [b"null", b""]

    def test_bytes_with_a_type(self, ask: Ask) -> None:
        asking = ask(httpx.Response(200, json=OK))
        asking.predict(memoryview(b"\x89PNG"), headers={"Content-Type": "image/png"})
        asking.predict(b"\x00")
        assert [(each.content, each.headers["content-type"]) for each in asking.requests] == [
            (b"\x89PNG", "image/png"),
            (b"\x00", "application/octet-stream"),
        ]

    def test_a_form(self, ask: Ask) -> None:
        asking = ask(httpx.Response(200, json=OK))
        asking.predict(form={"a": "x y", "n": [1, 2]})
        assert asking.requests[0].content == b"a=x+y&n=1&n=2"
        assert asking.requests[0].headers["content-type"] == "application/x-www-form-urlencoded"

    def test_files_come_again_whole(self, ask: Ask) -> None:
        class Pipe(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                taken, self.left = self.left[: len(buffer)], b""
                buffer[: len(taken)] = taken
                return len(taken)

            left = b"from a pipe"

        asking = ask(error(429, "queue.full", retry_after="1"), httpx.Response(200, json=OK))
        files = {"a": io.BytesIO(b"of a file"), "b": ("name.txt", Pipe(), "text/x"), "c": b"bytes"}
        assert asking.predict(form={"field": 1}, files=files) == OK
        for request in asking.requests:
            assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
            for part in (b'name="field"', b"of a file", b'filename="name.txt"\r\nContent-Type: text/x\r\n\r\nfrom a pipe', b"bytes"):
                assert part in request.content

    def test_a_name_of_ones_own(self, ask: Ask) -> None:
        asking = ask(httpx.Response(500))
        with pytest.raises(FailedError) as raised:
            asking.predict(1, headers={"X-Request-Id": "mine"})
        assert (asking.requests[0].headers["x-request-id"], raised.value.request_id) == ("mine", "mine")


class TestWhatComesBack:
    @pytest.mark.parametrize(
        ("answer", "value"),
        [
            (httpx.Response(200, json=OK), OK),
            (httpx.Response(201, text="täxt"), "täxt"),
            (httpx.Response(200, content=b"\xff\x00"), b"\xff\x00"),
            (httpx.Response(204, headers={"content-type": "application/json"}), None),
            (httpx.Response(200, content=b'{"a": 1}', headers={"content-type": "application/problem+json"}), {"a": 1}),
            (httpx.Response(200, content=b'1\n\n{"n":2}', headers={"content-type": NDJSON}), [1, {"n": 2}]),
        ],
    )
    def test_values(self, ask: Ask, answer: httpx.Response, value: Any) -> None:
        assert ask(answer).predict(1) == value

    def test_lines(self, ask: Ask) -> None:
        assert ask(stream(NDJSON, b'{"n"', b': 1}\n{"n": 2}\n[', b"3", b"]\n")).items(1) == [{"n": 1}, {"n": 2}, [3]]

    def test_events(self, ask: Ask) -> None:
        pieces = (
            b": hello\n\ndata: {",
            b'"n": 1}\n\nevent: x\r\ndata: two\r\ndata:  lines\r\n\r\n',
            b"id: 7\n\ndata: 3\n\ndata: [DONE]\n\n",
        )
        assert ask(stream(SSE, *pieces)).items(1) == [{"n": 1}, "two\n lines", "3"]

    def test_text_is_cut_nowhere_inside_a_character(self, ask: Ask) -> None:
        assert ask(stream("text/plain; charset=utf-8", b"a\xc3", b"\xa9b", b"c")).items(1) == ["a", "éb", "c"]

    def test_one_answer_is_a_stream_of_one(self, ask: Ask) -> None:
        assert ask(httpx.Response(200, json=OK)).items(1) == [OK]

    def test_what_is_no_json(self, ask: Ask) -> None:
        with pytest.raises(BrokenStreamError, match=r"cannot be read.*line 1.*request theirs") as raised:
            ask(stream("application/json", b"{'a'")).predict(1)
        assert raised.value.code == "serve.unreadable"


class TestErrors:
    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (error(400, "request.invalid_json"), RejectedError),
            (error(401, "auth.missing_key"), RejectedError),
            (error(404, "request.not_found"), RejectedError),
            (error(422, "request.invalid"), RejectedError),
            (error(408, "request.timeout"), LateError),
            (error(504, "deadline.exceeded"), LateError),
            (error(500, "worker.failed"), FailedError),
            (error(502, "x"), FailedError),
            (error(429, "queue.full", retry_after="100"), BusyError),
            (error(503, "server.draining", retry_after="100"), BusyError),
        ],
    )
    def test_answers(self, ask: Ask, answer: httpx.Response, kind: type[RequestError]) -> None:
        asking = ask(answer)
        for use in (asking.predict, asking.items):
            with pytest.raises(kind, match=r"POST http://serve/predict: \d+ [a-z._]+: what it is \(request theirs\)") as raised:
                use(1)
            found = raised.value
            assert (found.status, found.code, found.request_id, found.detail) == (
                answer.status_code, answer.json()["code"], "theirs", "Said",
            )  # fmt: skip
            assert type(found) is kind
        assert len(asking.requests) == 2, "none of these is sent again"

    def test_they_are_also_what_python_calls_them(self) -> None:
        assert issubclass(RejectedError, ValueError)
        assert issubclass(LateError, TimeoutError)
        assert issubclass(NoAnswerError, ConnectionError)

    def test_they_travel(self, ask: Ask) -> None:
        with pytest.raises(LateError) as raised:
            ask(error(504, "queue.expired")).predict(1)
        found = pickle.loads(pickle.dumps(raised.value))
        assert (str(found), found.code, found.status, found.detail) == (str(raised.value), "queue.expired", 504, "Said")

    @pytest.mark.parametrize(
        ("answer", "said", "detail"),
        [
            (error(418), "418 Said", "Said"),
            (httpx.Response(422, json={"detail": [{"loc": ["body"]}]}), r"422 \[\{'loc'", [{"loc": ["body"]}]),
            (httpx.Response(502, text="<html>Bad"), "502 <html>Bad", "<html>Bad"),
            (httpx.Response(500), "500 Internal Server Error", None),
            (httpx.Response(500, json=[1]), r"500 \[1\]", "[1]"),
        ],
    )
    def test_of_others_who_say_less(self, ask: Ask, answer: httpx.Response, said: str, detail: Any) -> None:
        with pytest.raises(RequestError, match=said) as raised:
            ask(answer).predict(1)
        assert (raised.value.code, raised.value.detail) == (type(raised.value).code, detail)

    def test_a_server_that_has_moved(self, ask: Ask) -> None:
        asking = ask(httpx.Response(307, headers={"location": "https://other/predict"}), api_key="secret")
        with pytest.raises(RejectedError, match=r"'https://other/predict' now. Give the client that URL"):
            asking.predict(1)
        assert len(asking.requests) == 1


class TestTries:
    def test_as_often_and_as_late_as_the_server_says(self, ask: Ask) -> None:
        asking = ask(
            error(429, "queue.full", retry_after="2"), error(503, "server.not_ready", retry_after="4"), httpx.Response(200, json=OK)
        )
        assert asking.predict(1, timeout=60) == OK
        first, second = asking.clock.slept
        assert 2 <= first <= 2.5
        assert 4 <= second <= 5
        left = [float(request.headers["x-request-timeout"]) for request in asking.requests]
        assert left == pytest.approx([60, 60 - first, 60 - first - second], abs=0.001)
        assert len({request.headers["x-request-id"] for request in asking.requests}) == 1

    def test_not_more_often_than_retries(self, ask: Ask) -> None:
        asking = ask(error(429, "queue.full", retry_after="1"), retries=2)
        with pytest.raises(BusyError) as raised:
            asking.predict(1)
        assert (len(asking.requests), raised.value.retry_after) == (3, 1)
        asking = ask(error(429, "queue.full", retry_after="1"), retries=0)
        with pytest.raises(BusyError):
            asking.items(1)
        assert len(asking.requests) == 1

    def test_without_a_word_of_when_longer_and_longer(self, ask: Ask) -> None:
        asking = ask(httpx.Response(503))
        with pytest.raises(BusyError):
            asking.predict(1)
        assert [round(seconds / pause) for seconds, pause in zip(asking.clock.slept, (0.25, 0.5, 1), strict=True)] == [1, 1, 1]

    @pytest.mark.parametrize(("after", "timeout"), [("61", 600), ("61", None), ("5", 5), ("5", 3)])
    def test_not_if_that_is_too_late(self, ask: Ask, after: str, timeout: float | None) -> None:
        asking = ask(error(429, "queue.full", retry_after=after))
        with pytest.raises(BusyError):
            asking.predict(1, timeout=timeout)
        assert asking.clock.slept == []

    @pytest.mark.parametrize("lost", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow")])
    def test_without_a_connection_nothing_was_sent(self, ask: Ask, lost: Exception) -> None:
        asking = ask(lost, lost, httpx.Response(200, json=OK))
        assert asking.predict(1) == OK
        asking = ask(lost)
        with pytest.raises(NoAnswerError, match=r"no connection: .* Is the server running, and is this its URL\?") as raised:
            asking.predict(1)
        assert (len(asking.requests), raised.value.was_sent, raised.value.__cause__) == (4, False, lost)
        assert raised.value.status is None

    @pytest.mark.parametrize("lost", [httpx.RemoteProtocolError("gone"), httpx.ReadError("reset"), httpx.WriteError("pipe")])
    def test_what_may_have_been_computed_only_if_that_may_be_twice(self, ask: Ask, lost: Exception) -> None:
        asking = ask(lost, httpx.Response(200, json=OK))
        with pytest.raises(NoAnswerError, match="may have been computed") as raised:
            asking.predict(1)
        assert (len(asking.requests), raised.value.was_sent) == (1, True)
        assert raised.value.request_id == asking.requests[0].headers["x-request-id"]
        assert ask(lost, lost, httpx.Response(200, json=OK), idempotent=True).predict(1) == OK

    def test_a_request_whose_worker_died_comes_again_once(self, ask: Ask) -> None:
        lost = error(503, "worker.lost", retry_after="1")
        assert ask(lost, httpx.Response(200, json=OK)).predict(1) == OK
        asking = ask(lost)
        with pytest.raises(FailedError) as raised:
            asking.predict(1)
        assert (len(asking.requests), raised.value.code) == (2, "worker.lost")
        asking = ask(lost, idempotent=True)
        with pytest.raises(FailedError):
            asking.predict(1)
        assert len(asking.requests) == 4

    def test_certificates_do_not_get_better(self, ask: Ask) -> None:
        failed = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]")
        failed.__cause__ = ssl.SSLCertVerificationError("self-signed")
        asking = ask(failed)
        with pytest.raises(NoAnswerError, match=r"verify='certificate\.pem'"):
            asking.predict(1)
        assert len(asking.requests) == 1

    def test_no_answer_in_time_is_no_reason_to_ask_again(self, ask: Ask) -> None:
        asking = ask(httpx.ReadTimeout("slow"))
        with pytest.raises(LateError, match="no answer came in time"):
            asking.predict(1)
        assert len(asking.requests) == 1

    def test_time_that_passes_between_tries_counts(self, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        asking = ask(error(429, "queue.full", retry_after="1"))
        monkeypatch.setattr(asking.clock, "sleep", lambda seconds: asking.clock.advance(10))  # a machine that was busy
        with pytest.raises(LateError, match="no answer within 5 s"):
            asking.predict(1, timeout=5)
        assert len(asking.requests) == 1


class TestStreams:
    LOST = b'{"error":{"code":"worker.lost","request_id":"theirs","message":"its worker died"}}\n'

    def test_one_that_is_cut_raises(self, ask: Ask) -> None:
        for kind in (NDJSON, SSE, "text/plain", "application/octet-stream", "application/json"):
            asking = ask(stream(kind, b"1\n", broken=CUT))
            for use in (asking.items, asking.predict):
                with pytest.raises(BrokenStreamError, match=r"breaks off: peer closed .* \(request theirs\)") as raised:
                    use(1)
                assert (raised.value.status, raised.value.code, raised.value.__cause__) == (200, "serve.broken_stream", CUT)
            assert len(asking.requests) == 2, "what has begun does not begin again"

    @pytest.mark.parametrize(
        ("kind", "pieces"),
        [
            (NDJSON, (b"1\n", LOST)),
            (NDJSON, (b"1\n" + LOST,)),
            (SSE, (b"data: 1\n\n", b"event: error\ndata: " + LOST + b"\n")),
            (SSE, (b"data: " + LOST + b"\n",)),
        ],
    )
    def test_the_last_word_of_the_server(self, ask: Ask, kind: str, pieces: tuple[bytes, ...]) -> None:
        for broken in (CUT, None):  # a proxy may have ended it well
            with pytest.raises(BrokenStreamError, match=r"breaks off: worker.lost: its worker died \(request theirs\)") as raised:
                ask(stream(kind, *pieces, broken=broken)).items(1)
            assert (raised.value.code, raised.value.detail["message"]) == ("worker.lost", "its worker died")

    def test_all_that_came_before_it_is_there(self) -> None:
        handler = httpx.MockTransport(lambda request: stream(NDJSON, b"1\n2\n" + self.LOST, broken=CUT))
        seen = list[Any]()
        with Client(URL, http=httpx.Client(transport=handler)) as client, pytest.raises(BrokenStreamError):
            seen.extend(iter(client.stream(1)))
        assert seen == [1, 2]

    def test_a_deadline_that_passes_is_late(self, ask: Ask) -> None:
        last = b'{"error":{"code":"deadline.exceeded","request_id":"theirs"}}\n'
        with pytest.raises(LateError, match=r"deadline.exceeded") as raised:
            ask(stream(NDJSON, last, broken=CUT)).items(1)
        assert raised.value.status == 200

    def test_openai_says_it_with_a_clean_end(self, ask: Ask) -> None:
        said = b'data: {"error":{"message":"too loud","type":"server_error","param":null,"code":"worker.failed"}}\n\ndata: [DONE]\n\n'
        with pytest.raises(BrokenStreamError, match=r"worker.failed: too loud"):
            ask(stream(SSE, said)).items(1)

    @pytest.mark.parametrize(
        "item", [{"error": {"code": "x"}}, {"error": {"code": "x", "request_id": "another"}}, {"error": "no"}, {"error": None}]
    )
    def test_items_that_look_like_it(self, ask: Ask, item: Any) -> None:
        assert ask(stream(NDJSON, json.dumps(item).encode() + b"\n")).items(1) == [item]
        assert ask(stream(SSE, b"data: " + json.dumps(item).encode() + b"\n\n")).items(1) == [item]

    @pytest.mark.parametrize("data", [b"oops", b'{"error": "oops"}', b'"oops"'])
    def test_an_event_that_is_called_error(self, ask: Ask, data: bytes) -> None:
        with pytest.raises(BrokenStreamError, match="oops"):
            ask(stream(SSE, b"event: error\ndata: " + data + b"\n\n")).items(1)

    def test_who_stops_early_closes_it(self, ask: Ask) -> None:
        answer = stream(NDJSON, b"1\n", b"2\n", b"3\n", broken=CUT)
        assert ask(answer).items(1, most=1) == [1]
        body: Any = answer.stream
        assert (body.num_given, body.is_closed) == (1, True)

    def test_who_drops_it_closes_it(self) -> None:
        answer = stream(NDJSON, b"1\n", b"2\n")
        client = Client(URL, http=httpx.Client(transport=httpx.MockTransport(lambda request: answer)))
        for item in client.stream(1):
            assert item == 1
            break
        assert answer.is_closed

    def test_it_is_sent_when_it_is_asked_for(self) -> None:
        sent = list[httpx.Request]()

        def handler(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return stream(NDJSON, b"1\n")

        client = Client(URL, http=httpx.Client(transport=httpx.MockTransport(handler)))
        found = client.stream(1)
        assert (sent, bool(found.request_id)) == ([], True)
        assert (next(found), found.request_id, next(found, None)) == (1, "theirs", None)

    def test_one_that_dribbles_beyond_its_time(self, ask: Ask) -> None:
        body = Pieces(b"1\n", b"2\n", b"3\n", before=lambda: asking.clock.advance(4))
        asking = ask(httpx.Response(200, headers={"content-type": NDJSON}, stream=body))
        with pytest.raises(LateError, match="within 6 s"):
            asking.items(1, timeout=6)
        assert body.num_given == 2

    def test_refusals_come_before_it_begins(self, ask: Ask) -> None:
        asking = ask(error(429, "queue.full", retry_after="1"), stream(NDJSON, b"1\n"))
        assert asking.items(1) == [1]


class TestHealth:
    @pytest.mark.parametrize(
        ("answer", "is_well"),
        [
            (httpx.Response(200, text="ok"), True),
            (httpx.Response(503, text="not ready"), False),
            (httpx.Response(502), False),
            (httpx.ConnectError("refused"), False),
            (httpx.ReadTimeout("slow"), False),
        ],
    )
    def test_it_is_asked_once(self, ask: Ask, answer: Answer, is_well: bool) -> None:
        asking = ask(answer)
        assert asking.health() is is_well
        (request,) = asking.requests
        assert (request.method, str(request.url), request.headers["x-request-timeout"]) == ("GET", URL + "/health", "10.000")

    def test_a_wrong_question_is_no_illness(self, ask: Ask) -> None:
        with pytest.raises(RejectedError):
            ask(httpx.Response(404)).health("/well")
