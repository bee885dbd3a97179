"""On a GPU a Fabric step costs what it costs on a CPU, and nothing where the device has work enough.

Needs a CUDA device; elsewhere it says so and is over. A small network is bound by Python's launching of kernels, so what is
around a step shows; a large one is bound by the device.
"""

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.training import Backward, batches, network, train

PASSES = 5
SMALL_STEPS = 200
LARGE_STEPS = 5
LARGE_WIDTH = 4096


def _large() -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(LARGE_WIDTH, LARGE_WIDTH), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def _seconds(one_pass: Callable[[], object]) -> float:
    """Return the wall time of the fastest of some passes; the device has finished at both ends."""
    import torch

    one_pass()
    times = []
    for _ in range(PASSES):
        torch.cuda.synchronize()
        start = time.perf_counter()
        one_pass()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def _measured(set_up: Callable[[Any, Any], tuple[Any, Any]], backward: Backward) -> dict[str, float]:
    import torch

    device = torch.device("cuda", 0)
    model, optimizer = set_up(*network())
    small = [(x.to(device), y.to(device)) for x, y in batches(SMALL_STEPS)]
    result = {"small": _seconds(lambda: train(model, optimizer, small, backward))}
    model, optimizer = set_up(*_large())
    x = torch.randn(LARGE_WIDTH, LARGE_WIDTH, device=device)
    large = [(x, torch.randint(LARGE_WIDTH, (LARGE_WIDTH,), device=device))] * LARGE_STEPS
    result["large"] = _seconds(lambda: train(model, optimizer, large, backward))
    return result


def raw() -> dict[str, float]:
    """Measure the loop as torch's tutorials write it."""
    import torch

    return _measured(lambda model, optimizer: (model.to("cuda"), optimizer), torch.Tensor.backward)


def leyden() -> dict[str, float]:
    """Measure the same loop on `leyden.fabric.Fabric`."""
    from leyden.fabric import Fabric

    fabric = Fabric(accelerator="cuda", devices=1)
    return _measured(fabric.setup, fabric.backward)


BENCHMARK = Benchmark(
    claim="on a GPU a Fabric step takes at most 1.10 times the raw loop's with a small network, and 1.02 times with a large one",
    variants={"raw": Variant(run=raw, cores=2), "leyden": Variant(run=leyden, cores=2)},  # backward has a thread of its own
    comparisons=[
        Comparison(of="leyden", to="raw", metric="small", limit=1.10),
        Comparison(of="leyden", to="raw", metric="large", limit=1.02),
    ],
)

if __name__ == "__main__":
    if shutil.which("nvidia-smi") is None:
        sys.exit(print("fabric_cuda: this machine has no NVIDIA GPU, so nothing is measured"))
    sys.exit(main(BENCHMARK, "benchmarks.fabric_cuda"))
