"""A small classifier of handwritten digits. Every argument of `__init__` is an option of the command line."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leyden.trainer import LightningModule


class Classifier(LightningModule):
    """Two layers.

    Args:
        width: Units of the hidden layer.
        num_classes: How many digits there are; the data module knows.
        activation: What stands between the layers.
    """

    def __init__(self, width: int = 32, num_classes: int = 10, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, width), activation or nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.net(x_BF)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x_BF, y_B = batch
        loss = F.cross_entropy(self(x_BF), y_B)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x_BF, y_B = batch
        self.log("val/accuracy", (self(x_BF).argmax(1) == y_B).float().mean(), prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x_BF, y_B = batch
        self.log("test/accuracy", (self(x_BF).argmax(1) == y_B).float().mean())

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0]).argmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)
