"""`SlowStore`: a proxy in front of an object store that is slow, fails and counts, as a test wants it.

It runs an asyncio loop in a thread. Each connection handles one request after another: wait `delay`, ask the store
behind, then send the answer at `bandwidth` bytes a second. Faults are taken from a list, one per matching request; `lost`
lets the store do what is asked, and loses its answer.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tests.support.s3_server import S3Server

Fault = Literal["503", "429", "403", "truncate", "reset", "hang", "flip", "lost"]
_PIECE = 256 * 1024


@dataclass
class Request:
    """One request that was answered."""

    method: str
    path: str
    range: tuple[int, int] | None
    sent: int = 0
    started: float = 0.0
    fault: str | None = None


@dataclass
class SlowStore:
    """What the proxy does, and what it saw.

    Args:
        target: The store behind.
        delay: Seconds before each answer.
        bandwidth: Bytes a second of each connection; 0 is unlimited.
    """

    target: str
    delay: float = 0.0
    bandwidth: float = 0.0
    endpoint: str = ""
    faults: list[tuple[Callable[[Request], bool], Fault]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0
    keep: bool = False
    _now: int = 0
    _kept: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)

    @property
    def server(self) -> S3Server:
        return S3Server(self.endpoint)

    def fail(self, fault: Fault, times: int = 1, where: Callable[[Request], bool] = lambda _: True) -> None:
        """Let the next requests of this kind fail."""
        self.faults.extend([(where, fault)] * times)

    def reset_counts(self) -> None:
        self.requests.clear()
        self.most_at_once = 0

    def gets(self, part: str = "") -> list[Request]:
        """Return the GET requests whose path holds `part`."""
        return [request for request in self.requests if request.method == "GET" and part in request.path]

    def bytes_sent(self, part: str = "") -> int:
        return sum(request.sent for request in self.gets(part))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self.answer(await reader.readuntil(b"\r\n\r\n"), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int(header(head, b"content-length") or 0)
        body = await reader.readexactly(length) if length else b""
        request = parsed(head)
        self.requests.append(request)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self.delay)
            fault = self.next_fault(request)
            if fault in {"503", "429", "403"}:
                await refuse(writer, fault)
            elif fault == "hang":
                await asyncio.sleep(3600)
            elif fault == "reset":
                writer.transport.abort()
                raise ConnectionResetError
            elif fault == "lost":
                await self.ask(head, body)
                writer.transport.abort()
                raise ConnectionResetError
            else:
                await self.forward(head, body, request, writer)
        finally:
            self._now -= 1

    def next_fault(self, request: Request) -> Fault | None:
        for place, (matches, fault) in enumerate(self.faults):
            if matches(request):
                del self.faults[place]
                request.fault = fault
                return fault
        return None

    async def forward(self, head: bytes, body: bytes, request: Request, writer: asyncio.StreamWriter) -> None:
        key = (head.split(b"\r\n", 1)[0], header(head, b"range"))
        answer = self._kept.get(key) or await self.ask(head, body)
        if self.keep and request.method == "GET":
            self._kept[key] = answer
        top, _, content = answer.partition(b"\r\n\r\n")
        if request.fault == "truncate":
            content = content[: len(content) // 2]
        if request.fault == "flip":
            content = content[:-1] + bytes([content[-1] ^ 1])
        writer.write(top + b"\r\n\r\n")
        began, sent = time.monotonic(), 0
        for start in range(0, len(content), _PIECE):
            piece = content[start : start + _PIECE]
            sent += len(piece)
            request.sent = sent  # before the client can have it: whoever waits for the answer reads the count at once
            writer.write(piece)
            await writer.drain()
            if self.bandwidth:
                await asyncio.sleep(max(0.0, began + sent / self.bandwidth - time.monotonic()))
        if request.fault == "truncate":
            raise ConnectionResetError

    async def ask(self, head: bytes, body: bytes) -> bytes:
        """Return the whole answer of the store behind, asked on a connection that it closes."""
        where = urlsplit(self.target)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        lines = [line for line in head.rstrip().split(b"\r\n") if not line.lower().startswith(b"connection:")]
        try:
            writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
            await writer.drain()
            answer = await reader.read(-1)
        finally:
            writer.close()
        top, _, content = answer.partition(b"\r\n\r\n")
        kept = [line for line in top.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join(kept) + b"\r\n\r\n" + content


def header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


def parsed(head: bytes) -> Request:
    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    asked = header(head, b"range").decode().removeprefix("bytes=").split("-")
    span = (int(asked[0]), int(asked[1]) + 1) if len(asked) == 2 and all(asked) else None
    return Request(method, path, span, started=time.monotonic())


async def refuse(writer: asyncio.StreamWriter, status: str) -> None:
    body = b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>"
    writer.write(f"HTTP/1.1 {status} Error\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


@contextlib.contextmanager
def slow_store(target: str, *, delay: float = 0.0, bandwidth: float = 0.0) -> Iterator[SlowStore]:
    """Run a proxy for the length of the block."""
    store, ready, control = SlowStore(target, delay, bandwidth), threading.Event(), {}

    async def main() -> None:
        stop = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(store.serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**20)
        store.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        control.update(loop=asyncio.get_running_loop(), stop=stop)
        ready.set()
        await stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run() -> None:
        asyncio.run(main())

    thread = threading.Thread(target=run, name="slow-store", daemon=True)
    thread.start()
    if not ready.wait(30):
        raise RuntimeError("the slow store does not start")
    try:
        yield store
    finally:
        control["loop"].call_soon_threadsafe(control["stop"].set)
        thread.join(30)
