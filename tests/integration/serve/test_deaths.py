"""Workers that are killed at any moment of their work, on a real server: nobody waits in vain, and others notice nothing."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.served import OPTIONS, Served, served, starting


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("doomed")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    """A server of every fate; each of its APIs belongs to one test, or heals."""
    apis = f"""[
        Doomed({str(folder)!r}),
        Doomed({str(folder)!r}, api_path="/again", idempotent=True),
        DoomedStream(api_path="/stream", stream=True),
        Stuck({str(folder)!r}, api_path="/stuck"),
        StuckBatch({str(folder)!r}, api_path="/stuck-batch", max_batch_size=2, batch_timeout=5),
        FirstTimeOnly({str(folder)!r}, api_path="/once"),
    ]"""
    options = "workers_per_device={'/predict': 2, '/again': 2}, kill_after=0.3"
    with served(apis, options=options, run="num_api_servers=2") as found:
        yield found


def count(server: Served, name: str, path: str) -> int:
    return int(re.findall(rf'leyden_serve_{name}{{api="{path}"[^}}]*}} (\d+)', server.get("/metrics").text)[0])


def open_numbers(server: Served) -> set[str]:
    return set(re.findall(r"leyden_serve_(?:inflight|inflight_bytes|queue_depth){[^}]*} (\d+)", server.get("/metrics").text))


def is_well(server: Served, path: str, workers: int) -> bool:
    return server.get("/health/ready").json()["apis"][path]["ready"] == workers


def healed(server: Served, path: str, workers: int) -> None:
    server.script.wait_for(lambda: is_well(server, path, workers), f"{workers} workers of {path} are ready")


def ask(server: Served, path: str = "/predict", **body: Any) -> httpx.Response:
    return server.ask(path, body)


@pytest.mark.parametrize("moment", ["decode", "predict", "frame", "segfault", "leave"])
def test_whoever_a_dying_worker_had_gets_503_and_the_others_their_answers(server: Served, moment: str) -> None:
    healed(server, "/predict", 2)
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(ask, server, input=number) for number in range(6)]
        lost = pool.submit(ask, server, input=1, die=moment)
        others += [pool.submit(ask, server, input=number) for number in range(6)]
        found = lost.result()
        assert (found.status_code, found.json()["code"], found.headers["retry-after"]) == (503, "worker.lost", "1")
        answers = [each.result() for each in others]
    assert {each.status_code for each in answers} <= {200, 503}
    assert all(each.json()["code"] == "worker.lost" for each in answers if each.status_code == 503), "sent to it, and lost with it"
    healed(server, "/predict", 2)
    assert ask(server, input=3).json() == {"output": 9}


def test_one_that_is_idle_is_replaced_and_nobody_notices(server: Served) -> None:
    healed(server, "/predict", 2)
    pids = {ask(server, input="pid").json()["output"] for _ in range(20)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    found = [ask(server, input=number) for number in range(6)]
    assert {each.status_code for each in found[:2]} <= {200, 503}, "sent before anybody could know"
    assert [each.status_code for each in found[2:]] == [200] * 4, "they wait for those that are started"


def test_one_that_dies_in_its_set_up_is_started_again(server: Served, folder: Path) -> None:
    healed(server, "/predict", 2)
    (folder / "die").touch()
    os.kill(ask(server, input="pid").json()["output"], signal.SIGKILL)
    server.script.wait_for(lambda: not (folder / "die").exists(), "it has died in its set-up")
    healed(server, "/predict", 2)
    assert "SIGKILL (by the kernel, for want of memory?) in its setup" in server.script.stderr


def test_what_may_run_again_does_once(server: Served) -> None:
    healed(server, "/again", 2)
    found = ask(server, "/again", input=1, die="predict")
    assert (found.status_code, found.json()["code"]) == (503, "worker.lost"), "two workers were enough"
    healed(server, "/again", 2)
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(ask, server, "/again", input=number) for number in range(8)]
        os.kill(ask(server, "/again", input="pid").json()["output"], signal.SIGKILL)
        assert [each.result().status_code for each in others] == [200] * 8


@pytest.mark.parametrize(("accept", "told"), [("*/*", b'{"error":'), ("text/event-stream", b"event: error\ndata: ")])
def test_a_stream_that_breaks_off_says_so(server: Served, accept: str, told: bytes) -> None:
    healed(server, "/stream", 1)
    with httpx.stream("POST", server.url + "/stream", json={"die": 5}, headers={"accept": accept}, **OPTIONS) as stream:
        assert stream.status_code == 200
        came, is_whole = _read(stream)
    assert not is_whole
    assert came.count(b'{"n":') == 5
    assert told in came
    assert b'"worker.lost"' in came
    healed(server, "/stream", 1)
    assert len(ask(server, "/stream").text.splitlines()) == 10


def _read(stream: httpx.Response) -> tuple[bytes, bool]:
    """Return all that comes, and whether the end of it does."""
    came = b""
    try:
        for part in stream.iter_raw():
            came += part
    except httpx.RemoteProtocolError:
        return came, False
    return came, True


class TestStuck:
    """`kill_after`: what a worker ignores does not hold it up for ever."""

    def test_a_deadline_that_is_ignored_ends_the_worker(self, server: Served) -> None:
        healed(server, "/stuck", 1)
        found = server.ask("/stuck", {"input": 0}, headers={"x-request-timeout": "0.2"})
        assert (found.status_code, found.json()["code"]) == (504, "deadline.exceeded")
        other = ask(server, "/stuck", input=3)
        assert other.status_code in {200, 503}, "the next worker has it; or this one had it already, from the other front end"
        assert ask(server, "/stuck", input=3).json() == 9
        assert "is gone: it went on with what it was told to leave (kill_after)" in server.script.stderr

    def test_a_client_that_left_too(self, server: Served) -> None:
        healed(server, "/stuck", 1)
        restarts = count(server, "worker_restarts_total", "/stuck")
        with pytest.raises(httpx.ReadTimeout):
            server.ask("/stuck", {"input": 0}, timeout=0.2)
        server.script.wait_for(lambda: count(server, "worker_restarts_total", "/stuck") > restarts, "it is killed")
        assert ask(server, "/stuck", input=2).json() == 4

    def test_not_while_another_client_waits_for_the_same_batch(self, server: Served, folder: Path) -> None:
        healed(server, "/stuck", 1)
        with ThreadPoolExecutor(1) as pool:
            stays = pool.submit(ask, server, "/stuck-batch", input=0)
            found = server.ask("/stuck-batch", {"input": 0}, headers={"x-request-timeout": "0.3"})
            assert (found.status_code, found.json()["code"]) == (504, "deadline.exceeded")
            restarts = count(server, "worker_restarts_total", "/stuck")  # of one that is killed for what happens later
            assert server.ask("/stuck", {"input": 0}, headers={"x-request-timeout": "0.3"}).status_code == 504
            server.script.wait_for(lambda: count(server, "worker_restarts_total", "/stuck") > restarts, "it is killed")
            (folder / "go").touch()
            assert stays.result().json() == 0
        assert count(server, "worker_restarts_total", "/stuck-batch") == 0


def test_workers_that_die_again_and_again_make_their_api_failing_and_nothing_else(server: Served) -> None:
    assert ask(server, "/once", input=1).json()["code"] == "worker.lost"
    waiting = ask(server, "/once", input=1)
    assert (waiting.status_code, waiting.json()["code"]) == (503, "server.not_ready"), "nobody waits for what does not come"
    server.script.wait_for(lambda: "keep dying" in server.get("/health/ready").text, "it is failing")
    found = ask(server, "/once", input=1)
    assert (found.status_code, found.json()["code"], found.headers["retry-after"]) == (503, "server.not_ready", "10")
    ready = server.get("/health/ready")
    assert ready.status_code == 503
    assert "OSError: the weights are gone" in ready.json()["apis"]["/once"]["failing"]
    assert server.get("/health").status_code == 503
    assert ask(server, input=3).json() == {"output": 9}
    assert 'rejected_total{api="/once",reason="not_ready"} ' in server.get("/metrics").text


def test_nothing_is_left_of_all_that(server: Served) -> None:
    server.script.wait_for(lambda: open_numbers(server) == {"0"}, "no request is open, in any front end")
    server.script.send(signal.SIGTERM)
    assert server.script.wait().code == 0
    server.script.wait_until_gone()


def test_what_hangs_holds_up_its_own_api_and_no_signal(tmp_path: Path) -> None:
    port, never = free_port(), str(tmp_path / "never")
    with starting("[NeverSetUp(), Square(api_path='/other')]", options="timeout=0.3, drain_timeout=0.3", run=f"port={port}") as script:
        script.wait_for(lambda: "of /other is ready" in script.stderr, "the other one is ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", **OPTIONS) as client:
            assert client.post("/other", json={"input": 3}).json() == {"output": 9}
            waits = client.post("/predict", json={"input": 3})
            assert (waits.status_code, waits.json()["code"]) == (504, "queue.expired")
            assert [client.get(path).status_code for path in ("/health", "/health/ready", "/health/live")] == [503, 503, 200]
            assert "Leyden serves" not in script.stdout
            with ThreadPoolExecutor(1) as pool:
                hangs = pool.submit(client.post, "/other", json={"input": [never]})
                script.wait_for(Path(never + ".pid").exists, "it computes without end")
                script.send(signal.SIGTERM)
                assert (hangs.result().status_code, hangs.result().json()["code"]) == (503, "server.draining")
        assert script.wait().code == 0
        script.wait_until_gone()
