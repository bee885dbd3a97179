"""`server.app` in other programs: a test client, uvicorn, a mount; and `running` in tests."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from leyden.core.errors import RemoteError, StateError
from leyden.serve import LitServer
from leyden.serve.callbacks import Callback
from leyden.serve.testing import running, wrap_litserve_start
from tests.support.asgi_client import TestClient
from tests.support.fronts import until
from tests.support.serve_apis import Echo, FailsSetUp, Replies, Square


class Noted(Callback):
    """Notes what it is told in this process."""

    def __init__(self) -> None:
        self.told = list[str]()

    def on_server_start(self, *args: Any, **kwargs: Any) -> None:
        self.told.append("start")

    def on_server_end(self, *args: Any, **kwargs: Any) -> None:
        self.told.append("end")

    def on_request(self, *args: Any, **kwargs: Any) -> None:
        self.told.append(f"request {kwargs['active_requests']}")

    def on_response(self, *args: Any, **kwargs: Any) -> None:
        self.told.append("response")


def children() -> set[int]:
    found = subprocess.run(["pgrep", "-f", "spawn_main"], capture_output=True, text=True, check=False).stdout
    return {int(pid) for pid in found.split()}


def test_a_test_client_starts_the_workers_and_stops_them() -> None:
    noted = Noted()
    server = LitServer(Square(), accelerator="cpu", callbacks=noted, track_requests=True)
    with TestClient(server.app) as client:
        assert client.post("/predict", json={"input": 4}).json() == {"output": 16}
        assert [worker.pid for worker in server.inference_workers]
        assert server.active_requests == 0
    assert server.inference_workers == []
    assert noted.told == ["request 1", "start", "response", "end"] or noted.told == ["start", "request 1", "response", "end"]


def test_running_waits_and_leaves_nothing() -> None:
    with running(LitServer(Square(), accelerator="cpu", workers_per_device=2)) as server:
        pids = {worker.pid for worker in server.inference_workers}
        assert len(pids) == 2
        for _ in range(2):  # one client after another
            with TestClient(server.app) as client:
                assert client.get("/health").status_code in (200, 503)
                assert client.post("/predict", json={"input": 3}).json() == {"output": 9}
        with pytest.raises(StateError, match="runs already"):
            server.start()
    assert not pids & children()


def test_a_hook_answers_with_a_response_of_its_own() -> None:
    server = LitServer([Replies(), Replies(api_path="/batched", max_batch_size=4)], accelerator="cpu")
    with running(server), TestClient(server.app) as client:
        for path in ("/predict", "/batched"):
            answer = client.post(path, json="png")
            assert (answer.status_code, answer.content, answer.headers["content-type"]) == (201, b"\x89PNG", "image/png")
            assert (answer.headers["x-model"], dict(answer.cookies)) == ("m1", {"a": "1", "b": "2"})
        refused = client.post("/predict", json="stream")
        assert refused.status_code == 500
        assert "a StreamingResponse has no body that a worker could send. Yield with stream=True" in refused.json()["message"]


def test_litserves_name_does_not_wait() -> None:
    server = LitServer(Square(), accelerator="cpu")
    with wrap_litserve_start(server, worker_monitor=True), TestClient(server.app) as client:
        assert client.post("/predict", json={"input": 3}).json() == {"output": 9}


def test_an_api_that_cannot_be_set_up_is_told() -> None:
    with pytest.raises(RemoteError, match="no weights here"), running(LitServer(FailsSetUp(), accelerator="cpu")):
        raise AssertionError("it is not ready")


def test_an_outer_app_mounts_it_and_routes_are_added() -> None:
    server = LitServer(Square(), accelerator="cpu")

    @server.app.get("/extra")
    def extra() -> dict[str, int]:
        return {"extra": 1}

    outer = FastAPI(lifespan=server.lifespan)
    outer.mount("/model", server.app)
    with TestClient(outer) as client:
        assert client.post("/model/predict", json={"input": 4}).json() == {"output": 16}
        assert client.get("/model/extra").json() == {"extra": 1}


@contextlib.contextmanager
def uvicorn_of(app: Any) -> Iterator[int]:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(30)


def test_uvicorn_serves_it() -> None:
    import httpx

    with uvicorn_of(LitServer(Square(), accelerator="cpu").app) as port:
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"input": 5}, timeout=60)
        assert answer.json() == {"output": 25}


def test_a_worker_that_hangs_is_told_in_the_log_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = LitServer(Square(), accelerator="cpu")
    with running(server), TestClient(server.app) as client, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(client.post, "/predict", json={"input": [str(tmp_path / "go")]})
        until((tmp_path / "go.pid").exists)
        dispatcher, portal = server._front.dispatcher, client.portal
        assert portal is not None
        for seconds in (1, 62):  # what an hour would show in an hour
            portal.call(dispatcher.sweep, dispatcher.now() + seconds)
        until(lambda: 'worker_hangs_total{api="/predict"} 1' in client.get("/metrics").text)
        (tmp_path / "go").touch()
        assert waits.result().json() == {"output": "done"}
    assert "worker 0 of /predict has said nothing for 60 s, and has requests" in caplog.text


def test_what_a_hook_returns_because_it_is_late_is_no_answer() -> None:
    with TestClient(LitServer(Echo(), accelerator="cpu").app) as client:
        answers = [client.post("/predict", json={"input": "wait"}, headers={"X-Request-Timeout": "0.02"}) for _ in range(20)]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(504, "deadline.exceeded")}
