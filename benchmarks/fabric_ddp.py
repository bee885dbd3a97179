"""A DDP step on two gloo ranks costs at most 5 % more than with torch's DDP, and not one collective more.

CPU time is that of both ranks, gloo's threads included, which is what varies most; `thread_seconds`, that of the main threads
alone, and wall times are shown, but do not decide. Calls are counted on each rank.
"""

import sys
import time

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.ranks import on_ranks, slowest
from benchmarks.training import WARM_UP, Backward, batches, calls_of, network, train

STEPS = 2_000


def cost(model: object, optimizer: object, backward: Backward, steps: int) -> dict[str, float]:
    """Return what a pass takes, and calls and collectives per step, these as gloo counts them."""
    import torch.distributed as dist

    data = batches(steps)
    train(model, optimizer, data[:WARM_UP], backward)
    dist.barrier()
    before = _num_collectives()
    wall, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
    train(model, optimizer, data, backward)
    wall, cpu, thread = time.perf_counter() - wall, time.process_time() - cpu, time.thread_time() - thread
    collectives = (_num_collectives() - before) / steps
    calls = calls_of(lambda count: train(model, optimizer, data[:1] * count, backward))
    return {"seconds": cpu, "thread_seconds": thread, "wall_seconds": wall, "collectives": collectives, "calls": calls}


def _num_collectives() -> int:
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_group()._get_sequence_number_for_group()


def raw_rank(steps: int) -> dict[str, float]:
    """Measure torch's DDP."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    model, optimizer = network()
    result = cost(DistributedDataParallel(model), optimizer, torch.Tensor.backward, steps)
    dist.destroy_process_group()
    return result


def leyden_rank(steps: int) -> dict[str, float]:
    """Measure Leyden's `ddp`."""
    from leyden.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    return cost(*fabric.setup(*network()), fabric.backward, steps)


def lightning_rank(steps: int) -> dict[str, float]:
    """Measure Lightning's `ddp`."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    return cost(*fabric.setup(*network()), fabric.backward, steps)


def accelerate_rank(steps: int) -> dict[str, float]:
    """Measure an Accelerator with its DDP."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    return cost(*accelerator.prepare(*network()), accelerator.backward, steps)


def _summed(results: list[dict[str, float]]) -> dict[str, float]:
    return {**slowest(results), **{name: sum(result[name] for result in results) for name in ("seconds", "thread_seconds")}}


def raw(steps: int = STEPS) -> dict[str, float]:
    """Measure torch's DDP on two ranks."""
    return _summed(on_ranks(raw_rank, steps))


def leyden(steps: int = STEPS) -> dict[str, float]:
    """Measure Leyden's `ddp` on two ranks."""
    return _summed(on_ranks(leyden_rank, steps))


def lightning(steps: int = STEPS) -> dict[str, float]:
    """Measure Lightning's `ddp` on two ranks."""
    return _summed(on_ranks(lightning_rank, steps))


def accelerate(steps: int = STEPS) -> dict[str, float]:
    """Measure Accelerate's DDP on two ranks."""
    return _summed(on_ranks(accelerate_rank, steps))


BENCHMARK = Benchmark(
    claim="a step of strategy `ddp` on two ranks takes at most 1.05 times that of torch's DDP, and no further collective",
    variants={
        "raw": Variant(run=raw, cores=2),
        "leyden": Variant(run=leyden, cores=2),
        "lightning": Variant(run=lightning, peer="lightning", cores=2),
        "accelerate": Variant(run=accelerate, peer="accelerate", cores=2),
    },
    comparisons=[
        Comparison(of="leyden", to="raw", limit=1.05),
        Comparison(of="lightning", to="raw"),
        Comparison(of="accelerate", to="raw"),
        Comparison(of="leyden", to="raw", metric="collectives", limit=1.0),
        Comparison(of="leyden", to="raw", metric="thread_seconds"),
        Comparison(of="leyden", to="raw", metric="calls"),
        Comparison(of="leyden", to="raw", metric="wall_seconds"),
        Comparison(of="lightning", to="raw", metric="wall_seconds"),
    ],
    rounds=11,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_ddp"))
