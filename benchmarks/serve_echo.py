"""A small request, `{"input": 4.0}` → `{"output": 16.0}`, from 32 connections: what serving costs when the model costs nothing.

CPU time is that of all of a server's processes. FastAPI computes in the process that speaks HTTP; the others have a worker for it.
"""

import json
import sys
from functools import partial

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.load import cost
from benchmarks.servers import NUMBER, serving

CONNECTIONS = 32


def echo(library: str, seconds: float, **options: object) -> dict[str, float]:
    """Return what a request costs."""
    with serving(library, "echo", **options) as server:
        status, answer = server.ask(NUMBER)
        if (status, json.loads(answer)) != (200, {"output": 16.0}):
            raise RuntimeError(f"{library} answers {answer!r}")
        return cost(server, seconds, connections=CONNECTIONS)


BENCHMARK = Benchmark(
    claim="a small request costs at most 0.35 of FastAPI's CPU time and a fifteenth of LitServe's, at 3 and 8 times their rates",
    variants={
        "leyden": Variant(run=partial(echo, "leyden"), cores=None),
        "fastapi": Variant(run=partial(echo, "fastapi"), peer="fastapi", cores=None),
        "litserve": Variant(run=partial(echo, "litserve"), peer="litserve", cores=None),
        "litserve, fast queue": Variant(run=partial(echo, "litserve", server='{"fast_queue": true}'), peer="litserve", cores=None),
        "mosec": Variant(run=partial(echo, "mosec"), peer="mosec", cores=None),
    },
    comparisons=[
        Comparison(of="leyden", to="fastapi", metric="cpu_us", limit=0.35),
        Comparison(of="leyden", to="litserve", metric="cpu_us", limit=1 / 15),
        Comparison(of="leyden", to="mosec", metric="cpu_us", limit=0.7),
        Comparison(of="leyden", to="fastapi", metric="wall_us", limit=1 / 3),
        Comparison(of="leyden", to="litserve", metric="wall_us", limit=1 / 8),
        Comparison(of="leyden", to="litserve, fast queue", metric="cpu_us"),
        Comparison(of="leyden", to="litserve, fast queue", metric="wall_us"),
        Comparison(of="leyden", to="mosec", metric="wall_us"),
        Comparison(of="leyden", to="fastapi", metric="p50_ms"),
        Comparison(of="leyden", to="fastapi", metric="p99_ms"),
    ],
    seconds=5.0,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.serve_echo"))
