"""Callbacks on one GPU: they do not wait for it between rows, and see its numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric.loggers import CSVLogger
from leyden.trainer import Callback, LightningModule, Trainer
from leyden.trainer.callbacks import (
    DeviceStatsMonitor,
    EMAWeightAveraging,
    GarbageCollection,
    HangWatchdog,
    NonFiniteGuard,
    ThroughputMonitor,
    WeightAveraging,
)
from leyden.trainer.callbacks.non_finite_guard import NonFiniteError
from tests.support.gpu import REHEARSES, needs_gpu

pytestmark = [needs_gpu, pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")]
ACCELERATOR = "cpu" if REHEARSES else "gpu"


class Net(LightningModule):
    def __init__(self, bad_at: int = -1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 1))
        self.bad_at = bad_at
        self.flops_per_batch = 100

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.net(batch[0]).square().mean()
        return loss * float("nan") if self.bad_at == batch_idx else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class NoWaiting(Callback):
    """Makes every wait for the device an error, between two batches well away from a row."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx in (3, 12) and not REHEARSES:
            torch.cuda.set_sync_debug_mode("error" if batch_idx == 3 else "default")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if not REHEARSES:
            torch.cuda.set_sync_debug_mode("default")


def fit(root: Path, *callbacks: Callback, net: Net | None = None, **options: Any) -> Net:
    torch.manual_seed(0)
    net = net or Net()
    data = TensorDataset(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)))
    loader = DataLoader(data, batch_size=4, pin_memory=not REHEARSES)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    quiet |= {"max_epochs": 1, "log_every_n_steps": 15, "logger": CSVLogger(root, name="", version="")}
    trainer = Trainer(default_root_dir=root, accelerator=ACCELERATOR, devices=1, callbacks=list(callbacks), **(quiet | options))
    trainer.fit(net, loader)
    return net


def test_nobody_waits_for_the_device_between_rows(tmp_path: Path) -> None:
    watching = [NonFiniteGuard(), NonFiniteGuard(check="grads"), GarbageCollection(5), HangWatchdog(60)]
    rates = ThroughputMonitor(lambda batch: len(batch[0]), window_size=4, using_sparse_model=False)
    fit(tmp_path, NoWaiting(), EMAWeightAveraging(decay=0.9), *watching, rates)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_an_average_on_the_host_is_that_on_the_device(tmp_path: Path, device: str | None) -> None:
    expected = fit(tmp_path, WeightAveraging()).state_dict()
    for name, value in fit(tmp_path, WeightAveraging(device=device)).state_dict().items():
        torch.testing.assert_close(value, expected[name])
        assert value.device == expected[name].device


def test_a_bad_loss_on_the_device_is_found_with_the_row(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="first in training batch 6 "):
        fit(tmp_path, NoWaiting(), NonFiniteGuard(), net=Net(bad_at=6))


def test_the_allocators_numbers_are_logged_under_their_names(tmp_path: Path) -> None:
    fit(tmp_path, DeviceStatsMonitor(cpu_stats=True), log_every_n_steps=8)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert "DeviceStatsMonitor.on_train_batch_end/cpu_percent" in header
    assert REHEARSES or "DeviceStatsMonitor.on_train_batch_end/allocated_bytes.all.current" in header
