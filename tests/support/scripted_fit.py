"""A fit whose metrics are written beforehand: what callbacks make of them is then known."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from leyden.fabric.checkpoint import read
from leyden.trainer.core.module import LightningModule
from leyden.trainer.trainer.trainer import Trainer


class Scripted(LightningModule):
    """Trains one weight.

    Args:
        losses: What each validation logs as `val_loss`, in order; the last one stays.
        fails_at: The step at which training raises.
        failure: What it raises.
    """

    def __init__(self, losses: list[float] | None = None, fails_at: int = -1, failure: BaseException | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.losses = losses or [1.0]
        self.fails_at = fails_at
        self.failure = failure or RuntimeError("the step fails")
        self.validations = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == self.fails_at:
            raise self.failure
        loss = self.layer(batch[0]).square().mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if not self.trainer.sanity_checking and batch_idx == 0:
            self.log("val_loss", torch.tensor(self.losses[min(self.validations, len(self.losses) - 1)]))
            self.validations += 1

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def loader(batches: int = 4) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.ones(2 * batches, 4)), batch_size=2)


def trainer_for(root: Path, *callbacks: Any, **options: Any) -> Trainer:
    """Return a quiet trainer: CPU, no bar, no summary, no logger."""
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(default_root_dir=root, callbacks=list(callbacks), **{**quiet, "max_epochs": 3, "log_every_n_steps": 1, **options})


def fit(
    root: Path, *callbacks: Any, module: Scripted | None = None, ckpt_path: Any = None, validates: bool = True, **options: Any
) -> Trainer:
    """Fit, four batches an epoch, and return the trainer."""
    trainer = trainer_for(root, *callbacks, **options)
    trainer.fit(module or Scripted(), loader(), loader(1) if validates else None, ckpt_path=ckpt_path)
    return trainer


def names_in(directory: Path) -> list[str]:
    """Return the names of all files below a directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir() or path.is_symlink())


def step_of(path: str | Path) -> int:
    """Return the step that a checkpoint was written at."""
    return int(read(path)["global_step"])
