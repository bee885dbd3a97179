"""Servers as users start them: requests, workers that die, front ends that die, the end of it, and what users get wrong."""

import contextlib
import os
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.processes import running_script
from tests.support.served import Served, ready, served, starting


def wait_for(condition: "object", server: Served, what: str) -> None:
    server.script.wait_for(condition, what)  # type: ignore[arg-type]


def at_work(server: Served) -> int:
    return int(re.findall(r'leyden_serve_inflight{api="/predict"} (\d+)', server.get("/metrics").text)[0])


def test_a_server_answers_says_that_it_is_well_and_drains(tmp_path: Path) -> None:
    with served("[Square(), Counting(api_path='/count')]", options="workers_per_device={'/predict': 2}") as server:
        assert server.post(4).json() == {"output": 16}
        assert [server.get(path).status_code for path in ("/", "/health", "/health/live", "/health/ready", "/info")] == [200] * 5
        assert server.get("/info").json()["server"]["workers_per_device"] == {"/predict": 2}
        assert "leyden_serve_requests_total" in server.get("/metrics").text
        assert len({server.post("pid").json()["output"] for _ in range(20)}) == 2
        flag = tmp_path / "go"
        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(server.post, [str(flag)]) for _ in range(2)]  # one in each worker
            wait_for(lambda: at_work(server) == 2, server, "two at work")
            queued = pool.submit(server.post, 5)
            with httpx.stream("POST", server.url + "/count", json={"file": str(flag)}, timeout=60) as stream:
                lines = stream.iter_lines()
                assert [next(lines) for _ in range(3)] == ['{"n":0}', '{"n":1}', '{"n":2}']
                wait_for(lambda: at_work(server) == 3, server, "three at work")
                for pid in server.script.descendants():  # all of them get it, as from systemd
                    server.script.send_to(pid, signal.SIGTERM)
                wait_for(lambda: _refused(server), server, "no new connections")
                flag.touch()
                assert next(lines) == '{"n":3}'
            assert [each.result().json() for each in [*running, queued]] == [{"output": "done"}, {"output": "done"}, {"output": 25}]
        finished = server.script.wait()
        assert (finished.code, finished.stdout.count("the end")) == (0, 1), finished.stderr
        server.script.wait_until_gone()


PLAIN = """
import sys
from leyden.serve import LitAPI, LitServer

class Double(LitAPI):
    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        return 2 * x

if __name__ == "__main__":
    LitServer(Double(), accelerator="cpu").run(host="127.0.0.1", port=0, generate_client_file=False)
    print([name for name in ("fastapi", "starlette", "pydantic") if name in sys.modules], flush=True)
"""


def test_a_server_of_plain_apis_loads_fastapi_where_it_is_needed_alone() -> None:
    with running_script(PLAIN) as script:
        server = ready(script)
        assert server.post(2).json() == 4
        assert server.get("/docs").status_code == 200
        script.send(signal.SIGTERM)
        assert (script.wait().code, script.stdout.splitlines()[-1]) == (0, "[]")


def _refused(server: Served) -> bool:
    """Return whether nobody listens any more: who connects now is told so, and does not wait for an answer that never comes."""
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.connect((host, int(port)))
        except ConnectionRefusedError:
            return True
    return False


def test_a_second_signal_gives_up_what_is_there(tmp_path: Path) -> None:
    with served() as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.post, [str(tmp_path / "never")])
        wait_for(lambda: at_work(server) == 1, server, "one at work")
        server.script.send(signal.SIGTERM)
        wait_for(lambda: _refused(server), server, "no new connections")
        server.script.send(signal.SIGINT)
        assert (waiting.result().status_code, waiting.result().json()["code"]) == (503, "server.draining")
        assert server.script.wait().code == 0
        server.script.wait_until_gone()


def test_a_worker_that_dies_loses_its_requests_and_is_started_again(tmp_path: Path) -> None:
    with served(options="workers_per_device=2") as server, ThreadPoolExecutor(2) as pool:
        other = pool.submit(server.post, [str(tmp_path / "go")])
        lost = server.post("die")
        assert (lost.status_code, lost.json()["code"], lost.headers["retry-after"]) == (503, "worker.lost", "1")
        (tmp_path / "go").touch()
        assert other.result().json() == {"output": "done"}, "nobody else notices"
        wait_for(lambda: server.get("/health").status_code == 200, server, "well again")
        assert "is gone: The worker ended with status 9" in server.script.stderr
        assert 'leyden_serve_worker_restarts_total{api="/predict"} 1' in server.get("/metrics").text


def test_requests_wait_for_a_worker_that_is_started_again() -> None:
    with served() as server:
        os.kill(server.post("pid").json()["output"], signal.SIGKILL)
        told = "was ended by SIGKILL (by the kernel, for want of memory?)"
        wait_for(lambda: told in server.script.stderr, server, "its end is known: before, it would be sent the request")
        assert server.post(3).json() == {"output": 9}


def test_a_worker_that_must_not_be_started_again_ends_the_server() -> None:
    with served(options="restart_workers=False") as server:
        assert server.post("die").status_code == 503
        finished = server.script.wait()
        assert finished.code == 1
        assert "RemoteError: a worker died, and restart_workers=False" in finished.stderr
        server.script.wait_until_gone()


def test_a_front_end_that_dies_is_back_at_once() -> None:
    with served(options="workers_per_device=2", run="num_api_servers=2") as server:
        workers = {server.post("pid").json()["output"] for _ in range(20)}
        fronts = [pid for pid in server.children() if pid not in workers and b"script.py" in _command(pid)]
        assert len(fronts) == 2
        for pid in fronts:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: server.script.stderr.count("and is started again") == 2, server, "started again")
        wait_for(lambda: server.get("/health").status_code == 200, server, "well again")
        assert {server.post("pid").json()["output"] for _ in range(20)} == workers
        counted = re.findall(r'leyden_serve_requests_total{api="/predict",status="200"} (\d+)', server.get("/metrics").text)
        assert int(counted[0]) > 30, "counters never fall"
        assert server.script.stderr.count("/predict is hot") == 1, "it is said once, however many front ends there are and were"


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    with served("[Square(), Square(api_path='/other')]", run="num_api_servers=2") as server:
        assert len(server.children()) >= 4
        threading.Thread(target=_posted, args=(server, str(tmp_path / "never")), daemon=True).start()
        wait_for(lambda: at_work(server) == 1, server, "one at work")
        server.script.send(signal.SIGKILL)
        assert server.script.wait_until_gone(10) < 5


def _posted(server: Served, file: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        server.post([file])


@pytest.mark.parametrize(
    ("api", "told"), [("FailsSetUp()", "ValueError: no weights here"), ("LeavesSetUp()", "ended with status 7 in its setup")]
)
def test_an_api_that_cannot_be_set_up_ends_the_server(api: str, told: str) -> None:
    with starting(api) as script:
        finished = script.wait()
        assert finished.code == 1
        assert "RemoteError: no worker of /predict could be set up, so the server stops" in finished.stderr
        assert told in finished.stderr
        assert "the end" not in finished.stdout
        script.wait_until_gone()


def test_a_front_end_that_cannot_start_ends_the_server() -> None:
    with starting(options="middlewares=[StaysDown]") as script:
        finished = script.wait()
        assert finished.code == 1
        assert re.search(r"RemoteError: the front end could not start \(ended with status \d\), so the server stops", finished.stderr)
        assert "ValueError: not today" in finished.stderr
        assert "Leyden serves" not in finished.stdout
        script.wait_until_gone()


def test_a_port_in_use_names_its_holder() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        source = f"""
from leyden.serve import LitServer
from tests.support.serve_apis import Square
LitServer(Square(), accelerator="cpu").run(host="127.0.0.1", port={port})
"""
        with running_script(source) as script:
            finished = script.wait()
        assert finished.code == 1
        assert f"ConfigError: port {port} is in use by process {os.getpid()}" in finished.stderr


def test_a_server_without_the_guard_says_so() -> None:
    source = """
from leyden.serve import LitServer
from tests.support.serve_apis import Square
LitServer(Square(), accelerator="cpu").run(host="127.0.0.1", port=0)
"""
    with running_script(source) as script:
        finished = script.wait()
        assert finished.code == 1
        assert 'below `if __name__ == "__main__":`' in finished.stderr
        script.wait_until_gone()


def test_workers_follow_the_load_to_zero_and_back(tmp_path: Path) -> None:
    policy = "AutoscalePolicy(min_replicas=0, initial_replicas=0, max_replicas=2, target_ongoing_requests=1, look_back_seconds=0.5, "
    policy += "upscale_delay_seconds=0, downscale_delay_seconds=0.5, downscale_to_zero_delay_seconds=0.5)"
    with served(f"Square(autoscale={policy})") as server:
        assert server.get("/health").status_code == 200, "asleep is well"
        assert server.post(4).json() == {"output": 16}
        with ThreadPoolExecutor(6) as pool:
            busy = [pool.submit(server.post, [str(tmp_path / "go")]) for _ in range(6)]
            wait_for(lambda: 'workers{api="/predict",state="ready"} 2' in server.get("/metrics").text, server, "two workers")
            (tmp_path / "go").touch()
            assert all(each.result().status_code == 200 for each in busy)
        wait_for(lambda: 'workers{api="/predict",state="ready"} 0' in server.get("/metrics").text, server, "asleep")
        assert server.post(5).json() == {"output": 25}


def test_a_worker_that_is_not_wanted_any_more_ends_what_it_has(tmp_path: Path) -> None:
    policy = "AutoscalePolicy(min_replicas=1, initial_replicas=2, max_replicas=2, target_ongoing_requests=1, look_back_seconds=0.5, "
    policy += "upscale_delay_seconds=0, downscale_delay_seconds=0.3)"
    files = [tmp_path / "a", tmp_path / "b"]
    with served(f"Square(autoscale={policy})") as server, ThreadPoolExecutor(2) as pool:
        asked = {file: pool.submit(server.post, [str(file)]) for file in files}
        pids = [file.with_suffix(".pid") for file in files]
        wait_for(lambda: all(path.exists() and path.read_text() for path in pids), server, "both at work")
        first, second = sorted(files, key=lambda file: int(file.with_suffix(".pid").read_text()))  # workers start in their order
        first.touch()
        assert asked[first].result().json() == {"output": "done"}
        wait_for(lambda: 'workers{api="/predict",state="draining"} 1' in server.get("/metrics").text, server, "one leaves")
        assert server.post(3).json() == {"output": 9}, "the other takes what comes"
        second.touch()
        assert asked[second].result().json() == {"output": "done"}, "nothing is lost"
        wait_for(lambda: 'workers{api="/predict",state="draining"} 0' in server.get("/metrics").text, server, "it is gone")
