"""Logging the loss to a CSV file at every step costs at most 15 % of the raw loop, which logs nothing.

What the loggers write in threads and at the end counts: the time is the process's, and every pass ends with `save()`.
The other yardstick is a loop that writes the same rows by hand.
"""

import csv
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.training import STEPS, WARM_UP, Backward, batches, network, seconds_of, train, train_and_log


def cost(
    model: Any, optimizer: Any, backward: Backward, steps: int, log: Callable[[Any], object], save: Callable[[], object]
) -> dict[str, float]:
    """Return the CPU time of a pass in which each loss goes to `log`, and `save` ends it."""
    data = batches(steps)

    def one_pass(length: int = steps) -> None:
        train_and_log(model, optimizer, data[:length], backward, log)
        save()

    one_pass(WARM_UP)
    return {"seconds": seconds_of(one_pass)}


def raw(steps: int = STEPS) -> dict[str, float]:
    """Measure the loop that logs nothing."""
    import torch

    model, optimizer = network()
    data = batches(steps)
    train(model, optimizer, data[:WARM_UP], torch.Tensor.backward)
    return {"seconds": seconds_of(lambda: train(model, optimizer, data, torch.Tensor.backward))}


def by_hand(steps: int = STEPS) -> dict[str, float]:
    """Measure the loop that writes each row with Python's `csv`, flushed at the end."""
    import torch

    numbers = count()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "metrics.csv").open("w", encoding="utf-8") as file:
        writer = csv.writer(file)
        return cost(
            *network(), torch.Tensor.backward, steps, log=lambda loss: writer.writerow([loss.item(), next(numbers)]), save=file.flush
        )


def leyden(steps: int = STEPS) -> dict[str, float]:
    """Measure `fabric.log` with Leyden's CSV logger."""
    from leyden.fabric import Fabric
    from leyden.fabric.loggers import CSVLogger

    with tempfile.TemporaryDirectory() as folder:
        logger = CSVLogger(folder)
        fabric = Fabric(accelerator="cpu", devices=1, loggers=logger)
        numbers = count()
        result = cost(
            *fabric.setup(*network()), fabric.backward, steps, log=lambda loss: fabric.log("loss", loss, next(numbers)), save=logger.save
        )
        logger.finalize("success")
        return result


def lightning(steps: int = STEPS) -> dict[str, float]:
    """Measure `fabric.log` with Lightning's CSV logger."""
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import CSVLogger

    with tempfile.TemporaryDirectory() as folder:
        logger = CSVLogger(folder)
        fabric = Fabric(accelerator="cpu", devices=1, loggers=logger)
        numbers = count()
        return cost(
            *fabric.setup(*network()), fabric.backward, steps, log=lambda loss: fabric.log("loss", loss, next(numbers)), save=logger.save
        )


BENCHMARK = Benchmark(
    claim="with the loss logged to CSV at each step, a Fabric step takes at most 1.15 times the raw loop's",
    variants={
        "raw": Variant(run=raw),
        "by hand": Variant(run=by_hand),
        "leyden": Variant(run=leyden),
        "lightning": Variant(run=lightning, peer="lightning"),
    },
    comparisons=[
        Comparison(of="leyden", to="raw", limit=1.15),
        Comparison(of="by hand", to="raw"),
        Comparison(of="lightning", to="raw"),
    ],
    rounds=11,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.fabric_log"))
