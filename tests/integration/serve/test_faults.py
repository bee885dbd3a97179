"""Time that runs out, clients that leave, workers that die, drain and come back."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from leyden.serve.effects import WorkerId
from leyden.serve.metrics import Layout
from leyden.serve.wire import Kind, encode
from tests.support.fake_worker import FakeWorker, echo
from tests.support.fronts import Front, one, serving, until


class TestTime:
    def test_a_request_that_waits_for_too_long_is_never_computed(self, way: Any) -> None:
        with serving(one(middlewares=way, timeout=0.1)) as front:
            worker = front.worker()
            with front.client() as running, front.client() as waiting:
                running.ask(b"1")
                request = worker.take()
                waiting.ask(b"2")
                found = waiting.response()
                assert (found.status, found.json["code"], found.json["detail"]) == (504, "queue.expired", "Request timed out")
                worker.say(request, Kind.RES, b"1")
                assert running.response().body == b"1"
            assert not worker.has_request()

    def test_a_deadline_answers_while_the_worker_goes_on(self, idle: Front) -> None:
        worker = idle.worker()
        with idle.client() as client:
            client.ask(b"1", x_request_timeout="0.1")
            request = worker.take()
            found = client.response()
            assert (found.status, found.json["code"]) == (504, "deadline.exceeded")
            assert worker.heard(Kind.CANCEL).meta == {"why": "deadline"}
            worker.say(request, Kind.ERROR, b"", {"s": 499, "c": "request.cancelled"})
            client.ask(b"2")
            worker.say(worker.take(), Kind.RES, b"2")
            assert client.response().body == b"2"

    def test_a_head_and_a_body_that_are_slow(self, way: Any) -> None:
        with serving(one(middlewares=way, header_timeout=0.1, body_timeout=0.1), echo) as front:
            with front.client() as client:
                client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\n")
                found = client.response()
                assert (found.status, found.json["code"]) == (408, "request.timeout")
            with front.client() as client:
                client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhi")
                found = client.response()
                assert (found.status, found.json["code"], found.headers["connection"]) == (408, "request.timeout", "close")
            assert front.post(b"1").body == b"1"

    def test_a_head_that_is_too_long(self, front: Front) -> None:
        with front.client() as client:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 70_000 + b"\r\n\r\n")
            assert client.response().status == 431
        with front.client() as client:  # one that never ends
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\n")
            client.send(b"x-long: " + b"x" * 140_000)
            assert client.response().status == 431
        with front.client() as client:
            assert client.post(b"1", x_long="x" * 30_000).body == b"1"

    @pytest.mark.parametrize("line", [b"x-long: " + b"x" * 140_000, b"x-line: many\r\n" * 10_000], ids=["one", "many"])
    def test_trailers_that_are_too_long(self, front: Front, line: bytes) -> None:
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n"
        with front.client() as client:
            client.send(head + b"x-request-id: other\r\n\r\n")
            found = client.response()
            assert (found.body, found.headers["x-request-id"] == "other") == (b"1", False), "a trailer is no header"
            client.send(head)
            until(lambda: front.front.dispatcher.num_open == 1)  # its body is read: what comes now is none
            client.send(line)
            found = client.response()
            assert (found.status, found.json["code"]) == (431, "request.headers_too_large")
        until(lambda: not front.front.dispatcher.num_open)

    def test_a_row_of_requests_without_end(self, front: Front) -> None:
        with front.client() as client:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1" + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
            assert client.response().body == b"1"
            assert [client.response().body for _ in range(100)] == [b"litserve running"] * 100, "what was taken is answered"
            assert client.is_closed()
        assert front.post(b"1").body == b"1"

    def test_what_is_no_http_behind_a_row_of_requests(self, front: Front) -> None:
        with front.client() as client:
            post = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1"
            client.send(post + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + b"no http\r\n")
            assert [client.response().body for _ in range(2)] == [b"1", b"litserve running"]
            assert client.is_closed()

    def test_a_websocket_is_not_idle(self, way: Any) -> None:
        asks = b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        with serving(one(middlewares=way, keep_alive=0.1), ws=Upgraded) as front, front.client() as client:
            client.send(asks)
            assert client.file.read(len(asks)).startswith(b"GET /ws"), "the other protocol has it"
            until(lambda: not front.front._hot.connections)
            client.send(b"hello")
            assert client.file.read(5) == b"hello"

    def test_an_idle_connection_is_closed(self, way: Any) -> None:
        with serving(one(middlewares=way, keep_alive=0.1), echo) as front, front.client() as client:
            assert client.post(b"1").body == b"1"
            assert client.is_closed()


class Upgraded(asyncio.Protocol):
    """What speaks the other protocol: it says what it hears."""

    def __init__(self, **_: Any) -> None:
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class TestClientsThatLeave:
    def test_while_their_request_waits(self, idle: Front) -> None:
        worker = idle.worker()
        with idle.client() as running, idle.client() as third:
            running.ask(b"1")
            first = worker.take()
            waiting = idle.client()
            waiting.ask(b"2")
            until(lambda: idle.front.dispatcher.num_open == 2)
            waiting.close()
            until(lambda: idle.front.dispatcher.num_open == 1)
            third.ask(b"3")
            until(lambda: idle.front.dispatcher.num_open == 2)
            worker.say(first, Kind.RES, b"1")
            assert worker.take().body == b"3", "what nobody waits for is not computed"

    def test_while_their_request_runs(self, idle: Front) -> None:
        worker = idle.worker()
        client = idle.client()
        client.ask(b"1")
        request = worker.take()
        client.close()
        cancel = worker.heard(Kind.CANCEL)
        assert (cancel.stream, cancel.meta) == (request.stream, {"why": "disconnect"})
        worker.say(request, Kind.RES, b"too late")
        with idle.client() as other:
            other.ask(b"2")
            worker.say(worker.take(), Kind.RES, b"2")
            assert other.response().body == b"2"
        assert idle.front.dispatcher.num_open == 0

    def test_before_their_request_is_complete(self, idle: Front) -> None:
        worker = idle.worker()
        client = idle.client()
        client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
        until(lambda: idle.front.dispatcher.num_open == 1)
        client.close()
        until(lambda: idle.front.dispatcher.num_open == 0)
        assert not worker.has_request()


class TestClientsThatDoNotRead:
    @pytest.mark.parametrize("headers", [{}, {"connection": "close"}], ids=["kept", "closed"])
    def test_a_large_answer_that_nobody_reads_is_not_held_for_ever(self, way: Any, headers: dict[str, str]) -> None:
        with serving(one(middlewares=way, keep_alive=0.1, body_timeout=0.2), echo) as front:
            with front.client() as client:
                client.ask(b"x" * 16_000_000, **headers)
                until(lambda: front.front._hot.connections)
                until(lambda: not front.front._hot.connections)
                came = 0
                try:
                    while part := client.socket.recv(1 << 20):
                        came += len(part)
                except ConnectionResetError:
                    pass
                assert came < 16_000_000
            assert front.post(b"1").body == b"1"

    def test_one_that_reads_slowly_gets_all_of_it(self, way: Any) -> None:
        with serving(one(middlewares=way, keep_alive=0.1, body_timeout=0.2), echo) as front, front.client() as client:
            client.ask(b"x" * 16_000_000)
            found, pause, came = client.begin(), threading.Event(), 0
            while part := found.read1(1 << 20):
                came += len(part)
                pause.wait(0.05)  # longer in all than a connection may be idle
            assert came == 16_000_000


class TestWorkers:
    def test_requests_wait_for_the_first_one(self, idle: Front) -> None:
        with idle.client() as client:
            client.ask(b"1")
            idle.worker(echo)
            assert client.response().body == b"1"

    def test_who_starts_them_is_told_that_one_is_waited_for(self, idle: Front) -> None:
        told = list[Any]()
        dispatcher, layout = idle.front.dispatcher, Layout(["/predict"])
        values = dispatcher.counters(0)._page.values
        dispatcher.tell = lambda **said: told.append((said, values[layout.slot("queue_depth", 0)]))
        with idle.client() as client, idle.client() as other:
            client.ask(b"1")
            until(lambda: told)
            other.ask(b"2")
            until(lambda: dispatcher.num_open == 2)
            idle.worker(echo)
            assert (client.response().body, other.response().body) == (b"1", b"2")
        assert told == [({"wake": 0}, 1.0)], "once, and the load can be seen"

    def test_what_a_lost_one_had_is_answered_and_the_others_go_on(self, way: Any) -> None:
        with serving(one(middlewares=way)) as front:
            lost, other = front.worker(), front.worker()
            with front.client() as first, front.client() as second:
                first.ask(b"1")
                second.ask(b"2")
                one_request, other_request = lost.take(), other.take()
                lost.die()
                holder, kept = (first, second) if one_request.body == b"1" else (second, first)
                found = holder.response()
                assert (found.status, found.json["code"], found.headers["retry-after"]) == (503, "worker.lost", "1")
                other.say(other_request, Kind.RES, b"ok")
                assert kept.response().body == b"ok"

    def test_what_may_run_again_runs_again_once(self, way: Any) -> None:
        with serving(one(middlewares=way, is_idempotent=True)) as front:
            first = front.worker()
            with front.client() as client:
                client.ask(b"again")
                first.take()
                second = front.worker()
                first.die()
                request = second.take()
                assert request.body == b"again"
                second.die()
                assert client.response().json["code"] == "worker.lost"

    def test_what_runs_again_waits_anew(self, way: Any) -> None:
        with serving(one(middlewares=way, is_idempotent=True, timeout=30.0)) as front, front.client() as client:
            first = front.worker()
            client.ask(b"again")
            first.take()
            second = front.worker()
            front.call(lambda: setattr(front.front.dispatcher, "now", lambda: time.monotonic() + 100))
            first.die()
            request = second.take()
            assert request.meta["q"] > 0, "else its worker would refuse it as one that has waited too long"
            second.say(request, Kind.RES, b"done")
            assert client.response().body == b"done"

    def test_one_that_starts_again_at_its_address_is_found(self, idle: Front) -> None:
        worker = idle.worker(echo)
        assert idle.post(b"1").body == b"1"
        worker.die()
        path = worker.address.removeprefix("unix:")
        Path(path).unlink()
        idle.workers.append(FakeWorker(Path(path), echo))
        assert idle.post(b"2").body == b"2"

    def test_one_that_sends_no_frames_is_cut_off(self, idle: Front, caplog: pytest.LogCaptureFixture) -> None:
        worker = idle.worker()
        with idle.client() as client:
            client.ask(b"1")
            request = worker.take()
            worker._owners[request.stream].sendall(b"\xff" * 64)
            assert client.response().json["code"] == "worker.lost"
        assert "The link is broken" in caplog.text

    def test_what_cannot_be_sent_to_one_is_lost_and_nobody_waits_for_it(self, idle: Front, caplog: pytest.LogCaptureFixture) -> None:
        idle.worker(echo)
        assert idle.post(b"1").body == b"1"
        dispatcher: Any = idle.front.dispatcher
        meta_of = dispatcher._meta
        dispatcher._meta = lambda call, now: {"r": 1 << 80} if call.priority == 9 else meta_of(call, now)
        found = idle.post(b"2", x_priority="9")
        assert (found.status, found.json["code"]) == (503, "worker.lost")
        assert idle.post(b"3").body == b"3", "it is connected again"
        assert "requests cannot be sent to worker 0 of /predict" in caplog.text

    def test_an_api_that_cannot_start_says_so(self, idle: Front) -> None:
        idle.call(lambda: idle.front.set_failing(0, "setup() raised ValueError"))
        found = idle.post()
        assert (found.status, found.json["code"], found.headers["retry-after"]) == (503, "server.not_ready", "10")
        assert idle.get("/health/ready").json["apis"]["/predict"]["failing"] == "setup() raised ValueError"
        idle.call(lambda: idle.front.set_failing(0, ""))
        idle.worker(echo)
        assert idle.post(b"1").body == b"1"


def test_a_worker_that_is_removed_gets_nothing_more(idle: Front) -> None:
    worker = idle.worker()
    with idle.client() as client:
        client.ask(b"1")
        worker.take()
        idle.call(lambda: idle.front.remove_worker(WorkerId(0, 0)))
        assert client.response().json["code"] == "worker.lost"


def test_a_worker_that_drains_ends_what_it_has_and_gets_nothing_new(idle: Front) -> None:
    worker = idle.worker()
    with idle.client() as client, idle.client() as other:
        client.ask(b"1")
        request = worker.take()
        worker._owners[request.stream].sendall(b"".join(encode(Kind.DRAIN, 0)))
        worker.heard(Kind.DRAIN)  # nothing more comes: it need not wait for that
        worker.say(request, Kind.RES, b"1")
        assert client.response().body == b"1"
        other.ask(b"2")
        second = idle.worker()
        second.say(second.take(), Kind.RES, b"2")
        assert other.response().body == b"2"
        assert not worker.has_request()
