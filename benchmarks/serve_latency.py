"""How long a client waits when 100 and 400 requests a second come at random times, by a client of our own that never waits itself.

`batched` is a model that computes up to 16 together in 2 ms and does not wait for more to come; what is compared is what a
request takes beyond these 2 ms. At random times some find a batch in the works, and wait for it.
"""

import sys
from functools import partial

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.load import open_loop, quantile
from benchmarks.servers import serving

RATES, PREDICT_SECONDS = (100, 400), 0.002


def latency(library: str, case: str, seconds: float, **options: object) -> dict[str, float]:
    """Return how long half of the clients wait at most, and 99 of 100."""
    with serving(library, case, **options) as server:
        open_loop(server, 200, 1.0)
        found = dict[str, float]()
        for rate in RATES:
            all_sent = open_loop(server, rate, seconds)
            failed = [sent.status for sent in all_sent if sent.status != 200]
            if failed:
                raise RuntimeError(f"{library} answers {failed[:10]}")
            waits = [sent.seconds * 1000 for sent in all_sent]
            found |= {f"p50_ms_{rate}": quantile(waits, 0.5), f"p99_ms_{rate}": quantile(waits, 0.99)}
            if case == "slow":
                found[f"p50_beyond_ms_{rate}"] = found[f"p50_ms_{rate}"] - PREDICT_SECONDS * 1000
        return found


BATCHED: dict[str, float] = {"sleep": PREDICT_SECONDS, "batch": 16}

BENCHMARK = Benchmark(
    claim="at 100 and 400 requests a second, half wait at most 1.2 times as long as with FastAPI, 99 of 100 at most 1.5 times",
    variants={
        "leyden": Variant(run=partial(latency, "leyden", "echo"), cores=None),
        "fastapi": Variant(run=partial(latency, "fastapi", "echo"), peer="fastapi", cores=None),
        "litserve": Variant(run=partial(latency, "litserve", "echo"), peer="litserve", cores=None),
        "leyden, batched": Variant(run=partial(latency, "leyden", "slow", **BATCHED), cores=None),
        "litserve, batched": Variant(run=partial(latency, "litserve", "slow", **BATCHED), peer="litserve", cores=None),
    },
    comparisons=[
        *(Comparison(of="leyden", to="fastapi", metric=f"p50_ms_{rate}", limit=1.2) for rate in RATES),
        *(Comparison(of="leyden", to="fastapi", metric=f"p99_ms_{rate}", limit=1.5) for rate in RATES),
        *(Comparison(of="leyden, batched", metric=f"p50_beyond_ms_{rate}", limit=2.0) for rate in RATES),
        *(Comparison(of="leyden", to="litserve", metric=f"p50_ms_{rate}") for rate in RATES),
        *(Comparison(of="leyden, batched", to="litserve, batched", metric=f"p50_ms_{rate}") for rate in RATES),
        *(Comparison(of="leyden, batched", to="litserve, batched", metric=f"p99_ms_{rate}") for rate in RATES),
    ],
    seconds=10.0,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.serve_latency"))
