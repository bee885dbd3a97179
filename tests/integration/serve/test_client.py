"""Clients and real servers: what breaks is told, what is given up ends on the server, what is refused comes again."""

import asyncio
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leyden.serve import AsyncClient, Client
from leyden.serve.errors import BrokenStreamError, BusyError, FailedError, LateError, NoAnswerError, RejectedError
from tests.support.certificates import self_signed
from tests.support.processes import ROOT
from tests.support.served import Served, served

APIS = "[Doing(), Telling(api_path='/tell'), Doing(api_path='/fresh')]"
IMPORTS = "from tests.support.client_apis import *"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(APIS, options="max_queue_size=1", imports=IMPORTS) as found:
        yield found


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    with Client(server.url, timeout=60) as found:
        yield found


def appears(server: Served, file: Path, suffix: str) -> None:
    server.script.wait_for(file.with_suffix(suffix).exists, f"{file.name}{suffix}")


class TestRequests:
    def test_values_forms_files_and_bytes(self, client: Client) -> None:
        assert client.health()
        assert client.predict({"input": 4}) == {"output": 16}
        files = {"a": io.BytesIO(bytes(200_000)), "b": ("b.png", b"12", "image/png")}
        assert client.predict(form={"field": "x"}, files=files) == {
            "field": "x",
            "a": ["upload", "application/octet-stream", 200_000],
            "b": ["b.png", "image/png", 2],
        }
        assert client.predict(form={"field": "x"}) == {"field": "x"}
        assert client.predict(b'{"input": 3}', headers={"Content-Type": "application/json"}) == {"output": 9}

    def test_one_connection_serves_one_request_after_another(self, server: Served) -> None:
        with Client(server.url) as client:
            for number in range(5):
                assert client.predict({"input": number}) == {"output": number**2}
                assert client.health()
            assert connections(client) == 1

    def test_threads_share_a_client(self, server: Served) -> None:
        with Client(server.url, retries=100) as client, ThreadPoolExecutor(8) as pool:
            client._clock = Waking()  # there is room for two only: the others come again
            found = list(pool.map(lambda number: client.predict({"input": number})["output"], range(100)))
            assert found == [number**2 for number in range(100)]
            assert connections(client) <= 8

    def test_tasks_share_a_client(self, server: Served) -> None:
        async def use() -> None:
            async with AsyncClient(server.url, retries=100) as client:
                client._sleep = lambda seconds: asyncio.sleep(0)
                found = await asyncio.gather(*(client.predict({"input": number}) for number in range(30)))
                assert [each["output"] for each in found] == [number**2 for number in range(30)]
                assert await client.health()

        asyncio.run(use())

    def test_errors_have_the_names_that_the_log_has(self, server: Served, client: Client, tmp_path: Path) -> None:
        with pytest.raises(RejectedError, match=r"400 request\.invalid_json: The body is no JSON: .* at line 1, column 2"):
            client.predict(b"{x", headers={"Content-Type": "application/json"})
        with pytest.raises(RejectedError, match=r"404 request\.not_found: Nothing is at '/none'"):
            client.predict(1, "/none")
        with pytest.raises(FailedError, match=r"worker\.failed: predict\(\) raised TypeError") as raised:
            client.predict({"input": "x"})
        assert f"{raised.value.request_id}: predict() failed" in server.script.stderr

    def test_nobody_is_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}", retries=1)
        client._clock = Waking()
        assert not client.health()
        with pytest.raises(NoAnswerError, match="Connection refused"):
            client.predict(1)


class TestStreams:
    @pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
    def test_items_as_they_come(self, client: Client, tmp_path: Path, accept: str) -> None:
        file = tmp_path / "go"
        with client.stream({"file": str(file)}, "/tell", headers={"Accept": accept}) as items:
            assert [next(items) for _ in range(3)][1:] == [{"n": 0}, {"n": 1}]
            file.touch()
            assert list(items) == [{"n": 2}]
        assert connections(client) == 1, "one that was read to its end can be used again"

    @pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
    def test_a_hook_that_fails_later(self, client: Client, tmp_path: Path, accept: str) -> None:
        seen = list[Any]()
        with pytest.raises(BrokenStreamError, match=r"worker\.failed: predict\(\) raised ValueError: no more to tell") as raised:
            seen.extend(iter(client.stream({"file": str(tmp_path / "x"), "fails": True}, "/tell", headers={"Accept": accept})))
        assert seen[1:] == [{"n": 0}, {"n": 1}]
        assert raised.value.code == "worker.failed"

    @pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
    def test_a_worker_that_is_killed(self, server: Served, client: Client, tmp_path: Path, accept: str) -> None:
        items = client.stream({"file": str(tmp_path / "never")}, "/tell", headers={"Accept": accept})
        seen = [next(items) for _ in range(3)]
        os.kill(seen[0]["pid"], signal.SIGKILL)
        assert seen[1:] == [{"n": 0}, {"n": 1}]
        with pytest.raises(BrokenStreamError, match=r"worker\.lost") as raised:
            next(items)
        assert (raised.value.status, raised.value.code) == (200, "worker.lost")
        (tmp_path / "go").touch()
        assert list(client.stream({"file": str(tmp_path / "go")}, "/tell"))[1:] == [{"n": 0}, {"n": 1}, {"n": 2}]

    def test_who_stops_early_stops_the_server(self, server: Served, client: Client, tmp_path: Path) -> None:
        file = tmp_path / "never"
        with client.stream({"file": str(file)}, "/tell") as items:
            next(items)
        appears(server, file, ".closed")
        assert connections(client) == 0

    def test_a_task_that_stops_early_stops_the_server(self, server: Served, tmp_path: Path) -> None:
        async def use() -> None:
            async with AsyncClient(server.url) as client, client.stream({"file": str(tmp_path / "one")}, "/tell") as items:
                async for item in items:
                    assert "pid" in item
                    break
            async with AsyncClient(server.url) as client:
                got = asyncio.Event()
                task = asyncio.create_task(read(client, got))
                await got.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        async def read(client: AsyncClient, got: asyncio.Event) -> None:
            async for item in client.stream({"file": str(tmp_path / "two")}, "/tell"):
                if item == {"n": 1}:
                    got.set()

        asyncio.run(use())
        for name in ("one", "two"):
            appears(server, tmp_path / name, ".closed")


class TestTime:
    def test_a_deadline_ends_the_work_too(self, server: Served, client: Client, tmp_path: Path) -> None:
        with pytest.raises(LateError) as raised:
            client.predict({"file": str(tmp_path / "never")}, timeout=0.2)
        assert (raised.value.status, raised.value.code) == (504, "deadline.exceeded")
        appears(server, tmp_path / "never", ".cancelled")
        (tmp_path / "never").touch()

    @pytest.mark.parametrize("returns", [False, True])
    def test_a_deadline_ends_a_stream_too(self, server: Served, client: Client, tmp_path: Path, returns: bool) -> None:
        seen = list[Any]()
        with pytest.raises(LateError) as raised:  # also if its generator returns then: that is not its end
            seen.extend(iter(client.stream({"file": str(tmp_path / "never"), "returns": returns}, "/tell", timeout=0.3)))
        assert (raised.value.status, raised.value.code, seen[1:]) == (200, "deadline.exceeded", [{"n": 0}, {"n": 1}])
        appears(server, tmp_path / "never", ".closed")

    def test_a_task_that_is_cancelled_ends_the_work_too(self, server: Served, tmp_path: Path) -> None:
        file = tmp_path / "never"

        async def use() -> None:
            async with AsyncClient(server.url) as client:
                task = asyncio.create_task(client.predict({"file": str(file)}))
                await asyncio.to_thread(appears, server, file, ".begun")
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(use())
        appears(server, file, ".cancelled")
        file.touch()

    def test_a_full_queue_is_asked_again_when_it_says(self, server: Served, client: Client, tmp_path: Path) -> None:
        # Of an API that has answered nothing yet: nobody knows how fast it is, so that nothing is handed to its worker beforehand.
        files = [tmp_path / "running", tmp_path / "waiting"]
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(client.predict, {"file": str(files[0])}, "/fresh")
            appears(server, files[0], ".begun")
            waiting = pool.submit(client.predict, {"file": str(files[1])}, "/fresh")
            server.script.wait_for(lambda: waiting_for_fresh(server) == 1, "one that waits")
            with Client(server.url, retries=0) as impatient, pytest.raises(BusyError) as raised:
                impatient.predict({"file": str(files[1])}, "/fresh")
            assert (raised.value.status, raised.value.code) == (429, "queue.full")
            assert raised.value.retry_after is not None

            def go() -> None:
                for file in files:
                    file.touch()
                running.result()
                waiting.result()

            with Client(server.url) as patient:
                patient._clock = clock = Waking(go)
                assert patient.predict({"file": str(files[1])}, "/fresh") == running.result()
            assert len(clock.slept) == 1
            assert clock.slept[0] >= raised.value.retry_after

    def test_a_front_end_that_dies_with_a_request(self, server: Served, tmp_path: Path) -> None:
        for idempotent in (False, True):
            file = tmp_path / f"{idempotent}"
            with Client(server.url, idempotent=idempotent) as client, ThreadPoolExecutor(1) as pool:
                asked = pool.submit(client.predict, {"file": str(file)})
                appears(server, file, ".begun")
                for pid in fronts(server):
                    os.kill(pid, signal.SIGKILL)
                if idempotent:
                    appears(server, file, ".cancelled")
                    file.touch()
                    assert asked.result().isdecimal()
                else:
                    with pytest.raises(NoAnswerError, match="may have been computed"):
                        asked.result()
                    file.touch()


class TestClientFile:
    """`client.py`, as `run` writes it, runs against the server that wrote it."""

    def test_with_tls_a_key_and_a_typed_stream(self, tmp_path: Path) -> None:
        certificate, environ = self_signed(tmp_path)
        environ |= {"LEYDEN_SERVE_API_KEY": "secret, other"}
        with served("Spells(api_path='/spell')", imports=IMPORTS, run="generate_client_file=True", env=environ) as server:
            assert server.url.startswith("https://127.0.0.1:")
            assert (
                ran(server, {"SSL_CERT_FILE": str(certificate), "LEYDEN_SERVE_API_KEY": "secret, other"}).replace("\n", "") == "text1.0text"
            )
            with Client(server.url, "secret", verify=certificate) as client:
                point = {"x": 1, "name": "a", "tags": []}
                assert client.predict(point, "/spell") == "a1.0"
                assert client.health()
            for verify, key, error in ((True, "secret", NoAnswerError), (False, "wrong", RejectedError), (False, None, RejectedError)):
                with Client(server.url, key, verify=verify) as client, pytest.raises(error) as raised:
                    client.predict(point, "/spell")
                assert "certificate.pem" in str(raised.value) or raised.value.code.startswith("auth.")
            context = ssl.create_default_context(cafile=certificate)
            with Client(server.url, "other", verify=context) as client:
                assert "".join(client.stream(point, "/spell")) == "a1.0"

    def test_with_a_unix_socket_and_a_protocol(self, tmp_path: Path) -> None:
        run = f"generate_client_file=True, host='unix:{tmp_path}/s'"
        with served("Spelling(spec=OpenAISpec())", run=run) as server:
            assert server.url == f"unix:{tmp_path}/s"
            assert "'content': 'Hello'" in ran(server, {})
            with Client(server.url) as client:
                chat = {"model": "m", "messages": [{"role": "user", "content": "ab!"}]}
                chunks = client.stream({**chat, "stream": True}, "/v1/chat/completions")
                assert "".join(next(chunks)["choices"][0]["delta"].get("content", "") for _ in range(2)) == "ab"
                with pytest.raises(BrokenStreamError, match="too loud"):
                    list(chunks)
            written = server.script.folder / "client.py"
            assert json.dumps(server.url) in written.read_text()


def ran(server: Served, environ: dict[str, str]) -> str:
    """Return what the client that a server has written prints."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    finished = subprocess.run(
        [sys.executable, "client.py"], cwd=server.script.folder, env={**os.environ, **environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


class Waking:
    """A clock on which nobody sleeps; something may happen instead."""

    def __init__(self, instead: Any = lambda: None) -> None:
        self.slept = list[float]()
        self._instead = instead

    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._instead()


def connections(client: Client) -> int:
    """Return how many connections a client holds."""
    transport: Any = client._http._transport
    return len(transport._pool.connections)


def waiting_for_fresh(server: Served) -> int:
    line = next(line for line in server.get("/metrics").text.splitlines() if line.startswith('leyden_serve_queue_depth{api="/fresh"}'))
    return int(line.rpartition(" ")[2])


def fronts(server: Served) -> list[int]:
    return [pid for pid in server.children() if b"script.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
