"""What a server costs before it is asked anything, and what more workers bring.

At rest: the time from `python server.py` to the first answer with 200, the memory of all processes (what they share counted
once), and the CPU time that they take while nothing comes, with batches switched on; with a model that needs nothing, and with one
that imports torch, which takes as long in both. With workers that sleep 20 ms for each request, four answer four times as many as
one if nothing else holds them up.
"""

import sys
import time
from functools import partial

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.load import cost
from benchmarks.servers import NUMBER, serving, vector_body

SLEEP = 0.02


def rest(library: str, case: str, seconds: float, **options: object) -> dict[str, float]:
    """Return what a server takes while nothing comes: a fraction of a core, megabytes, seconds to begin with."""
    body = vector_body() if case == "mlp" else NUMBER
    with serving(library, case, body, **options) as server:
        for _ in range(20):
            server.ask(body)
        before, began = server.cpu_seconds(), time.perf_counter()
        time.sleep(seconds)
        core = (server.cpu_seconds() - before) / (time.perf_counter() - began)
        return {"core": core, "megabytes": server.megabytes(), "seconds_to_200": server.seconds_to_200}


def workers(library: str, number: int, seconds: float) -> dict[str, float]:
    """Return how many requests so many workers answer of what one could: 1.0 is a worker's worth."""
    with serving(library, "slow", sleep=SLEEP, workers=number) as server:
        found = cost(server, seconds, connections=4 * number)
        return {"missing_share": 1.0 - found["per_second"] * SLEEP / number, "cpu_us": found["cpu_us"]}


def variants() -> dict[str, Variant]:
    """Return Leyden and LitServe with each number of workers, and at rest with a small model, batches, and torch."""
    made = dict[str, Variant]()
    for library, peer in (("leyden", None), ("litserve", "litserve")):
        made[f"{library} at rest"] = Variant(run=partial(rest, library, "slow", batch=16, batch_timeout=0.01), peer=peer, cores=None)
        made[f"{library} at rest with torch"] = Variant(run=partial(rest, library, "mlp", batch_timeout=0.01), peer=peer, cores=None)
        for number in (1, 4):
            made[f"{library}, {number} workers"] = Variant(run=partial(workers, library, number), peer=peer, cores=None)
    return made


BENCHMARK = Benchmark(
    claim="a server at rest takes less than 0.5 % of a core, no more memory than LitServe, and half its time until it answers",
    variants=variants(),
    comparisons=[
        *(
            comparison
            for how in ("at rest", "at rest with torch")
            for comparison in (
                Comparison(of=f"leyden {how}", metric="core", limit=0.005),
                Comparison(of=f"leyden {how}", to=f"litserve {how}", metric="megabytes", limit=1.0),
                Comparison(of=f"leyden {how}", to=f"litserve {how}", metric="seconds_to_200", limit=None if "torch" in how else 0.5),
                Comparison(of=f"litserve {how}", metric="core"),
            )
        ),
        *(Comparison(of=f"leyden, {number} workers", metric="missing_share", limit=0.1) for number in (1, 4)),
        *(Comparison(of=f"litserve, {number} workers", metric="missing_share") for number in (1, 4)),
        Comparison(of="leyden, 4 workers", to="litserve, 4 workers", metric="cpu_us"),
    ],
    seconds=5.0,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.serve_scaling"))
