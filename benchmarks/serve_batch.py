"""A network of 64, 512, 512 and 10 units on the CPU, one thread, batches of up to 16, from 64 connections.

Leyden, LitServe and mosec compute batches in a worker; FastAPI computes one request after the other in its event loop.
"""

import json
import sys
from functools import partial

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.load import cost
from benchmarks.servers import serving, vector_body

CONNECTIONS = 64


def batch(library: str, seconds: float, **options: object) -> dict[str, float]:
    """Return what a request costs."""
    body = vector_body()
    with serving(library, "mlp", body, **options) as server:
        status, answer = server.ask(body)
        if status != 200 or len(json.loads(answer)["output"]) != 10:
            raise RuntimeError(f"{library} answers {answer!r}")
        return cost(server, seconds, connections=CONNECTIONS, body=body)


BENCHMARK = Benchmark(
    claim="batches answer 3 times as many requests as FastAPI and 4 times as many as LitServe, at 1.2 times mosec's CPU time at most",
    variants={
        "leyden": Variant(run=partial(batch, "leyden", batch_timeout=0.01), cores=None),
        "leyden, no pause": Variant(run=partial(batch, "leyden"), cores=None),
        "fastapi": Variant(run=partial(batch, "fastapi"), peer="fastapi", cores=None),
        "litserve": Variant(run=partial(batch, "litserve", batch_timeout=0.01), peer="litserve", cores=None),
        "mosec": Variant(run=partial(batch, "mosec"), peer="mosec", cores=None),
    },
    comparisons=[
        Comparison(of="leyden", to="fastapi", metric="wall_us", limit=1 / 3),
        Comparison(of="leyden", to="litserve", metric="wall_us", limit=1 / 4),
        Comparison(of="leyden", to="mosec", metric="cpu_us", limit=1.2),
        Comparison(of="leyden", to="mosec", metric="wall_us"),
        Comparison(of="leyden", to="fastapi", metric="cpu_us"),
        Comparison(of="leyden", to="litserve", metric="cpu_us"),
        Comparison(of="leyden, no pause", to="leyden", metric="wall_us"),
        Comparison(of="leyden, no pause", to="leyden", metric="cpu_us"),
    ],
    seconds=5.0,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.serve_batch"))
