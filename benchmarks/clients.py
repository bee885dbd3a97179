"""Clients in processes of their own, each of which asks again when it has its answer: requests differ, and streams are seen to come.

`wrk` sends the same body each time and looks at an answer when it is whole; it is also not on every machine. All processes count
between the same two moments of the machine's clock, while all of them are at work.
"""

import asyncio
import dataclasses
import multiprocessing
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.load import quantile
from benchmarks.servers import Server

_END, _PART = b"0\r\n\r\n", b"}"
WARM_UP_SECONDS = 1.0
_START_SECONDS = 60.0  # of the processes, at most


@dataclasses.dataclass(frozen=True)
class Question:
    """A request, and how its answer is known to be whole.

    Args:
        body: JSON.
        parts: How many objects of JSON come back, none of them in another.
    """

    body: bytes
    parts: int = 1


@dataclasses.dataclass
class Seen:
    """What clients saw between two moments.

    Args:
        parts: How many objects came.
        whole: Seconds from each question to the end of its answer, if that came then.
        first: Seconds to the first object of these.
        wrong: The statuses of answers other than 200, 0 for a connection that was lost, and answers with another number of parts.
    """

    parts: int = 0
    whole: list[float] = dataclasses.field(default_factory=list)
    first: list[float] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)


def ask_on(server: Server, seconds: float, questions: Sequence[Question], *, connections: int, processes: int = 1) -> dict[str, float]:
    """Return what clients get that ask as fast as they are answered, and what it costs.

    Args:
        server: Answers.
        seconds: For how long it is measured, after `WARM_UP_SECONDS`.
        questions: What is asked, in an order that is random, but the same in each run.
        connections: How many ask at once.
        processes: How many processes they are.

    Raises:
        RuntimeError: An answer was wrong, or none came.
    """
    shares = [range(number, connections, processes) for number in range(processes)]
    context = multiprocessing.get_context("spawn")
    all_there = context.Barrier(processes + 1)
    with ProcessPoolExecutor(processes, context, initializer=all_there.wait, initargs=(_START_SECONDS,)) as pool:
        for _ in shares:
            pool.submit(int)  # with the first task the processes start
        all_there.wait(_START_SECONDS)
        begin = time.perf_counter() + WARM_UP_SECONDS
        futures = [pool.submit(_clients, server.port, server.path, questions, share, (begin, begin + seconds)) for share in shares]
        _wait_until(begin)
        before = server.cpu_seconds()
        _wait_until(begin + seconds)
        cpu = server.cpu_seconds() - before
        all_seen = [future.result() for future in futures]
    wrong = [each for seen in all_seen for each in seen.wrong]
    whole, first = ([value for seen in all_seen for value in getattr(seen, name)] for name in ("whole", "first"))
    parts = sum(seen.parts for seen in all_seen)
    if wrong or not whole:
        raise RuntimeError(f"{len(whole)} answers came, and {len(wrong)} are wrong: {wrong[:5]}\n{server.output}")
    return {
        "wall_us": seconds * 1e6 / parts,
        "cpu_us": cpu * 1e6 / parts,
        "per_second": parts / seconds,
        "p50_ms": quantile(whole, 0.5) * 1000,
        "p99_ms": quantile(whole, 0.99) * 1000,
        "first_p50_ms": quantile(first, 0.5) * 1000,
        "first_p99_ms": quantile(first, 0.99) * 1000,
    }


def _wait_until(moment: float) -> None:
    if (pause := moment - time.perf_counter()) > 0:
        time.sleep(pause)


def _clients(port: int, path: str, questions: Sequence[Question], numbers: Sequence[int], window: tuple[float, float]) -> Seen:
    """Ask from so many connections until the window is over, and return what was seen in it."""
    seen = Seen()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        made = [_Client(path, questions, number, window, seen) for number in numbers]
        await asyncio.gather(*(loop.create_connection(lambda client=client: client, "127.0.0.1", port) for client in made))
        await asyncio.sleep(window[1] - time.perf_counter())
        for client in made:
            client.leave()
        await asyncio.sleep(0)  # in which the connections are closed

    asyncio.run(run())
    return seen


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, path: str, questions: Sequence[Question], number: int, window: tuple[float, float], seen: Seen) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        self._questions = [(f"{head}{len(each.body)}\r\n\r\n".encode() + each.body, each.parts) for each in questions]
        self._chance, self._seen = random.Random(number), seen
        self._window = window
        self._read, self._length, self._parts = b"", -1, 0
        self._asked = self._first = 0.0
        self._is_over = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._ask()

    def leave(self) -> None:
        """Ask no more."""
        self._is_over = True
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_over:
            self._seen.wrong.append("0")

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._first and _PART in data:  # some send the head of an answer before they have any of it
            self._first = now
        self._read += data
        if self._window[0] <= now < self._window[1]:
            self._seen.parts += data.count(_PART)
        if self._is_whole():
            self._take(now)

    def _ask(self) -> None:
        body, self._parts = self._chance.choice(self._questions)
        self._read, self._length, self._first = b"", -1, 0.0
        self._asked = time.perf_counter()
        self.transport.write(body)

    def _is_whole(self) -> bool:
        if self._length < 0:
            head, found, _ = self._read.partition(b"\r\n\r\n")
            if not found:
                return False
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._length = len(head) + 4 + int(length) if length else 0
        return len(self._read) >= self._length if self._length else self._read.endswith(_END)

    def _take(self, now: float) -> None:
        """Note an answer, and ask again."""
        status = self._read[9:12].decode()
        if status != "200" or self._read.count(_PART) != self._parts:
            self._seen.wrong.append(f"{status}: {self._read.count(_PART)} parts of {self._parts}, {self._read[-200:]!r}")
        elif self._window[0] <= now < self._window[1]:
            self._seen.whole.append(now - self._asked)
            self._seen.first.append(self._first - self._asked)
        self._ask()
