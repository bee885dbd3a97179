"""The small training run of `training` as a `LightningModule` under a `Trainer`: what the claims about trainers measure.

Every contestant iterates the same object, and that object measures: from one `iter` to the next an epoch passes, what begins
and ends it included, whatever the contestant does around its batches. Nobody is asked for the time. This file runs in the
peers' environments too, so torch is imported inside.
"""

import gc
import itertools
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.training import batches, calls_of, network

STEPS = 400
EPOCHS = 5
FEW, MANY = 20, 220
Result = TypeVar("Result")


class Batches:
    """Batches that are there already, and when each pass over them began.

    Args:
        count: How many.
        data: Something else to iterate over: a loader.
    """

    def __init__(self, count: int, data: Any = None) -> None:
        self._data = batches(count) if data is None else data
        self.starts: list[float] = []

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        self.starts.append(time.process_time())
        return iter(self._data)

    def fastest(self) -> float:
        """Return the CPU time of the fastest epoch, all threads of the process included."""
        return fastest(self.starts)


def fastest(starts: list[float]) -> float:
    """Return the time of the fastest epoch but the first one, which warms up, and the last one, whose end nobody noted.

    Args:
        starts: When each epoch began.

    Raises:
        RuntimeError: They are too few.
    """
    if len(starts) < 3:
        raise RuntimeError(f"{len(starts)} epochs began; three at least are needed to tell how long one takes")
    return min(after - before for before, after in itertools.pairwise(starts[1:]))


def step_module(base: Any, *, logs: bool = False) -> Any:
    """Return a module whose step is the raw loop's, of a contestant's `LightningModule`.

    Args:
        base: The class.
        logs: Whether each step logs its loss, for the logger and the bar.
    """
    from torch.nn.functional import cross_entropy

    class Small(base):
        def __init__(self) -> None:
            super().__init__()
            self.model, self._optimizer = network()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            inputs, targets = batch
            loss = cross_entropy(self.model(inputs), targets)
            if logs:
                self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=False)
            return loss

        def configure_optimizers(self) -> Any:
            return self._optimizer

    return Small()


def manual_module(base: Any) -> Any:
    """Return a module that does the raw loop's step by hand, of a contestant's `LightningModule`."""
    from torch.nn.functional import cross_entropy

    class ByHand(base):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.model, self._optimizer = network()

        def training_step(self, batch: Any, batch_idx: int) -> None:
            inputs, targets = batch
            optimizer = self.optimizers()
            optimizer.zero_grad()
            loss = cross_entropy(self.model(inputs), targets)
            self.manual_backward(loss)
            optimizer.step()

        def configure_optimizers(self) -> Any:
            return self._optimizer

    return ByHand()


def fit(trainer_class: Any, module: Any, *data: Any, epochs: int = 1, ckpt_path: str | None = None, **settings: Any) -> Any:
    """Fit quietly, unless `settings` say otherwise, and return the trainer.

    Args:
        trainer_class: The contestant's `Trainer`.
        module: What to train.
        *data: What to iterate over, and what to validate on.
        epochs: How often.
        ckpt_path: What to go on from.
        **settings: Arguments of `Trainer`.
    """
    _silence()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = trainer_class(accelerator="cpu", max_epochs=epochs, **{"devices": 1, **quiet, **settings})
    trainer.fit(module, *data, ckpt_path=ckpt_path)
    return trainer


def _silence() -> None:
    """What contestants say about few workers and missing validation is not measured, and must not cost a terminal."""
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "leyden", "ignite"):
        logging.getLogger(name).setLevel(logging.ERROR)


def cost(run: Callable[[Any, int], object], steps: int, epochs: int = EPOCHS) -> dict[str, float]:
    """Return what a step costs: `seconds` of an epoch, `calls` per step in the main thread.

    Args:
        run: Trains over the given batches so many epochs.
        steps: The batches of an epoch.
        epochs: How many epochs are measured, the two at the ends not included.
    """
    timed = Batches(steps)
    run(timed, epochs + 2)
    return {"seconds": timed.fastest(), "calls": step_calls(lambda count: run(Batches(count), 1))}


def step_calls(pass_over: Callable[[int], object]) -> float:
    """Return the calls per step of a fit: (220 steps - 20 steps) / 200.

    Args:
        pass_over: Fits over so many batches.
    """
    gc.collect()
    return calls_of(pass_over, few=FEW, many=MANY)


def ten_empty_callbacks(base: Any) -> list[Any]:
    """Return ten callbacks that override no hook, of a contestant's `Callback`."""
    return [type(f"Empty{number}", (base,), {})() for number in range(10)]


def in_new_folder(measure: Callable[[str], Result]) -> Result:
    """Return what `measure(folder)` returns, in a folder that vanishes; it is the current one meanwhile."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
        os.chdir(folder)
        try:
            return measure(folder)
        finally:
            os.chdir(before)
