"""The step with a shuffled `DataLoader`: batches moved, counted and resumable cost at most 8 % more than the raw loop.

One epoch warms up; then epochs of 200 batches are measured, what begins and ends an epoch included.
"""

import sys
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.training import BATCH, STEPS, Backward, network, seconds_of, train


def loader(count: int) -> Any:
    """Return a loader of `count` batches of samples that are there already."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(BATCH * count, 32, generator=generator)
    return DataLoader(TensorDataset(samples, torch.randint(2, (len(samples),), generator=generator)), batch_size=BATCH, shuffle=True)


def cost(model: Any, optimizer: Any, backward: Backward, warm: Any, measured: Any) -> dict[str, float]:
    """Return the CPU time of one epoch."""
    train(model, optimizer, warm, backward)
    return {"seconds": seconds_of(lambda: train(model, optimizer, measured, backward))}


def raw(steps: int = STEPS) -> dict[str, float]:
    """Measure the loop on torch's loader as it is."""
    import torch

    return cost(*network(), torch.Tensor.backward, loader(100), loader(steps))


def leyden(steps: int = STEPS) -> dict[str, float]:
    """Measure the same loop on `leyden.fabric.Fabric`."""
    from leyden.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    return cost(*fabric.setup(*network()), fabric.backward, *fabric.setup_dataloaders(loader(100), loader(steps)))


def lightning(steps: int = STEPS) -> dict[str, float]:
    """Measure the same loop on Lightning's Fabric."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    return cost(*fabric.setup(*network()), fabric.backward, *fabric.setup_dataloaders(loader(100), loader(steps)))


def accelerate(steps: int = STEPS) -> dict[str, float]:
    """Measure the same loop on an Accelerator."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    return cost(*accelerator.prepare(*network()), accelerator.backward, *accelerator.prepare(loader(100), loader(steps)))


BENCHMARK = Benchmark(
    claim="a Fabric step with a DataLoader takes at most 1.08 times the raw loop's",
    variants={
        "raw": Variant(run=raw),
        "leyden": Variant(run=leyden),
        "lightning": Variant(run=lightning, peer="lightning"),
        "accelerate": Variant(run=accelerate, peer="accelerate"),
    },
    comparisons=[
        Comparison(of="leyden", to="raw", limit=1.08),
        Comparison(of="lightning", to="raw"),
        Comparison(of="accelerate", to="raw"),
    ],
    rounds=11,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_loader"))
