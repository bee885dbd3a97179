"""A quiet `Trainer` step costs at most a quarter more than the raw loop's, also by hand; ten empty callbacks cost no call.

No logger, no bar, no checkpoints: what is measured is the loop. `calls` are Python and C calls of the main thread per step.
That empty callbacks add none decides; the ratio of their times, which is that of equal loops, shows what the machine's noise is.
"""

import sys
from typing import Any

from benchmarks.fits import STEPS, cost, fit, manual_module, step_module, ten_empty_callbacks
from benchmarks.harness import Benchmark, Comparison, Variant, main
from benchmarks.training import network, train


def raw(steps: int = STEPS) -> dict[str, float]:
    """Measure the loop as torch's tutorials write it."""
    import torch

    model, optimizer = network()

    def run(data: Any, epochs: int) -> None:
        for _ in range(epochs):
            train(model, optimizer, data, torch.Tensor.backward)

    return cost(run, steps)


def leyden(steps: int = STEPS) -> dict[str, float]:
    """Measure Leyden's `Trainer`."""
    from leyden.trainer import LightningModule, Trainer

    return cost(lambda data, epochs: fit(Trainer, step_module(LightningModule), data, epochs=epochs), steps)


def leyden_with_callbacks(steps: int = STEPS) -> dict[str, float]:
    """Measure the same with ten callbacks that do nothing."""
    from leyden.trainer import Callback, LightningModule, Trainer

    callbacks = ten_empty_callbacks(Callback)
    return cost(lambda data, epochs: fit(Trainer, step_module(LightningModule), data, epochs=epochs, callbacks=callbacks), steps)


def leyden_by_hand(steps: int = STEPS) -> dict[str, float]:
    """Measure manual optimisation."""
    from leyden.trainer import LightningModule, Trainer

    return cost(lambda data, epochs: fit(Trainer, manual_module(LightningModule), data, epochs=epochs), steps)


def lightning(steps: int = STEPS) -> dict[str, float]:
    """Measure Lightning's `Trainer`."""
    from lightning.pytorch import LightningModule, Trainer

    return cost(lambda data, epochs: fit(Trainer, step_module(LightningModule), data, epochs=epochs), steps)


def lightning_with_callbacks(steps: int = STEPS) -> dict[str, float]:
    """Measure the same with ten callbacks that do nothing."""
    from lightning.pytorch import Callback, LightningModule, Trainer

    callbacks = ten_empty_callbacks(Callback)
    return cost(lambda data, epochs: fit(Trainer, step_module(LightningModule), data, epochs=epochs, callbacks=callbacks), steps)


def lightning_by_hand(steps: int = STEPS) -> dict[str, float]:
    """Measure manual optimisation."""
    from lightning.pytorch import LightningModule, Trainer

    return cost(lambda data, epochs: fit(Trainer, manual_module(LightningModule), data, epochs=epochs), steps)


def ignite(steps: int = STEPS) -> dict[str, float]:
    """Measure an Engine of Ignite whose function is the raw loop's step."""
    from ignite.engine import Engine
    from torch.nn.functional import cross_entropy

    model, optimizer = network()

    def step(_engine: Any, batch: Any) -> Any:
        inputs, targets = batch
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    return cost(lambda data, epochs: Engine(step).run(data, max_epochs=epochs), steps)


def accelerate(steps: int = STEPS) -> dict[str, float]:
    """Measure the raw loop on an Accelerator."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(*network())

    def run(data: Any, epochs: int) -> None:
        for _ in range(epochs):
            train(model, optimizer, data, accelerator.backward)

    return cost(run, steps)


BENCHMARK = Benchmark(
    claim="a quiet Trainer step takes at most 1.25 times the raw loop's, automatic or by hand, and ten empty callbacks add no call",
    variants={
        "raw": Variant(run=raw),
        "leyden": Variant(run=leyden),
        "leyden, ten callbacks": Variant(run=leyden_with_callbacks),
        "leyden by hand": Variant(run=leyden_by_hand),
        "lightning": Variant(run=lightning, peer="lightning"),
        "lightning, ten callbacks": Variant(run=lightning_with_callbacks, peer="lightning"),
        "lightning by hand": Variant(run=lightning_by_hand, peer="lightning"),
        "ignite": Variant(run=ignite, peer="ignite"),
        "accelerate": Variant(run=accelerate, peer="accelerate"),
    },
    comparisons=[
        Comparison(of="leyden", to="raw", limit=1.25),
        Comparison(of="leyden by hand", to="raw", limit=1.25),
        Comparison(of="leyden, ten callbacks", to="leyden"),
        Comparison(of="lightning", to="raw"),
        Comparison(of="lightning by hand", to="raw"),
        Comparison(of="lightning, ten callbacks", to="lightning"),
        Comparison(of="ignite", to="raw"),
        Comparison(of="accelerate", to="raw"),
        Comparison(of="leyden", metric="calls", limit=230),
        Comparison(of="leyden by hand", metric="calls", limit=260),
        Comparison(of="leyden, ten callbacks", to="leyden", metric="calls", limit=1.0),
        Comparison(of="raw", metric="calls"),
        Comparison(of="lightning", metric="calls"),
        Comparison(of="lightning by hand", metric="calls"),
        Comparison(of="ignite", metric="calls"),
    ],
    rounds=7,
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "benchmarks.trainer_step"))
