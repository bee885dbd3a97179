"""Loggers of real servers: each value once, whatever happens to the logger process; apps in front ends; nobody waits for a logger."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from leyden.serve import LitServer
from leyden.serve.testing import running
from tests.support.asgi_client import TestClient
from tests.support.fronts import until
from tests.support.serve_loggers import Counted, Logging, Noting
from tests.support.served import Served, served


class Watched:
    """A server, and the file that its logger writes."""

    def __init__(self, server: Served, file: Path) -> None:
        self.server, self.file = server, file

    def log(self, **body: Any) -> None:
        answer = httpx.post(self.server.url + "/predict", json=body, timeout=60)
        assert answer.json() == body.get("times", 1), answer.text

    def found(self, text: str) -> list[str]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [line for line in lines if line.startswith(text)]

    def wait_for(self, text: str, times: int = 1) -> int:
        """Wait until so many lines begin with a text, and return the process that wrote the last one."""
        self.server.script.wait_for(lambda: len(self.found(text)) >= times, f"{text!r}, {times} times")
        return int(self.found(text)[-1].split()[-1])

    def count(self, name: str, path: str = "/metrics") -> float:
        """Return a number, from whichever front end answers."""
        found = re.findall(rf"^{re.escape(name)} (\S+)$", self.server.get(path).text, re.MULTILINE)
        return float(found[0]) if found else 0.0


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    file = tmp_path_factory.mktemp("logged") / "values"
    options = f"loggers=[Noting({str(file)!r}), Counted()]"
    with served("Logging()", options=options, run="num_api_servers=2") as server:
        yield Watched(server, file)


def test_each_value_comes_once_and_in_order(watched: Watched) -> None:
    for number in range(5):
        watched.log(key="ordered", value=number)
    watched.log(key="many", times=500)
    pid = watched.wait_for("many", 500)
    assert [line.split()[0] for line in watched.found("ordered")] == [f"ordered={number}" for number in range(5)]
    assert len(watched.found("many")) == 500
    assert pid not in {watched.server.script.process.pid, os.getpid()}


def test_an_app_shows_the_same_numbers_in_every_front_end(watched: Watched) -> None:
    watched.log(key="shown", value=2.5, times=4)
    name = 'seen_total{key="shown"}'

    def is_everywhere() -> bool:
        return {watched.count(name) for _ in range(12)} == {10.0}

    watched.server.script.wait_for(is_everywhere, "10 in each front end")
    assert watched.server.get("/metrics/").status_code == 200
    assert watched.count('leyden_serve_log_dropped_total{api="/predict"}', "/metrics/server") == 0


def test_what_a_logger_raises_is_logged_and_harms_nobody(watched: Watched) -> None:
    watched.log(key="fail")
    watched.log(key="after-failure")
    watched.wait_for("after-failure")
    watched.server.script.wait_for(lambda: "Noting.process('fail', …) failed" in watched.server.script.stderr, "told")
    watched.server.script.wait_for(lambda: "Counted.process('fail', …) failed" in watched.server.script.stderr, "told by front ends")
    assert "ValueError: unlucky" in watched.server.script.stderr


def test_a_value_that_cannot_be_sent_is_told(watched: Watched) -> None:
    watched.log(key="big", size=300_000, times=3)
    script = watched.server.script
    script.wait_for(lambda: "log('big', …) is dropped" in script.stderr, "told")
    assert script.stderr.count("log('big', …) is dropped") == 1
    assert "it has 300,005 bytes, and loggers take 262,144" in script.stderr


@pytest.mark.parametrize("way", ["kill -9", "its own exit"])
def test_a_logger_process_that_dies_is_started_again(watched: Watched, way: str) -> None:
    watched.log(key=f"before {way}")
    pid = watched.wait_for(f"before {way}")
    if way == "kill -9":
        os.kill(pid, signal.SIGKILL)
    else:
        watched.log(key="die")
    script, told = watched.server.script, "ended by SIGKILL" if way == "kill -9" else "ended with status 9"
    script.wait_for(lambda: re.search(f"the logger process .*{told}.* and is started again", script.stderr) is not None, "told")
    watched.log(key=f"after {way}")
    assert watched.wait_for(f"after {way}") != pid


def test_a_logger_that_hangs_holds_up_nobody_and_what_is_too_much_is_counted(watched: Watched, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    watched.log(key="wait", value=str(flag))
    watched.log(key="flood", size=2000, times=6000)
    name, script = 'leyden_serve_log_dropped_total{api="/predict"}', watched.server.script
    script.wait_for(lambda: watched.count(name, "/metrics/server") > 0, "some were dropped")
    watched.log(key="nobody waits")
    assert script.stderr.count("the loggers are too slow") == 1
    flag.touch()
    watched.wait_for("wait")
    watched.wait_for("flood", 1000)

    def is_accounted_for() -> bool:  # what one front end does not take is counted, and processed elsewhere
        return len(watched.found("flood")) + len(watched.found("nobody")) + watched.count(name, "/metrics/server") >= 6001

    script.wait_for(is_accounted_for, "each was processed or counted")


def test_what_was_logged_before_the_end_is_processed(tmp_path: Path) -> None:
    with served("Logging()", options=f"loggers=Noting({str(tmp_path / 'values')!r})") as server:
        watched = Watched(server, tmp_path / "values")
        flag = tmp_path / "go"
        watched.log(key="wait", value=str(flag))
        watched.log(key="last", times=3000)
        server.script.send(signal.SIGTERM)
        flag.touch()
        assert server.script.wait().code == 0
        assert len(watched.found("last")) == 3000
        assert watched.file.read_text().endswith("closed\n")
        server.script.wait_until_gone()


def test_a_logger_does_not_outlive_its_server(tmp_path: Path) -> None:
    with served("Logging()", options=f"loggers=Noting({str(tmp_path / 'values')!r})") as server:
        watched = Watched(server, tmp_path / "values")
        watched.log(key="first")
        watched.wait_for("first")
        watched.log(key="wait", value=str(tmp_path / "never"))
        watched.log(key="more", times=3000)
        server.script.send(signal.SIGKILL)
        server.script.wait_until_gone(20)


def test_an_app_that_adds_up_all_processes_counts_each_value_once(tmp_path: Path) -> None:
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with served("Logging()", options="loggers=Shared()", run="num_api_servers=2", env=env) as server:
        watched = Watched(server, tmp_path / "none")
        watched.log(times=5)
        server.script.wait_for(lambda: {watched.count("shared_total") for _ in range(12)} == {5.0}, "5 in each front end")
        watched.log(times=5)
        server.script.wait_for(lambda: {watched.count("shared_total") for _ in range(12)} == {10.0}, "10 in each front end")


def test_an_app_that_somebody_else_serves_has_loggers_too(tmp_path: Path) -> None:
    file = tmp_path / "values"
    server = LitServer(Logging(), accelerator="cpu", loggers=[Noting(str(file)), Counted("/numbers")])
    with running(server), TestClient(server.app) as client:
        assert client.post("/predict", json={"key": "a", "times": 3, "value": 2}).json() == 3
        until(lambda: 'seen_total{key="a"} 6.0' in client.get("/numbers").text)
        assert "leyden_serve_requests_total" in client.get("/metrics").text
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["a=2"] * 3 + ["closed"]
