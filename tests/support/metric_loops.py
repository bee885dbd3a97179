"""Calls a store as the loops do, without models: what a step logs is a function of the batch's number."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from leyden.fabric.loggers import Logger
from leyden.trainer.core.logging import log
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
        self.rows = Rows(self.store, [self.logger])
        self.log_step = 0
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
                if stepped and (self.log_step + 1) % self.log_every == 0:
                    self.rows.write_step(self.log_step, epoch=epoch)
                seen += 1
                is_due = seen % self.val_every == 0 if self.val_every else index + 1 == self.batches
                if self.val_batches and is_due:
                    self.evaluate("validate", self.log_step, epoch)
                self.log_step += stepped
            self.store.batch = None
            self.store.publish("train")
            self.call("train", "on_train_epoch_end", epoch)
            self.rows.write_epoch("train", self.log_step - 1, epoch=epoch)
        return self

    def evaluate(self, stage: str, step: int, epoch: int) -> None:
        prefix = "validation" if stage == "validate" else "test"
        has_several = len(self.val_batches) > 1
        self.store.begin_epoch(stage)
        for loader, batches in enumerate(self.val_batches):
            self.store.dataloader_idx = loader if has_several else None
            for index in range(batches):
                self.store.batch = torch.zeros(2, 1)
                self.call(stage, f"{prefix}_step", 100 * loader + index)
                if self.store.stage(stage).on_step:
                    self.rows.write_eval_step(stage, loader)
        self.store.dataloader_idx, self.store.batch = None, None
        self.store.publish(stage)
        self.call(stage, f"on_{prefix}_epoch_end", epoch)
        self.rows.write_epoch(stage, step, epoch=epoch)

    def entry(self, stage: str) -> "Loops":
        self.store.clear()
        self.rows.begin_evaluation(stage)
        self.evaluate(stage, 0, 0)
        self.returned = self.store.results(stage, len(self.val_batches))
        return self

    def outcome(self) -> dict[str, Any]:
        return {
            "logger_rows": self.logger.rows,
            "callback_metrics": numbers(self.store.callback_metrics),
            "logged_metrics": numbers(self.store.logged_metrics),
            "progress_bar_metrics": self.store.progress_bar_metrics,
            "returned": self.returned,
        }


def numbers(values: dict[str, Any]) -> dict[str, float]:
    assert all(isinstance(value, torch.Tensor) for value in values.values())
    return {name: float(value) for name, value in values.items()}
