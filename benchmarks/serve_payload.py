"""A body of 1 MB from 8 connections, as it is and as a file in a form; the model only looks at its length.

FastAPI has the body where its socket is; with a worker it must go to another process. LitServe takes no body as it is: its way
for files is the form.
"""

import json
import sys
from functools import partial

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.load import cost
from benchmarks.servers import form_body, serving

CONNECTIONS, SIZE = 8, 1 << 20


def payload(library: str, case: str, seconds: float) -> dict[str, float]:
    """Return what a request costs, raw or uploaded."""
    body, kind = form_body(SIZE) if case == "upload" else (b"x" * SIZE, "application/octet-stream")
    with serving(library, case, body, kind) as server:
        status, answer = server.ask(body, kind)
        if (status, json.loads(answer)) != (200, {"output": SIZE}):
            raise RuntimeError(f"{library} answers {answer!r}")
        return cost(server, seconds, connections=CONNECTIONS, body=body, kind=kind)


BENCHMARK = Benchmark(
    claim="a body of 1 MB costs at most 1.25 times FastAPI's CPU time, and 0.3 times LitServe's for a file",
    variants={
        "leyden": Variant(run=partial(payload, "leyden", "raw"), cores=None),
        "leyden, form": Variant(run=partial(payload, "leyden", "upload"), cores=None),
        "fastapi": Variant(run=partial(payload, "fastapi", "raw"), peer="fastapi", cores=None),
        "litserve, form": Variant(run=partial(payload, "litserve", "upload"), peer="litserve", cores=None),
    },
    comparisons=[
        Comparison(of="leyden", to="fastapi", metric="cpu_us", limit=1.25),
        Comparison(of="leyden", to="litserve, form", metric="cpu_us", limit=0.3),
        Comparison(of="leyden, form", to="litserve, form", metric="cpu_us", limit=0.5),
        Comparison(of="leyden", to="fastapi", metric="wall_us"),
        Comparison(of="leyden, form", to="litserve, form", metric="wall_us"),
    ],
    seconds=5.0,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.serve_payload"))
