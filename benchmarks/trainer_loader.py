"""A quiet `Trainer` step with a shuffled `DataLoader` costs at most a tenth more than the raw loop's.

Batches are counted, and the run could be resumed after each of them. Epochs are measured from one beginning to the next.
"""

import sys
import time
from typing import Any

from benchmarks.fabric_loader import loader
from benchmarks.fits import fastest, fit, step_module
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.training import network, train

STEPS, EPOCHS = 200, 12


def raw(steps: int = STEPS) -> dict[str, float]:
    """Measure the loop on torch's loader as it is."""
    import torch

    model, optimizer = network()
    data = loader(steps)
    starts = []
    for _ in range(EPOCHS):
        starts.append(time.process_time())
        train(model, optimizer, data, torch.Tensor.backward)
    return {"seconds": fastest(starts)}


def leyden(steps: int = STEPS) -> dict[str, float]:
    """Measure Leyden's `Trainer`."""
    from leyden.trainer import Callback, LightningModule, Trainer

    return _fitted(Trainer, LightningModule, Callback, steps)


def lightning(steps: int = STEPS) -> dict[str, float]:
    """Measure Lightning's `Trainer`."""
    from lightning.pytorch import Callback, LightningModule, Trainer

    return _fitted(Trainer, LightningModule, Callback, steps)


def _fitted(trainer: Any, module: Any, callback: Any, steps: int) -> dict[str, float]:
    starts: list[float] = []

    class Starts(callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            starts.append(time.process_time())

    fit(trainer, step_module(module), loader(steps), epochs=EPOCHS, callbacks=[Starts()])
    return {"seconds": fastest(starts)}


def ignite(steps: int = STEPS) -> dict[str, float]:
    """Measure an Engine of Ignite."""
    from ignite.engine import Engine, Events
    from torch.nn.functional import cross_entropy

    model, optimizer = network()
    starts: list[float] = []

    def step(_engine: Any, batch: Any) -> Any:
        inputs, targets = batch
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    engine = Engine(step)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda _engine: starts.append(time.process_time()))
    engine.run(loader(steps), max_epochs=EPOCHS)
    return {"seconds": fastest(starts)}


BENCHMARK = Benchmark(
    claim="a quiet Trainer step with a DataLoader takes at most 1.10 times the raw loop's",
    variants={
        "raw": Variant(run=raw),
        "leyden": Variant(run=leyden),
        "lightning": Variant(run=lightning, peer="lightning"),
        "ignite": Variant(run=ignite, peer="ignite"),
    },
    comparisons=[
        Comparison(of="leyden", to="raw", limit=1.10),
        Comparison(of="lightning", to="raw"),
        Comparison(of="ignite", to="raw"),
    ],
    rounds=7,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.trainer_loader"))
