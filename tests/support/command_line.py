"""A module and a data module with arguments, and `LightningCLI` run as if from a shell."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from leyden.trainer import LightningModule
from leyden.trainer.cli import LightningCLI
from leyden.trainer.demos.boring_classes import BoringDataModule

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
FAST = ("--trainer.fast_dev_run=1", *QUIET)
PREDICT = (
    "--trainer.max_epochs=1",
    "--trainer.limit_predict_batches=1",
    "--trainer.logger=CSVLogger",
    "--trainer.logger.save_dir=predictions",
    *QUIET,
)
SHORT = (
    "--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.log_every_n_steps=1",
    "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", *QUIET,
)  # fmt: skip


class SmallNet(LightningModule):
    """A layer of a width, and perhaps an activation."""

    def __init__(self, width: int = 4, batch_size: int = 8, act: nn.Module | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.width, self.batch_size, self.act = width, batch_size, act
        self.layer = nn.Linear(32, width)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layer(batch).sum())

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.layer(batch).sum())

    def predict_step(self, batch, batch_idx):
        return self.layer(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SmallNetWithoutOptimizer(SmallNet):
    configure_optimizers = LightningModule.configure_optimizers


class Noise(BoringDataModule):
    """Noise, with arguments that a module may want to know."""

    def __init__(self, batch_size: int = 8, num_classes: int = 3) -> None:
        super().__init__()
        self.batch_size, self.num_classes = batch_size, num_classes


def command(words: "list[str] | tuple[str, ...]", *args: Any, cli: Any = LightningCLI, **kwargs: Any) -> Any:
    """Return the command line object that a program of these words makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["main.py", *words])
        return cli(*args, **kwargs)
