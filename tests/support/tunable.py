"""A small problem with everything that a trial could leave a trace in: what finders are tested on."""

from pathlib import Path
from typing import Any

import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import LightningDataModule, LightningModule, Trainer

WEIGHTS = torch.tensor([[1.0], [-2.0], [0.5], [3.0]])


def dataset(samples: int = 64) -> TensorDataset:
    """Return points on a plane."""
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x @ WEIGHTS)


class Tunable(LightningModule):
    """Dropout, a batch norm, a buffer that no state dict holds, a metric object, a schedule, and memory for so many samples.

    Args:
        lr: Of Adam.
        batch_size: Of the loaders.
        memory: The largest batch that "fits".
        optimizer: The optimizer's name.
    """

    def __init__(self, lr: float = 0.01, batch_size: int = 8, memory: int = 1000, optimizer: str = "Adam") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))
        self.metric = torchmetrics.MeanMetric()
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.sizes: list[int] = []
        self.data = dataset()

    def loss(self, batch: Any) -> Tensor:
        self.sizes.append(len(batch[0]))
        if len(batch[0]) > self.hparams.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen += 1
        loss = self.loss(batch)
        self.metric.update(loss.detach())
        self.log("metric", self.metric)
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test", self.loss(batch))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.loss(batch)
        return self.net(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = getattr(torch.optim, self.hparams.optimizer)(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def loader(self, *, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(self.data, batch_size=self.hparams.batch_size, shuffle=shuffle)

    def train_dataloader(self) -> Any:
        return self.loader(shuffle=True)

    def val_dataloader(self) -> Any:
        return self.loader()

    def test_dataloader(self) -> Any:
        return self.loader()

    def predict_dataloader(self) -> Any:
        return self.loader()


class TunableData(LightningDataModule):
    """The loaders apart from the module, with a batch size of their own."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> Any:
        return DataLoader(dataset(), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(dataset(), batch_size=self.batch_size)


def fresh(**options: Any) -> Tunable:
    """Return the same module each time, with the process's generators at the same place."""
    torch.manual_seed(5)
    return Tunable(**options)


def trainer_for(root: Path, *callbacks: Any, **options: Any) -> Trainer:
    """Return a quiet trainer for two epochs."""
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(default_root_dir=root, callbacks=list(callbacks), **{**quiet, "logger": False, "max_epochs": 2, **options})
