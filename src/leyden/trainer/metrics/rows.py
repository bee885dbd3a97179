"""`Rows`: takes what is due from the store to the loggers, with the step and the epoch that belong to it.

A row costs one copy from each device: its values are stacked there and copied without waiting; loggers that are
`threaded` get functions that wait in the writer thread, others numbers. A logged `"step"` becomes the row's step.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leyden.fabric.loggers import Logger
from leyden.trainer.engine.clock import Clock
from leyden.trainer.engine.state import RunState
from leyden.trainer.metrics.store import MetricStore

Row = dict[str, Any]


class Rows:
    """Writes the rows of a run. Every rank calls every method, for they may be collectives.

    Args:
        store: Where values come from.
        loggers: Where rows go; may be empty, and set anew. Ranks exchange values all the same.
        state: The run's position, which has the number of step rows of each evaluated loader.

    Example:
        >>> store, state = MetricStore(), RunState()
        >>> store.current = store.slots("train", "training_step")
        >>> store.log("loss", 0.5)
        >>> Rows(store, [], state).train_step(state.clock)
        >>> store.logged_metrics
        {'loss': tensor(0.5000)}
    """

    def __init__(self, store: MetricStore, loggers: Sequence[Logger], state: RunState) -> None:
        self.loggers = loggers
        self._store = store
        self._state = state

    def train_step(self, clock: Clock) -> None:
        """Write the row of the training step that is being finished."""
        self._write(self._store.step_row("train"), clock.log_step, clock.epoch)

    def train_epoch(self, clock: Clock) -> None:
        """End the training epoch: its row belongs to its last step."""
        self._write(self._store.end_epoch("train"), clock.log_step - 1, clock.epoch)

    def begin_eval(self, stage: str, num_loaders: int) -> None:
        """Make room for the counts of a stage's loaders. They run on over epochs, except in the sanity check."""
        counts = self._state.eval_rows.setdefault(stage, [])
        if stage == "sanity":
            counts.clear()
        counts.extend([0] * (num_loaders - len(counts)))

    def eval_step(self, stage: str, loader: int = 0) -> None:
        """Write the row of an evaluated batch, at the loader's own step and without an epoch."""
        counts = self._state.eval_rows[stage]
        if self._store.stage(stage).on_step:
            row = self._store.step_row(stage)
            if stage != "sanity":
                self._write(row, counts[loader], None)
        counts[loader] += 1

    def eval_epoch(self, stage: str, clock: Clock, num_loaders: int = 1) -> list[dict[str, float]]:
        """End an evaluation, write its row at the training step it lies at, and return its values per loader."""
        self._write(self._store.end_epoch(stage), clock.log_step, clock.epoch)
        return self._store.results(stage, num_loaders)

    def save(self) -> None:
        """Bring what was written to where it belongs; at the end of an epoch, not per row."""
        for logger in self.loggers:
            logger.save()

    def _write(self, row: Row, step: int, epoch: int | None) -> None:
        if not row or not self.loggers:
            return
        if "step" in row:
            step = int(row.pop("step"))
        elif epoch is not None:
            row.setdefault("epoch", epoch)
        for value in row.values():
            if type(value) is Tensor:
                row = on_the_way(row)
                break
        for logger in self.loggers:
            if getattr(logger, "threaded", False):  # a logger of another library need not know the word
                logger.log_metrics(row, step)
            else:
                logger.log_metrics(arrived(row), step)


class DeviceCopy:
    """Numbers on their way from a device.

    Args:
        values: The tensors, all on one device.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        dtype = torch.float64 if any(value.dtype is torch.float64 for value in values) else torch.float32
        stacked = torch.stack([value.detach().reshape(()).to(dtype) for value in values])
        is_cuda = stacked.is_cuda
        self._host = torch.empty(stacked.shape, dtype=dtype, pin_memory=is_cuda)
        self._host.copy_(stacked, non_blocking=is_cuda)  # elsewhere a copy waits for itself
        self._event = torch.cuda.current_stream(stacked.device).record_event() if is_cuda else None

    def number(self, index: int) -> float:
        """Return a number, in any thread; wait for it if it is not there yet."""
        if self._event is not None:
            self._event.synchronize()
        return self._host[index].item()


def on_the_way(row: Mapping[str, Any]) -> Row:
    """Return a row whose tensors became functions that wait for the number, after one copy from each device."""
    by_device: dict[torch.device, list[str]] = {}
    for name, value in row.items():
        if isinstance(value, Tensor):
            by_device.setdefault(value.device, []).append(name)
    numbers: Row = {}
    for names in by_device.values():
        copy = DeviceCopy([row[name] for name in names])
        numbers.update({name: partial(copy.number, index) for index, name in enumerate(names)})
    return {name: numbers.get(name, value) for name, value in row.items()}


def arrived(row: Mapping[str, Any]) -> Row:
    """Return a row of numbers."""
    return {name: value() if isinstance(value, partial) else value for name, value in row.items()}
