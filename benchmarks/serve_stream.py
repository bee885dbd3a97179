"""Streams of 200 small chunks, `{"output": "word 17"}` a line, to 8 connections: what a chunk costs.

Nothing waits between chunks, as with a model that is faster than its server. All write the same bytes; how many chunks travel
together is a server's own choice.
"""

import sys
from functools import partial

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.load import cost
from benchmarks.servers import NUMBER, serving

CONNECTIONS, CHUNKS = 8, 200


def stream(library: str, seconds: float) -> dict[str, float]:
    """Return what a chunk costs."""
    with serving(library, "stream") as server:
        status, answer = server.ask(NUMBER)
        lines = answer.splitlines()
        if status != 200 or len(lines) != CHUNKS or lines[-1].replace(b" ", b"") != b'{"output":"word199"}':
            raise RuntimeError(f"{library} answers {len(lines)} lines, the last one {lines[-1:]!r}")
        return cost(server, seconds, connections=CONNECTIONS, parts=CHUNKS)


BENCHMARK = Benchmark(
    claim="a chunk of a stream comes at 1.5 times FastAPI's rate and at 20 times LitServe's",
    variants={
        "leyden": Variant(run=partial(stream, "leyden"), cores=None),
        "fastapi": Variant(run=partial(stream, "fastapi"), peer="fastapi", cores=None),
        "litserve": Variant(run=partial(stream, "litserve"), peer="litserve", cores=None),
    },
    comparisons=[
        Comparison(of="leyden", to="fastapi", metric="wall_us", limit=1 / 1.5),
        Comparison(of="leyden", to="litserve", metric="wall_us", limit=1 / 20),
        Comparison(of="leyden", to="fastapi", metric="cpu_us"),
        Comparison(of="leyden", to="litserve", metric="cpu_us"),
    ],
    seconds=5.0,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.serve_stream"))
