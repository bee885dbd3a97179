"""Asking at every step whether to stop costs at most a microsecond, also where two ranks must stop at the same step.

What loops do otherwise is shown beside it: an `all_reduce` or a `broadcast` of a flag in each step. The time is CPU time of
the process, so what the agreement's thread does in the background counts too.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.ranks import on_ranks, slowest

CALLS = 500_000
COLLECTIVE_CALLS = 2_000


def microseconds(ask: Callable[[], Any], calls: int) -> dict[str, float]:
    """Return the CPU time of one call, that of the loop around it included."""
    for _ in range(min(calls, 1000)):
        ask()
    start = time.process_time()
    for _ in range(calls):
        ask()
    return {"microseconds": (time.process_time() - start) / calls * 1e6}


def leyden(calls: int = CALLS) -> dict[str, float]:
    """Measure `fabric.stop_requested()` in one process."""
    from leyden.fabric import Fabric

    return microseconds(Fabric(accelerator="cpu", devices=1).stop_requested, calls)


def leyden_rank(calls: int) -> dict[str, float]:
    """Measure `fabric.stop_requested()` on a rank of several."""
    from leyden.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    result = microseconds(fabric.stop_requested, calls)
    fabric.barrier()
    return result


def torch_rank(calls: int) -> dict[str, float]:
    """Measure what a plain loop would do: reduce a flag over the ranks."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    flag = torch.zeros(1)
    result = microseconds(lambda: (dist.all_reduce(flag), flag.item()), calls)
    dist.destroy_process_group()
    return result


def lightning_rank(calls: int) -> dict[str, float]:
    """Measure a broadcast of a flag through Lightning's Fabric, which knows no stop of its own."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    return microseconds(lambda: fabric.broadcast(obj=False), calls)


def leyden_ranks(calls: int = CALLS) -> dict[str, float]:
    """Measure `fabric.stop_requested()` on two ranks."""
    return slowest(on_ranks(leyden_rank, calls))


def torch_ranks(calls: int = COLLECTIVE_CALLS) -> dict[str, float]:
    """Measure a reduction of a flag over two ranks."""
    return slowest(on_ranks(torch_rank, calls))


def lightning_ranks(calls: int = COLLECTIVE_CALLS) -> dict[str, float]:
    """Measure a broadcast of a flag on two ranks."""
    return slowest(on_ranks(lightning_rank, calls))


BENCHMARK = Benchmark(
    claim="`fabric.stop_requested()` takes at most a microsecond, on one rank and on two",
    variants={
        "leyden": Variant(run=leyden),
        "leyden on 2 ranks": Variant(run=leyden_ranks, cores=2),
        "all_reduce on 2 ranks": Variant(run=torch_ranks, cores=2),
        "lightning's broadcast on 2 ranks": Variant(run=lightning_ranks, peer="lightning", cores=2),
    },
    comparisons=[
        Comparison(of="leyden", metric="microseconds", limit=1.0),
        Comparison(of="leyden on 2 ranks", metric="microseconds", limit=1.0),
        Comparison(of="all_reduce on 2 ranks", metric="microseconds"),
        Comparison(of="lightning's broadcast on 2 ranks", metric="microseconds"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_stop"))
