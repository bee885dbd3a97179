"""A run that logs at every step needs no more memory after 10,000 steps than after 2,000.

What is measured is the resident memory of the process, in MB, between two batches of one epoch, with a CSV logger and
`log_every_n_steps=1`.
"""

import gc
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.fits import fit, in_new_folder, step_module
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.large import resident_bytes
from benchmarks.training import batches

STEPS, WARM = 10_000, 2_000
MEGABYTE = 1_000_000


class Watched:
    """Batches that look at the memory when half-way things have settled, and at the last one.

    Args:
        steps: How many batches.
        warm: At which the first look is.
    """

    def __init__(self, steps: int, warm: int) -> None:
        self._batches, self._warm = batches(steps), warm
        self.resident: list[int] = []

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(self._batches):
            if index in (self._warm, len(self._batches) - 1):
                gc.collect()
                self.resident.append(resident_bytes())
            yield batch


def _grown(trainer: Any, module: Any, logger: Any, steps: int, warm: int) -> dict[str, float]:
    def measure(folder: str) -> dict[str, float]:
        data = Watched(steps, warm)
        fit(trainer, step_module(module, logs=True), data, logger=logger(folder), log_every_n_steps=1, default_root_dir=folder)
        first, last = data.resident
        return {"megabytes": (last - first) / MEGABYTE, "resident": last / MEGABYTE}

    return in_new_folder(measure)


def leyden(steps: int = STEPS, warm: int = WARM) -> dict[str, float]:
    """Measure Leyden's `Trainer`."""
    from leyden.trainer import LightningModule, Trainer
    from leyden.trainer.loggers import CSVLogger

    return _grown(Trainer, LightningModule, CSVLogger, steps, warm)


def lightning(steps: int = STEPS, warm: int = WARM) -> dict[str, float]:
    """Measure Lightning's `Trainer`."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import CSVLogger

    return _grown(Trainer, LightningModule, CSVLogger, steps, warm)


BENCHMARK = Benchmark(
    claim="between step 2,000 and step 10,000 of a run that logs every step, memory grows by at most 1 MB",
    variants={"leyden": Variant(run=leyden), "lightning": Variant(run=lightning, peer="lightning")},
    comparisons=[
        Comparison(of="leyden", metric="megabytes", limit=1.0),
        Comparison(of="leyden", metric="resident"),
        Comparison(of="lightning", metric="megabytes"),
        Comparison(of="lightning", metric="resident"),
    ],
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.trainer_memory"))
