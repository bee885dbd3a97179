"""An asynchronous sharded save holds the loop up for at most 30 % of the time that a synchronous one takes.

Two ranks, strategy `fsdp`, 400 MB of parameters and AdamW's state. Each rank saves four times; the first one, which loads
torch's planner and allocates the staging buffers, is a number of its own. Wall time of the slower rank: a save waits for the
disk and for the other rank. `loop_seconds` is a save and five steps behind it, with the write that goes on meanwhile.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.large import LAYERS, stack
from benchmarks.ranks import on_ranks, slowest

WIDTH = 2048  # 8 layers of 2048² float32 numbers are 134 MB, three times that with AdamW's state
SAVES = 3
STEPS = 5


def train(model: Any, optimizer: Any, steps: int, width: int) -> None:
    """Train on random numbers."""
    import torch

    inputs = torch.randn(4, width)
    for _ in range(steps):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def cost(save: Callable[[int], object], wait: Callable[[], object], steps: Callable[[int], object]) -> dict[str, float]:
    """Return how long `save(number)` blocks, and a save with the steps behind it takes.

    Args:
        save: Begins or makes a save.
        wait: Waits until it is on disk.
        steps: Trains so many steps.
    """
    import torch.distributed as dist

    steps(1)  # creates the optimizer's state
    blocked, loop = [], []
    for number in range(1 + SAVES):
        dist.barrier()
        start = time.perf_counter()
        save(number)
        blocked.append(time.perf_counter() - start)
        steps(STEPS)
        loop.append(time.perf_counter() - start)
        wait()
    return {"seconds": statistics.median(blocked[1:]), "first_seconds": blocked[0], "loop_seconds": statistics.median(loop[1:])}


def leyden_rank(folder: str, width: int, is_asynchronous: bool) -> dict[str, float]:  # noqa: FBT001 - it comes by position from another process
    """Measure `fabric.save` on a rank."""
    import torch

    from leyden.fabric import Fabric
    from leyden.fabric.strategies import FSDPStrategy

    fabric = Fabric(accelerator="cpu", devices=2, strategy=FSDPStrategy())
    fabric.launch()
    module = stack(width)
    model, optimizer = fabric.setup(module, torch.optim.AdamW(module.parameters()))
    state = {"model": model, "optimizer": optimizer}
    result = cost(
        lambda number: fabric.save(f"{folder}/step-{number}", state, blocking=not is_asynchronous),
        fabric.wait_for_saves,
        lambda steps: train(model, optimizer, steps, width),
    )
    fabric.barrier()
    return {**result, "bytes": _bytes_below(Path(folder)) / (1 + SAVES)}


def torch_rank(folder: str, width: int, is_asynchronous: bool) -> dict[str, float]:  # noqa: FBT001 - as above
    """Measure torch's distributed checkpoint on a rank."""
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("cpu:gloo")
    group = dist.new_group(backend="gloo")  # a second thread's collectives must not mix with training's
    model = stack(width)
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    pending: list[Any] = []

    def save(number: int) -> None:
        weights, slots = get_state_dict(model, optimizer)
        state = {"model": weights, "optimizer": slots}
        if is_asynchronous:
            pending.append(dcp.async_save(state, checkpoint_id=f"{folder}/step-{number}", process_group=group))
        else:
            dcp.save(state, checkpoint_id=f"{folder}/step-{number}", process_group=group)

    def wait() -> None:
        while pending:
            pending.pop().result()

    result = cost(save, wait, lambda steps: train(model, optimizer, steps, width))
    dist.barrier()
    dist.destroy_process_group()
    return result


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def saving(function: Callable[..., dict[str, float]], *, is_asynchronous: bool, width: int = WIDTH) -> Callable[[], dict[str, float]]:
    """Return a worker that measures saves of two ranks into a folder that vanishes.

    Args:
        function: What each rank does.
        is_asynchronous: Whether the saves are.
        width: The width of the layers.
    """

    def run() -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
            return slowest(on_ranks(function, folder, width, is_asynchronous))

    return run


BENCHMARK = Benchmark(
    claim=f"an asynchronous sharded save of {LAYERS * WIDTH**2 * 12 / 1e6:.0f} MB blocks for at most 0.30 of a synchronous one",
    variants={
        "synchronous": Variant(run=saving(leyden_rank, is_asynchronous=False), cores=2),
        "asynchronous": Variant(run=saving(leyden_rank, is_asynchronous=True), cores=2),
        "torch synchronous": Variant(run=saving(torch_rank, is_asynchronous=False), cores=2),
        "torch asynchronous": Variant(run=saving(torch_rank, is_asynchronous=True), cores=2),
    },
    comparisons=[
        Comparison(of="asynchronous", to="synchronous", limit=0.30),
        Comparison(of="asynchronous", to="synchronous", metric="first_seconds"),
        Comparison(of="asynchronous", to="synchronous", metric="loop_seconds"),
        Comparison(of="synchronous", to="torch synchronous"),
        Comparison(of="asynchronous", to="torch asynchronous"),
        Comparison(of="asynchronous", to="torch asynchronous", metric="loop_seconds"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_save"))
