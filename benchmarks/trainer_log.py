"""The loss logged at every step, with a progress bar and a CSV file, costs at most 60 % of the raw loop, which does neither.

`log_every_n_steps=1`: every step writes a row. The bar draws to a file, as in a job. What the loggers write in threads and
at the end of an epoch counts. The other yardstick is the raw loop that writes the same rows and a tqdm bar by hand.
"""

import csv
import sys
from pathlib import Path
from typing import Any

from benchmarks.fits import STEPS, cost, fit, in_new_folder, step_module
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.training import network, train, train_and_log


def raw(steps: int = STEPS) -> dict[str, float]:
    """Measure the loop that logs nothing."""
    import torch

    model, optimizer = network()

    def run(data: Any, epochs: int) -> None:
        for _ in range(epochs):
            train(model, optimizer, data, torch.Tensor.backward)

    return cost(run, steps)


def by_hand(steps: int = STEPS) -> dict[str, float]:
    """Measure the loop that writes each row with Python's `csv` and draws with tqdm."""
    import torch
    from tqdm import tqdm

    model, optimizer = network()

    def measure(folder: str) -> dict[str, float]:
        with (Path(folder) / "metrics.csv").open("w", encoding="utf-8") as file:
            writer = csv.writer(file)

            def run(data: Any, epochs: int) -> None:
                numbers = iter(range(10**9))
                for _ in range(epochs):
                    with tqdm(total=len(data)) as bar:

                        def log(loss: Any, bar: Any = bar) -> None:
                            value = loss.item()
                            writer.writerow([value, next(numbers)])
                            bar.set_postfix(loss=f"{value:.3f}", refresh=False)
                            bar.update()

                        train_and_log(model, optimizer, data, torch.Tensor.backward, log)
                    file.flush()

            return cost(run, steps)

    return in_new_folder(measure)


def leyden(steps: int = STEPS) -> dict[str, float]:
    """Measure `self.log` with Leyden's bar and CSV logger."""
    from leyden.trainer import LightningModule, Trainer
    from leyden.trainer.callbacks import TQDMProgressBar
    from leyden.trainer.loggers import CSVLogger

    return _logging(Trainer, LightningModule, CSVLogger, TQDMProgressBar, steps)


def lightning(steps: int = STEPS) -> dict[str, float]:
    """Measure `self.log` with Lightning's bar and CSV logger."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import TQDMProgressBar
    from lightning.pytorch.loggers import CSVLogger

    return _logging(Trainer, LightningModule, CSVLogger, TQDMProgressBar, steps)


def _logging(trainer: Any, module: Any, logger: Any, bar: Any, steps: int) -> dict[str, float]:
    def measure(folder: str) -> dict[str, float]:
        def run(data: Any, epochs: int) -> None:
            settings = {"logger": logger(folder), "enable_progress_bar": True, "callbacks": [bar()], "log_every_n_steps": 1}
            fit(trainer, step_module(module, logs=True), data, epochs=epochs, default_root_dir=folder, **settings)

        return cost(run, steps)

    return in_new_folder(measure)


BENCHMARK = Benchmark(
    claim="with the loss logged to CSV and shown in a bar at each step, a Trainer step takes at most 1.6 times the raw loop's",
    variants={
        "raw": Variant(run=raw),
        "by hand": Variant(run=by_hand, peer="lightning"),
        "leyden": Variant(run=leyden),
        "lightning": Variant(run=lightning, peer="lightning"),
    },
    comparisons=[
        Comparison(of="leyden", to="raw", limit=1.6),
        Comparison(of="by hand", to="raw"),
        Comparison(of="lightning", to="raw"),
        Comparison(of="leyden", metric="calls", limit=330),
        Comparison(of="by hand", metric="calls"),
        Comparison(of="lightning", metric="calls"),
    ],
    rounds=7,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.trainer_log"))
