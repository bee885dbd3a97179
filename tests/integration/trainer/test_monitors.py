"""Callbacks that watch a real fit: rows of devices and rates, the collector, losses that are not finite, schedules of accumulation."""

import csv
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric.loggers import CSVLogger
from leyden.fabric.spike import TrainingSpikeException
from leyden.trainer import Callback, LightningModule, Trainer
from leyden.trainer.callbacks import (
    DeviceStatsMonitor,
    GarbageCollection,
    GradientAccumulationScheduler,
    LambdaCallback,
    NonFiniteGuard,
    SpikeDetection,
    ThroughputMonitor,
)
from leyden.trainer.callbacks.non_finite_guard import NonFiniteError


class Net(LightningModule):
    """`losses` are those of each batch in turn; `slopes` what their gradients are multiplied by."""

    def __init__(self, losses: list[float] | None = None, slopes: list[float] | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.losses = losses or []
        self.slopes = slopes or []
        self.flops_per_batch = 64

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        value, slope = (known[batch_idx] if batch_idx < len(known) else 1.0 for known in (self.losses, self.slopes))
        slanted = self.layer(batch[0]).sum() * slope
        return slanted - slanted.detach() + value if abs(slope) < 1e9 else slanted

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.layer(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(root: Path, *callbacks: Callback, net: Net | None = None, **options: Any) -> Trainer:
    loader = DataLoader(TensorDataset(torch.ones(32, 4)), batch_size=4)
    defaults = {"logger": CSVLogger(root, name="", version=""), "max_epochs": 1, "log_every_n_steps": 2}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(default_root_dir=root, accelerator="cpu", callbacks=list(callbacks), **{**quiet, **defaults, **options})
    trainer.fit(net or Net(), loader, loader)
    return trainer


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rates_are_in_the_rows_of_training_and_of_validation(tmp_path: Path) -> None:
    fit(tmp_path, ThroughputMonitor(batch_size_fn=lambda batch: len(batch[0]), window_size=2), max_epochs=2)
    found = [row for row in rows(tmp_path) if row.get("train/samples")]
    assert [int(row["step"]) for row in found] == [1, 3, 5, 7, 9, 11, 13, 15]
    assert [int(row["train/samples"]) for row in found] == [8, 16, 24, 32, 40, 48, 56, 64]
    assert all(float(row["train/device/flops_per_sec"]) > 0 for row in found)
    assert [int(row["step"]) for row in rows(tmp_path) if row.get("validate/samples")] == [2, 4, 6, 8, 10, 12, 14, 16]


def test_numbers_of_the_machine_are_in_the_rows(tmp_path: Path) -> None:
    fit(tmp_path, DeviceStatsMonitor())
    key = "DeviceStatsMonitor.on_train_batch_end/cpu_vm_percent"
    assert [int(row["step"]) for row in rows(tmp_path) if row.get(key)] == [1, 3, 5, 7]


def test_the_collector_is_off_in_fit_and_on_again_after_it(tmp_path: Path) -> None:
    seen = []
    fit(tmp_path, GarbageCollection(3), LambdaCallback(on_train_batch_end=lambda *args: seen.append(gc.isenabled())))
    assert not any(seen)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_loss_that_is_not_finite_ends_the_run_with_the_next_row(tmp_path: Path) -> None:
    batches = []
    watch = LambdaCallback(on_train_batch_end=lambda *args: batches.append(args[-1]))
    with pytest.raises(NonFiniteError, match="in 1 of the last 4 times, first in training batch 5 "):
        fit(tmp_path, watch, NonFiniteGuard(), net=Net([1, 1, 1, 1, 1, float("nan"), 1, 1]), log_every_n_steps=4)
    assert batches[-1] == 7


def test_gradients_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="the norm of the gradients"):
        fit(tmp_path, NonFiniteGuard(check="grads"), net=Net(slopes=[1, float("inf")]), log_every_n_steps=1)


def test_a_spike_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingSpikeException, match="batch 6"):
        fit(tmp_path, SpikeDetection(exclude_batches_path=tmp_path), net=Net([1, 1, 1, 1, 1, 1, 90]))
    assert (tmp_path / "skip_batches.json").exists()


def test_each_epoch_accumulates_as_scheduled(tmp_path: Path) -> None:
    steps = []
    watch = LambdaCallback(on_train_epoch_end=lambda trainer, module: steps.append(trainer.global_step))
    fit(tmp_path, watch, GradientAccumulationScheduler({0: 8, 1: 4, 2: 1}), max_epochs=4)
    assert steps == [1, 3, 11, 19]
