"""Load for servers: `wrk` for as much as they can take, and a client of our own for requests that come when they come.

`wrk` sends the next request of a connection when the last one is answered: it measures what a request costs. `open_loop` sends
requests at given times, whatever became of those before: it measures how long a client waits.
"""

import asyncio
import contextlib
import json
import math
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.servers import NUMBER, Server

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{kind}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout
  io.write(string.format('{{"requests": %d, "us": %d, "bytes": %d, "errors": %d, "p50_us": %d, "p99_us": %d}}\\n',
    summary.requests, summary.duration, summary.bytes, errors, latency:percentile(50), latency:percentile(99)))
end
"""


def wrk(server: Server, seconds: float, *, connections: int, body: bytes = NUMBER, kind: str = "application/json") -> dict[str, float]:
    """Return what `wrk` found: `requests`, `us`, `bytes`, `p50_us`, `p99_us`.

    Raises:
        RuntimeError: A request was not answered with 2xx or 3xx.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
        content, script = Path(folder) / "body", Path(folder) / "post.lua"
        content.write_bytes(body)
        script.write_text(_SCRIPT.format(kind=kind, body=content), encoding="utf-8")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--timeout", "30s", "-s", str(script), server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if found["errors"] or not found["requests"]:
        raise RuntimeError(f"requests failed:\n{done.stdout}\n{server.output[-2000:]}")
    return found


def cost(
    server: Server, seconds: float, *, connections: int, parts: int = 1, body: bytes = NUMBER, kind: str = "application/json"
) -> dict[str, float]:
    """Return what a request costs under full load, or each of its parts.

    Args:
        server: Answers.
        seconds: For how long, after a fourth of that for the caches.
        connections: How many clients ask at once.
        parts: Of each answer.
        body: The request.
        kind: Its content type.
    """
    wrk(server, max(1.0, seconds / 4), connections=connections, body=body, kind=kind)
    before = server.cpu_seconds()
    found = wrk(server, seconds, connections=connections, body=body, kind=kind)
    count = found["requests"] * parts
    return {
        "cpu_us": (server.cpu_seconds() - before) * 1e6 / count,
        "wall_us": found["us"] / count,
        "per_second": count / found["us"] * 1e6,
        "p50_ms": found["p50_us"] / 1000,
        "p99_ms": found["p99_us"] / 1000,
    }


@dataclass(slots=True)
class Sent:
    """A request of an open loop.

    Args:
        began: When it was sent, or the connection for it begun, by `time.perf_counter`.
        status: Of its answer; 0 while there is none, -1 if the connection ended without one.
        seconds: From then to its last byte.
        ended: When that came.
    """

    began: float
    status: int = 0
    seconds: float = math.inf
    ended: float = 0.0


class _Clients:
    """Who sends the requests of an open loop.

    Args:
        server: Answers.
        body: Of each request.
    """

    def __init__(self, server: Server, body: bytes) -> None:
        head = f"POST {server.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.request, self._port = head.encode() + body, server.port
        self.sent = list[Sent]()
        self.idle = list[_Connection]()
        self.open = set[_Connection]()
        self._tasks = set[asyncio.Task[None]]()
        self._num_open, self._is_over, self._ended = 0, False, asyncio.Event()

    def send(self) -> None:
        """Send a request over a connection that is idle, or over a new one."""
        sent = Sent(time.perf_counter())
        self.sent.append(sent)
        self._num_open += 1
        if self.idle:
            self.idle.pop().send(sent)
        else:
            task = asyncio.get_running_loop().create_task(self._connect(sent))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, sent: Sent) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError:
            self.end(sent, -1)
        else:
            connection.send(sent)

    def end(self, sent: Sent, status: int) -> None:
        """Note what became of a request."""
        sent.status, sent.ended = status, time.perf_counter()
        sent.seconds = sent.ended - sent.began
        self._num_open -= 1
        if self._is_over and not self._num_open:
            self._ended.set()

    async def all_ended(self, patience: float) -> None:
        """Wait for what is not answered yet, and close all connections."""
        self._is_over = True
        if self._num_open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), patience)
        for task in self._tasks:
            task.cancel()
        for connection in self.open:
            connection.give_up()
        await asyncio.sleep(0)  # in which they are closed


class _Connection(asyncio.Protocol):
    """One connection; it takes a request whenever the last one is answered."""

    def __init__(self, clients: _Clients) -> None:
        self._clients, self._read = clients, b""
        self._sent: Sent | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._clients.open.add(self)

    def send(self, sent: Sent) -> None:
        """Send a request."""
        self._sent = sent
        self.transport.write(self._clients.request)

    def give_up(self) -> None:
        """End without an answer to what was sent last."""
        self._sent = None
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        if len(body) < int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0):
            return
        self._read = b""
        self._end(int(head[9:12]))
        if b"connection: close" in lower:
            self.transport.close()
        else:
            self._clients.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.open.discard(self)
        if self in self._clients.idle:
            self._clients.idle.remove(self)
        self._end(-1)

    def _end(self, status: int) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            self._clients.end(sent, status)


def open_loop(server: Server, rate: float, seconds: float, *, body: bytes = NUMBER, patience: float = 10.0, seed: int = 7) -> list[Sent]:
    """Send requests at random times, as many clients that do not know of each other do, and return what became of them.

    Args:
        server: Answers.
        rate: Requests per second.
        seconds: For how long.
        body: The request.
        patience: Seconds to wait for answers after that; what has none then keeps the status 0.
        seed: Of the times.
    """

    async def run() -> list[Sent]:
        clients, start = _Clients(server, body), time.perf_counter()
        for at in arrivals(rate, seconds, seed):
            if (pause := start + at - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            clients.send()
        await clients.all_ended(patience)
        return clients.sent

    return asyncio.run(run())


def at_once(server: Server, count: int, *, body: bytes = NUMBER, patience: float = 30.0) -> list[Sent]:
    """Send so many requests together, and return what became of them."""

    async def run() -> list[Sent]:
        clients = _Clients(server, body)
        for _ in range(count):
            clients.send()
        await clients.all_ended(patience)
        return clients.sent

    return asyncio.run(run())


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of a Poisson process."""
    chance, now, found = random.Random(seed), 0.0, list[float]()
    while (now := now + chance.expovariate(rate)) < seconds:
        found.append(now)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
