"""What becomes of requests when something goes wrong: real kills, signals, clients that leave, too many requests, bad bodies.

Counts, not times, decide most of it. `Slow` of `serve_peers` sleeps for each request and notes in a ledger what it has computed.

- killed: one of two workers gets SIGKILL under load;
- left: ten clients send a request of half a second and leave before the first one is done;
- overload: ten times as many requests as one worker can do; Leyden lets 50 wait, LitServe has no such limit;
- ended: SIGTERM while twenty requests are there;
- bad: what clients send wrongly, none of which may be answered with a 5xx.
"""

import contextlib
import http.client
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.load import Sent, at_once, open_loop, quantile
from benchmarks.servers import NUMBER, Ended, Server, serving

JSON = "application/json"
QUEUE, TIMEOUT = 50, 2  # requests that may wait; seconds that they may
BAD = {  # name -> body, content type
    "no JSON": (b'{"input": ', JSON),
    "empty": (b"", JSON),
    "no UTF-8": (b'{"input": "\xff\xfe"}', JSON),
    "nested too deeply": (b"[" * 100_000, JSON),
    "another key": (b'{"x": 4.0}', JSON),
    "a list": (b"[4.0]", JSON),
    "a number": (b"4.0", JSON),
    "null": (b"null", JSON),
    "JSON as a form": (NUMBER, "application/x-www-form-urlencoded"),
    "a form without an edge": (b"--x\r\n", "multipart/form-data"),
    "a type that nobody reads": (b"<input>4</input>", "application/xml"),
}


@contextlib.contextmanager
def slow(library: str, sleep: float, **options: object) -> Iterator[tuple[Server, Path]]:
    """Run a server whose model sleeps; give the server and its ledger."""
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
        ledger = Path(folder) / "ledger"
        with serving(library, "slow", sleep=sleep, ledger=str(ledger), **options) as server:
            yield server, ledger


def killed(library: str, seconds: float) -> dict[str, float]:
    """Kill one of two workers under load."""
    with slow(library, 0.01, workers=2) as (server, ledger):
        open_loop(server, 120, 1.0)
        worker = int(ledger.read_text(encoding="utf-8").splitlines()[-1].split()[0])
        moment = list[float]()

        def kill() -> None:
            moment.append(time.perf_counter())
            os.kill(worker, signal.SIGKILL)

        timer = threading.Timer(seconds / 2, kill)
        timer.start()
        all_sent = open_loop(server, 120, seconds, patience=5.0)
        timer.join()
        lost = [sent for sent in all_sent if sent.status not in {0, 200}]
        return {
            "hung": sum(sent.status == 0 for sent in all_sent),
            "lost": len(lost),
            "unsaid": sum(sent.status != 503 for sent in lost),
            "told_after_ms": max([(sent.ended - moment[0]) * 1000 for sent in lost if sent.status == 503], default=0.0),
        }


def left(library: str, seconds: float) -> dict[str, float]:
    """Let ten clients leave."""
    del seconds
    with slow(library, 0.5) as (server, ledger):
        ledger.write_text("", encoding="utf-8")
        head = f"POST {server.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {len(NUMBER)}\r\n\r\n".encode()
        with contextlib.ExitStack() as clients:
            for _ in range(10):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                client.sendall(head + NUMBER)
            time.sleep(0.25)  # all are read, none is done
        began = time.perf_counter()
        if server.ask(b'{"input": 99}')[0] != 200:
            raise RuntimeError(f"{library} does not answer after clients have left")
        lines = ledger.read_text(encoding="utf-8").splitlines()
        return {"abandoned": len(lines) - 1, "next_seconds": time.perf_counter() - began}


def overload(library: str, seconds: float) -> dict[str, float]:
    """Send ten times as much as can be done."""
    options = f'{{"timeout": {TIMEOUT}, "max_queue_size": {QUEUE}}}' if library == "leyden" else f'{{"timeout": {TIMEOUT}}}'
    with slow(library, 0.01, server=options) as (server, _):
        open_loop(server, 50, 1.0)
        all_sent = open_loop(server, 1000, seconds)
        accepted = [sent.seconds for sent in all_sent if sent.status == 200]
        refused = [sent.seconds for sent in all_sent if sent.status == 429]
        return {
            "accepted_p99_to_bound": quantile(accepted, 0.99) / (QUEUE * 0.01),
            "refused_p50_ms": quantile(refused or [0.0], 0.5) * 1000,
            "refused_p99_ms": quantile(refused or [0.0], 0.99) * 1000,
            "answered_share": len(accepted) * 0.01 / seconds,
            "unanswered": sum(sent.status not in {200, 429} for sent in all_sent),
        }


def ended(library: str, seconds: float) -> dict[str, float]:
    """Send SIGTERM while twenty requests are there."""
    del seconds
    with slow(library, 0.05) as (server, _):
        how = list[Ended]()
        timer = threading.Timer(0.3, lambda: how.append(server.stop()))
        timer.start()
        all_sent: list[Sent] = at_once(server, 20)
        timer.join()
        with socket.socket() as sock:
            is_free = sock.connect_ex(("127.0.0.1", server.port)) != 0
        return {
            "dropped": sum(sent.status != 200 for sent in all_sent),
            "status": abs(how[0].status if how[0].status is not None else 99),
            "left": how[0].left,
            "port_in_use": not is_free,
        }


def bad(library: str, seconds: float) -> dict[str, float]:
    """Send what is wrong, and count how often the server takes the blame."""
    del seconds
    with serving(library, "echo") as server:
        blamed = 0
        for body, kind in BAD.values():
            try:
                blamed += server.ask(body, kind)[0] >= 500
            except (OSError, http.client.HTTPException):
                blamed += 1
        return {"blamed": blamed, "unwell": server.ask(NUMBER)[0] != 200}


FAULTS = {"killed": killed, "left": left, "overload": overload, "ended": ended, "bad": bad}
LIMITS = {
    "killed": {"hung": 0.0, "lost": 1.0, "unsaid": 0.0, "told_after_ms": 100.0},
    "left": {"abandoned": 1.0, "next_seconds": None},
    "overload": {"accepted_p99_to_bound": 2.0, "refused_p50_ms": 5.0, "refused_p99_ms": None, "answered_share": None, "unanswered": 0.0},
    "ended": {"dropped": 0.0, "status": 0.0, "left": 0.0, "port_in_use": 0.0},
    "bad": {"blamed": 0.0, "unwell": 0.0},
}

BENCHMARK = Benchmark(
    claim="kills, signals, clients that leave, overload and bad bodies cost no request but those that a killed worker computed",
    variants={
        **{f"leyden, {name}": Variant(run=partial(run, "leyden"), cores=None) for name, run in FAULTS.items()},
        **{f"litserve, {name}": Variant(run=partial(run, "litserve"), peer="litserve", cores=None) for name, run in FAULTS.items()},
        "mosec, left": Variant(run=partial(left, "mosec"), peer="mosec", cores=None),
    },
    comparisons=[
        *(Comparison(of=f"leyden, {name}", metric=metric, limit=limit) for name in FAULTS for metric, limit in LIMITS[name].items()),
        *(Comparison(of=f"litserve, {name}", metric=metric) for name in FAULTS for metric in LIMITS[name]),
        Comparison(of="mosec, left", metric="abandoned"),
    ],
    seconds=5.0,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.serve_faults"))
