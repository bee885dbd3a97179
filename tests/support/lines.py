"""A module that fits a line and notes its samples, for fits on several ranks."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from leyden.trainer.core.module import LightningModule
from leyden.trainer.trainer.trainer import Trainer


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Sample i is its number and four values that depend on it."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor(index), torch.sin(torch.arange(4) + index)


class Line(LightningModule):
    """A small network, so that gradients differ; `samples` is stage → the numbers of the samples seen, in order."""

    def __init__(self, width: int = 8, batch_norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(7)
        norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.net = nn.Sequential(nn.Linear(4, width), norm, nn.Tanh(), nn.Linear(width, 1))
        self.samples: dict[str, list[int]] = {}

    def forward(self, batch: Any) -> Tensor:
        return self.net(batch[1])

    def loss(self, stage: str, batch: Any) -> Tensor:
        self.samples.setdefault(stage, []).extend(batch[0].tolist())
        return (self.net(batch[1]) - batch[0][:, None] / 10).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss("train", batch)
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss("val", batch), sync_dist=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss("test", batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def points(length: int = 16, batch_size: int = 2, **options: Any) -> DataLoader[Any]:
    """Return a loader of that many samples."""
    return DataLoader(Points(length), batch_size=batch_size, **options)


def quiet_trainer(root: Path, **options: Any) -> Trainer:
    """Return a trainer on CPUs without bar, summary, logger or checkpoints, for two epochs."""
    off = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
    if options.get("callbacks"):
        off.pop("enable_checkpointing")
    arguments: dict[str, Any] = {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 2, **off, **options}
    return Trainer(default_root_dir=root, **arguments)


def weights_of(module: nn.Module) -> list[float]:
    """Return all weights as numbers."""
    return [number for value in module.state_dict().values() for number in value.double().flatten().tolist()]
