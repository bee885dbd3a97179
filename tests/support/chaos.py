"""Clients that do anything to a server, good and bad, by a seed; and what must be true of it afterwards."""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.fronts import Client, Response
from tests.support.served import Served

FOLDER = "folder"
APIS = f"""[
    Doomed({FOLDER}),
    Doomed({FOLDER}, api_path="/again", idempotent=True),
    Together(api_path="/together", max_batch_size=4, batch_timeout=0.005),
    Flood({FOLDER}, api_path="/flood", stream=True, max_stream_buffer_bytes=1 << 16),
    AsyncFlood({FOLDER}, api_path="/floods", stream=True, enable_async=True, max_stream_buffer_bytes=1 << 16),
    Raw(api_path="/raw"),
    Spelling(spec=OpenAISpec()),
]"""
IMPORTS = "from tests.support.bad_input_apis import Raw, Together; from tests.support.noted_apis import AsyncFlood, Flood"
OPTIONS = (
    "workers_per_device={'/predict': 2}, kill_after=0.5, timeout=40, max_payload_size='300KB', max_inflight_bytes='20MB', "
    "body_timeout=0.5, header_timeout=0.5, keep_alive=2, max_queue_size=30"
)
CHAT = "/v1/chat/completions"
BUSY = {429, 503, 504}  # what anybody may be told while workers are killed, or too many come
# Lines of a log that no client and no death of a process may cause.
NEVER = re.compile(
    r"never retrieved|Exception in|never awaited|unraisable|^ERROR|(?:ERROR|CRITICAL) (?!leyden.serve.supervisor: (?:worker|front end|/))"
)


class Chaos:
    """One client that never tires.

    Args:
        port: Of the server.
        seed: Of what it does.
        may_reset: Returns whether a front end was killed lately, which nobody can be told; `None` if nobody kills.
    """

    def __init__(self, port: int, seed: int, may_reset: Callable[[], bool] | None) -> None:
        self._port, self._chance, self._may_reset, self._kills = port, random.Random(seed), may_reset or bool, may_reset is not None
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._kept: Client | None = None

    def run(self, until: float) -> None:
        names = [name for name in dir(self) if name.startswith("do_") and (name != "do_die" or self._kills)]
        actions = [getattr(self, name) for name in names]
        weights = [2 if action.__name__.startswith(("do_good", "do_leave")) else 1 for action in actions]
        while time.monotonic() < until and not self.wrong:
            action = self._chance.choices(actions, weights)[0]
            try:
                action()
            except (ConnectionError, http.client.HTTPException) as error:
                if not self._may_reset():
                    self.wrong.append(f"{action.__name__}: {error!r}")
            except Exception as error:  # noqa: BLE001 - told by the test
                self.wrong.append(f"{action.__name__}: {error!r}")
            self.done[action.__name__] += 1
        if self._kept is not None:
            self._kept.close()

    def _client(self) -> Client:
        return Client(self._port, timeout=60.0)  # a worker that is started anew takes long on a busy machine

    def _posted(self, body: Any, path: str, **headers: str) -> Response:
        """Post on a connection that is kept, or on a new one."""
        if self._chance.random() < 0.5:
            with self._client() as client:
                return client.post(body, path, **headers)
        kept, self._kept = self._kept or self._client(), None
        try:
            found = kept.post(body, path, **headers)
        except (ConnectionError, http.client.HTTPException):  # it was idle for too long
            kept.close()
            with self._client() as client:
                return client.post(body, path, **headers)
        if found.headers.get("connection") == "close":
            kept.close()
        else:
            self._kept = kept
        return found

    def _expect(self, found: Response, *statuses: int) -> bool:
        """Return whether an answer is what it should be; it may be that nobody has time."""
        if found.status in statuses:
            return found.is_whole or self._is_cut(found)
        assert found.status in BUSY, (found.status, found.body[:300], statuses)
        assert "code" in found.json, found.body[:300]
        return False

    def _is_cut(self, found: Response) -> bool:
        """Return that an answer is not all there, as is right where its worker or its front end was killed."""
        assert self._may_reset() or b'"error"' in found.body or "octet-stream" in found.headers.get("content-type", ""), found.body[-300:]
        return False

    # -- good ------------------------------------------------------------------------------------------------------

    def do_good_json(self) -> None:
        number = self._chance.randrange(1000)
        path = self._chance.choice(["/predict", "/again"])
        found = self._posted({"input": number, "pad": "x" * self._chance.choice([0, 0, 0, 5000, 200_000])}, path)
        if self._expect(found, 200):
            assert found.json == {"output": number**2}

    def do_good_batch(self) -> None:
        found = self._posted({"input": 16}, "/together")
        if self._expect(found, 200):
            assert found.json == {"root": 4.0}

    def do_good_bytes(self) -> None:
        body = self._chance.randbytes(self._chance.choice([0, 10, 70_000]))
        found = self._posted(body, "/raw", content_type="application/x-any")
        if self._expect(found, 200):
            assert found.json == {"bytes": len(body)}

    def do_good_stream(self) -> None:
        count = self._chance.choice([0, 1, 20])
        found = self._posted({"name": "good", "count": count}, self._chance.choice(["/flood", "/floods"]))
        if self._expect(found, 200):
            assert found.body == b"x" * 16384 * count

    def do_good_chat(self) -> None:
        text = "word " * self._chance.choice([1, 30])
        streams = self._chance.random() < 0.5
        found = self._posted({"messages": [{"role": "user", "content": text}], "stream": streams}, CHAT)
        if self._expect(found, 200) and not streams:
            assert found.json["choices"][0]["message"]["content"] == text

    def do_good_pages(self) -> None:
        with self._client() as client:
            for path in ("/health/live", "/metrics", "/info", "/docs"):
                client.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                self._expect(client.response(), 200)

    def do_good_pipeline(self) -> None:
        with self._client() as client:
            client.send(b"POST /raw HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok" * 4)
            for _ in range(4):
                self._expect(client.response(), 200)

    # -- bad -------------------------------------------------------------------------------------------------------

    def do_no_json(self) -> None:
        for path in ("/predict", "/together", CHAT):
            self._expect(self._posted(self._chance.choice([b"{", b"", b"\xff", b"[" * 5000]), path), 400)

    def do_another_shape(self) -> None:
        self._expect(self._posted(self._chance.choice([{"x": 1}, [], {"input": "x"}, {"input": None}]), "/together"), 422)
        self._expect(self._posted(self._chance.choice([{}, {"messages": 3}]), CHAT), 422)

    def do_nowhere(self) -> None:
        self._expect(self._posted(b"x" * self._chance.choice([0, 100_000]), "/nowhere"), 404)

    def do_too_large(self) -> None:
        path = self._chance.choice(["/predict", "/raw", CHAT])
        with self._client() as client:
            if self._chance.random() < 0.5:
                client.ask(b"x" * 350_000, path)
            else:
                client.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
                client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                with contextlib.suppress(ConnectionError):
                    client.send((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 5)
            self._expect(client.response(), 413)

    def do_no_http(self) -> None:
        with self._client() as client:
            client.send(self._chance.randbytes(self._chance.randrange(1, 200)) + b"\r\n\r\n")
            with contextlib.suppress(ConnectionError, http.client.HTTPException, TimeoutError):
                self._expect(client.response(), 400, 408, 505)

    def do_a_long_head(self) -> None:
        with self._client() as client:
            client.send(b"POST /predict HTTP/1.1\r\nx: " + b"y" * 90_000)
            self._expect(client.response(), 431, 408)  # the latter if the machine has no time to read it

    def do_a_slow_request(self) -> None:
        path = self._chance.choice(["/predict", CHAT, "/flood"])
        with self._client() as client:
            client.send(
                self._chance.choice([f"POST {path} HT", f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhal"]).encode()
            )
            self._expect(client.response(), 408)

    def do_leave(self) -> None:
        """Leave at any moment of a request."""
        path = self._chance.choice(["/predict", "/together", "/flood", "/floods", "/raw", CHAT])
        body = json.dumps({"name": "left", "input": 3, "messages": [{"role": "user", "content": "x" * 2000}], "stream": True}).encode()
        data = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        with self._client() as client:
            client.send(data[: self._chance.choice([1, 20, len(data) - 5, len(data), len(data), len(data)])])
            if self._chance.random() < 0.5:
                client.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    client.socket.recv(1000)

    def do_not_read(self) -> None:
        """Read the beginning of a stream that never ends, then nothing until the server gives up."""
        with self._client() as client:
            client.ask(b'{"name": "slow"}', self._chance.choice(["/flood", "/floods"]))
            found = client.begin()
            if found.status == 200:
                found.read1(1000)
                threading.Event().wait(self._chance.choice([0.0, 0.1, 0.7]))

    def do_a_short_deadline(self) -> None:
        self._expect(self._posted({"input": 3}, "/predict", x_request_timeout="0.001"), 200, 504)

    def do_die(self) -> None:
        moment = self._chance.choice(["decode", "predict", "frame", "leave"])
        found = self._posted({"input": 1, "die": moment}, "/predict")
        assert found.status in BUSY, (found.status, found.body)


class Reaper:
    """Kills workers, and now and then a front end.

    Args:
        server: Whose.
        seed: Of whom, and when.
    """

    def __init__(self, server: Served, seed: int) -> None:
        self._server, self._chance = server, random.Random(seed)
        self.front_killed = -1e9
        self.killed: Counter[str] = Counter()

    def run(self, until: float) -> None:
        pause = threading.Event()
        while time.monotonic() < until:
            pause.wait(self._chance.uniform(0.5, 1.5))  # a worker takes half a second to start
            victim = self._chance.choice(kinds_of(self._server)["worker"] or [0])
            if self._chance.random() < 0.1:
                victim = self._chance.choice(kinds_of(self._server)["front"] or [0])
                self.front_killed = time.monotonic()
                self.killed["front"] += 1
            with contextlib.suppress(ProcessLookupError):
                if victim:
                    os.kill(victim, signal.SIGKILL)
                    self.killed["all"] += 1
            if self.front_killed > time.monotonic() - 1:
                self.front_killed = time.monotonic()

    def kill_fronts(self) -> None:
        """Kill all front ends."""
        self.front_killed = time.monotonic()
        for pid in kinds_of(self._server)["front"]:
            os.kill(pid, signal.SIGKILL)

    def may_reset(self) -> bool:
        """Whether a front end was killed so lately that its clients cannot know better."""
        return time.monotonic() - self.front_killed < 15.0


def kinds_of(server: Served) -> dict[str, list[int]]:
    """Return the processes of a server: workers are started anew, front ends are forked."""
    found: dict[str, list[int]] = {"worker": [], "front": [], "supervisor": [server.script.process.pid], "other": []}
    for pid in server.children():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            found["worker" if b"spawn_main" in command else "front" if b"script.py" in command else "other"].append(pid)
    return found


def descriptors(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names alone
    return 0


def memory(pid: int) -> int:
    """Return what a process holds for itself alone, in MiB."""
    with contextlib.suppress(OSError):
        numbers = dict(re.findall(r"(\w+): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text()))
        return (int(numbers["Private_Clean"]) + int(numbers["Private_Dirty"])) // 1024
    return 0


def unleash(port: int, seeds: Sequence[int], reaper: Reaper | None, seconds: float) -> list[Chaos]:
    """Let clients, and perhaps a reaper, do what they want for a while."""
    until = time.monotonic() + seconds
    clients = [Chaos(port, seed, reaper.may_reset if reaper else None) for seed in seeds]
    threads = [threading.Thread(target=each.run, args=(until,)) for each in [*clients, *([reaper] if reaper else [])]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    assert not any(thread.is_alive() for thread in threads), "somebody waits for an answer that does not come"
    return clients
