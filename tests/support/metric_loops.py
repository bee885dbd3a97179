"""Calls a store as the loops do, without models: what a step logs is a function of the batch's number."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from leyden.fabric.loggers import Logger
from leyden.trainer.core.logging import log, log_dict
from leyden.trainer.engine.state import RunState
from leyden.trainer.metrics.rows import Rows
from leyden.trainer.metrics.store import MetricStore


class MemoryLogger(Logger):
    """Keeps rows as they come."""

    name, version = "memory", 0

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append([step, dict(metrics)])

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError


class Module:
    """Has what `log` needs of a module."""

    def __init__(self, sink: Any) -> None:
        self._log_sink = sink

    log = log
    log_dict = log_dict


Hook = Callable[[Module, int], None]
"""Logs; gets the number of the batch, or of the epoch."""


class Loops:
    """A fit or an evaluation.

    Args:
        hooks: Hook → what runs in it.
        batches: Batches of a training epoch.
        accumulate: Batches per step.
        log_every: Steps per row.
        is_manual: Whether every batch steps.
        val_batches: Batches of each validation loader; empty: no validation.
        val_every: Validate after every n-th batch, counted over epochs; 0: after the epoch's last.
        logger: Where rows go.
    """

    def __init__(
        self,
        hooks: dict[str, Hook],
        *,
        batches: int = 4,
        accumulate: int = 1,
        log_every: int = 2,
        is_manual: bool = False,
        val_batches: Sequence[int] = (),
        val_every: int = 0,
        num_val_loaders: int = 1,
    ) -> None:
        self.hooks = hooks
        self.batches, self.accumulate, self.log_every, self.is_manual = batches, accumulate, log_every, is_manual
        self.val_batches, self.val_every = val_batches, val_every
        self.logger = MemoryLogger()
        self.store = MetricStore()
        self.module = Module(self.store)
        self.state = RunState()
        self.clock = self.state.clock
        self.rows = Rows(self.store, [self.logger], self.state)
        self.returned: Any = None

    def call(self, stage: str, hook: str, number: int) -> None:
        if hook in self.hooks:
            self.store.current = self.store.slots(stage, hook)
            self.hooks[hook](self.module, number)
            self.store.current = None

    def fit(self, epochs: int = 2) -> "Loops":
        self.store.clear()
        self.call("train", "on_train_start", 0)
        seen = 0
        for epoch in range(epochs):
            self.store.begin_epoch("train")
            self.call("train", "on_train_epoch_start", epoch)
            for index in range(self.batches):
                self.store.batch = torch.zeros(2, 1)
                self.call("train", "training_step", index)
                self.call("train", "on_train_batch_end", index)
                stepped = self.is_manual or (index + 1) % self.accumulate == 0 or index + 1 == self.batches
                if stepped and (self.clock.log_step + 1) % self.log_every == 0:
                    self.rows.train_step(self.clock)
                seen += 1
                is_due = seen % self.val_every == 0 if self.val_every else index + 1 == self.batches
                if self.val_batches and is_due:
                    self.evaluate("validate")
                self.clock.log_step += stepped
            self.store.batch = None
            self.store.publish("train")
            self.call("train", "on_train_epoch_end", epoch)
            self.rows.train_epoch(self.clock)
            self.clock.epoch += 1
        return self

    def evaluate(self, stage: str) -> None:
        prefix = "validation" if stage == "validate" else "test"
        has_several = len(self.val_batches) > 1
        self.store.begin_epoch(stage)
        self.rows.begin_eval(stage, len(self.val_batches))
        for loader, batches in enumerate(self.val_batches):
            self.store.dataloader_idx = loader if has_several else None
            for index in range(batches):
                self.store.batch = torch.zeros(2, 1)
                self.call(stage, f"{prefix}_step", 100 * loader + index)
                self.rows.eval_step(stage, loader)
        self.store.dataloader_idx, self.store.batch = None, None
        self.store.publish(stage)
        self.call(stage, f"on_{prefix}_epoch_end", self.clock.epoch)
        self.returned = self.rows.eval_epoch(stage, self.clock, len(self.val_batches))

    def entry(self, stage: str) -> "Loops":
        self.store.clear()
        self.evaluate(stage)
        return self

    def outcome(self) -> dict[str, Any]:
        return {
            "logger_rows": self.logger.rows,
            "callback_metrics": numbers(self.store.callback_metrics),
            "logged_metrics": numbers(self.store.logged_metrics),
            "progress_bar_metrics": self.store.progress_bar_metrics,
        }


def numbers(values: dict[str, Any]) -> dict[str, float]:
    assert all(isinstance(value, torch.Tensor) for value in values.values())
    return {name: float(value) for name, value in values.items()}
