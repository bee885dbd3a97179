"""A Fabric step costs at most a tenth more than the raw loop's, and at most 21 calls more."""

import sys

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.training import STEPS, network, step_cost


def raw(steps: int = STEPS) -> dict[str, float]:
    """Measure the loop as torch's tutorials write it."""
    import torch

    return step_cost(*network(), torch.Tensor.backward, steps)


def leyden(steps: int = STEPS) -> dict[str, float]:
    """Measure the same loop on `leyden.fabric.Fabric`."""
    from leyden.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    return step_cost(*fabric.setup(*network()), fabric.backward, steps)


def lightning(steps: int = STEPS) -> dict[str, float]:
    """Measure the same loop on Lightning's Fabric."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    return step_cost(*fabric.setup(*network()), fabric.backward, steps)


def accelerate(steps: int = STEPS) -> dict[str, float]:
    """Measure the same loop on an Accelerator."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    return step_cost(*accelerator.prepare(*network()), accelerator.backward, steps)


BENCHMARK = Benchmark(
    claim="a Fabric step takes at most 1.10 times the raw loop's, and 21 calls more",
    variants={
        "raw": Variant(run=raw),
        "leyden": Variant(run=leyden),
        "lightning": Variant(run=lightning, peer="lightning"),
        "accelerate": Variant(run=accelerate, peer="accelerate"),
    },
    comparisons=[
        Comparison(of="leyden", to="raw", limit=1.10),
        Comparison(of="lightning", to="raw"),
        Comparison(of="accelerate", to="raw"),
        Comparison(of="leyden", metric="calls", limit=200),
        Comparison(of="leyden", metric="extra_calls", limit=21),
        Comparison(of="lightning", metric="extra_calls"),
        Comparison(of="accelerate", metric="extra_calls"),
    ],
    rounds=11,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_step"))
