"""A front end as a process: it inherits its socket, is told who its workers are, drains, and does not outlive its supervisor."""

import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden.serve.config import ServerConfig
from leyden.serve.front import process
from leyden.serve.wire import Decoder, Kind, encode
from tests.support.fake_worker import FakeWorker, echo
from tests.support.fronts import SECONDS, Client, serving, until


class Running:
    """A process that serves, and the supervisor's end of its control socket."""

    def __init__(self, drain_timeout: float) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.control, theirs = socket.socketpair()
        self.control.settimeout(SECONDS)
        numbers = (listener.fileno(), theirs.fileno())
        command = [sys.executable, "-m", "tests.support.front_process", *map(str, numbers), str(drain_timeout)]
        self.process = subprocess.Popen(command, pass_fds=numbers, cwd=Path(__file__).parents[3])
        listener.close()
        theirs.close()

    def say(self, kind: Kind, **meta: Any) -> None:
        self.control.sendall(b"".join(encode(kind, 0, meta)))

    def client(self) -> Client:
        return Client(self.port)

    def ended(self) -> int:
        return self.process.wait(SECONDS)


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    found = Running(getattr(request, "param", 30.0))
    yield found
    found.control.close()
    found.process.kill()
    found.process.wait()


@pytest.fixture
def worker(running: Running, tmp_path: Path) -> Iterator[FakeWorker]:
    made = FakeWorker(tmp_path / "w.sock")
    running.say(Kind.STATE, up=[0, 0], at=made.address)
    yield made
    with contextlib.suppress(OSError):
        made.die()


def test_it_is_told_of_workers_and_ends_when_it_is_told_to(running: Running, worker: FakeWorker) -> None:
    running.say(Kind.STATE, api=1, wanted=0)
    with running.client() as client, running.client() as watcher:
        client.ask(b"1")
        worker.say(worker.take(), Kind.RES, b"1")
        assert client.response().body == b"1"
        watcher.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert watcher.response().body == b"ok", "an API that sleeps has all the workers that it is to have"
        client.ask(b"2")
        request = worker.take()
        running.say(Kind.DRAIN)
        assert watcher.is_closed(), "an idle connection ends"
        worker.say(request, Kind.RES, b"2")
        found = client.response()
        assert (found.body, found.headers["connection"]) == (b"2", "close"), "what was accepted is done"
        assert client.is_closed()
    assert running.ended() == 0
    with pytest.raises(ConnectionRefusedError):
        running.client()


def test_an_answer_that_is_being_read_is_sent_to_its_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(process, "_LAST_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "uvicorn.error")
    body = bytes(range(256)) * (64 << 10)
    with serving(ServerConfig(), echo) as front, front.client() as client:
        client.ask(body)
        found = client.begin()
        until(lambda: not front.front.dispatcher.num_open)  # answered, and most of it not read
        front.process.drain_soon()
        until(lambda: "Waiting for connections to close" in caplog.text)
        assert found.read() == body


@pytest.mark.parametrize("running", [0.1], indirect=True)
def test_a_client_that_never_reads_does_not_hold_up_the_end(running: Running, worker: FakeWorker) -> None:
    with running.client() as client:
        client.ask(b"1")
        worker.say(worker.take(), Kind.RES, bytes(32 << 20))
        client.begin()
        running.say(Kind.DRAIN)
        assert running.ended() == 0


@pytest.mark.parametrize("running", [0.1], indirect=True)
def test_what_takes_too_long_is_given_up(running: Running, worker: FakeWorker) -> None:
    with running.client() as client, running.client() as second:
        client.ask(b"1")
        worker.take()
        second.ask(b"2")
        running.say(Kind.DRAIN)
        for each in (client, second):
            found = each.response()
            assert (found.status, found.json["code"]) == (503, "server.draining")
        assert worker.heard(Kind.CANCEL).meta == {"why": "shutdown"}
    assert running.ended() == 0


def test_a_second_word_ends_it_at_once(running: Running, worker: FakeWorker) -> None:
    with running.client() as client:
        client.ask(b"1")
        worker.take()
        running.say(Kind.DRAIN)
        running.say(Kind.DRAIN, now=True)
        assert client.response().status == 503
    assert running.ended() == 0


def test_signals(running: Running, worker: FakeWorker) -> None:
    with running.client() as client:
        client.ask(b"1")
        request = worker.take()
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGTERM)
        worker.say(request, Kind.RES, b"1")
        assert client.response().body == b"1"
    assert running.ended() == 0


def test_it_does_not_outlive_its_supervisor(running: Running, worker: FakeWorker) -> None:
    with running.client() as client:
        client.ask(b"1")
        worker.take()
        running.control.close()
        assert client.is_closed()
    assert running.ended() == 1


def test_who_has_the_key_stops_the_server(running: Running, tmp_path: Path) -> None:
    with running.client() as client:
        assert client.post(path="/shutdown", authorization="Bearer no").status == 401
        assert client.post(path="/shutdown", authorization="Bearer stop").status == 200
        decoder, said = Decoder(), list[Any]()
        while {"shutdown": True} not in said:
            said += [frame.meta for frame in decoder.feed(running.control.recv(1000)) if frame.kind is Kind.STATE]
        assert said == [{"serving": True}, {"shutdown": True}]


def test_a_worker_that_goes_and_one_that_comes(running: Running, tmp_path: Path) -> None:
    first, second = FakeWorker(tmp_path / "1.sock", echo), FakeWorker(tmp_path / "2.sock", echo)
    running.say(Kind.STATE, up=[0, 0], at=first.address)
    with running.client() as client:
        assert client.post(b"1").body == b"1"
        running.say(Kind.STATE, down=[0, 0])
        first.die()
        running.say(Kind.STATE, api=0, failing="it cannot start")
        running.say(Kind.STATE, api=0, failing="")
        running.say(Kind.STATE, up=[0, 1], at=second.address)
        assert client.post(b"2").body == b"2"
    second.die()
