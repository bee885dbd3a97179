"""Going on at batch 9,000 of 10,000 takes half a second at most and reads one batch, where items take a millisecond to read.

Every contestant is asked for the batch that an unbroken epoch delivers as its 9,001st; who brings another one fails. The
place comes from a run over the same indices whose items cost nothing.
"""

import sys
import time
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main

BATCHES, AT, BATCH = 10_000, 9_000, 2
ITEM_SECONDS = 0.001


class Items:
    """A dataset whose item is its index; it counts reads.

    Args:
        length: The number of items.
        seconds: How long reading one takes.
    """

    def __init__(self, length: int, seconds: float) -> None:
        self._length = length
        self._seconds = seconds
        self.reads = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        self.reads += 1
        if self._seconds:
            time.sleep(self._seconds)
        return index


def loader(items: Items) -> Any:
    """Return a shuffled loader over the items."""
    from torch.utils.data import DataLoader

    return DataLoader(items, batch_size=BATCH, shuffle=True)


def first_batch(wanted: list[int], items: Items, resume: Any) -> dict[str, float]:
    """Return how long `resume()` takes to the first batch, and how many items it reads.

    Raises:
        RuntimeError: It is not the batch that comes next.
    """
    start = time.perf_counter()
    batch = resume().tolist()
    seconds = time.perf_counter() - start
    if batch != wanted:
        raise RuntimeError(f"resumed at the batch {batch}, but {wanted} comes next")
    return {"seconds": seconds, "reads": items.reads}


def leyden(batches: int = BATCHES, at: int = AT, seconds: float = ITEM_SECONDS) -> dict[str, float]:
    """Measure a loader set up by Leyden's Fabric, which takes its state."""
    from leyden.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(42, verbose=False)
    unbroken = fabric.setup_dataloaders(loader(Items(batches * BATCH, 0)))
    iterator = iter(unbroken)
    for _ in range(at):
        next(iterator)
    state = unbroken.state_dict()
    wanted = next(iterator).tolist()
    items = Items(batches * BATCH, seconds)

    def resume() -> Any:
        resumed = fabric.setup_dataloaders(loader(items))
        resumed.load_state_dict(state)
        return next(iter(resumed))

    return first_batch(wanted, items, resume)


def _wanted(batches: int, at: int) -> list[int]:
    import torch

    torch.manual_seed(42)
    iterator = iter(loader(Items(batches * BATCH, 0)))
    for _ in range(at):
        next(iterator)
    torch_batch: list[int] = next(iterator).tolist()
    torch.manual_seed(42)
    return torch_batch


def by_reading(batches: int = BATCHES, at: int = AT, seconds: float = ITEM_SECONDS) -> dict[str, float]:
    """Measure a plain loop: seed again, and read what was read before. Lightning's Fabric offers nothing else."""
    wanted = _wanted(batches, at)
    items = Items(batches * BATCH, seconds)

    def resume() -> Any:
        iterator = iter(loader(items))
        for _ in range(at):
            next(iterator)
        return next(iterator)

    return first_batch(wanted, items, resume)


def accelerate(batches: int = BATCHES, at: int = AT, seconds: float = ITEM_SECONDS) -> dict[str, float]:
    """Measure `skip_first_batches`, which is told the number of batches by the loop."""
    from accelerate import skip_first_batches

    wanted = _wanted(batches, at)
    items = Items(batches * BATCH, seconds)
    return first_batch(wanted, items, lambda: next(iter(skip_first_batches(loader(items), at))))


BENCHMARK = Benchmark(
    claim="resuming at batch 9,000 of 10,000 takes at most 0.5 seconds and reads one batch",
    variants={
        "leyden": Variant(run=leyden),
        "skipping by reading": Variant(run=by_reading),
        "accelerate": Variant(run=accelerate, peer="accelerate"),
    },
    comparisons=[
        Comparison(of="leyden", limit=0.5),
        Comparison(of="leyden", metric="reads", limit=BATCH),
        Comparison(of="skipping by reading"),
        Comparison(of="skipping by reading", metric="reads"),
        Comparison(of="accelerate"),
        Comparison(of="accelerate", metric="reads"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_resume"))
