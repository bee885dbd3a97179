"""A small classifier of handwritten digits. Every argument of `__init__` is an option of the command line.

There is no `configure_optimizers`: the command line builds the optimizer that `--optimizer` or config.yaml names.
"""

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
        accuracy = (self(x_BF).argmax(1) == y_B).float().mean()
        self.log("val/accuracy", accuracy, prog_bar=True, sync_dist=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x_BF, y_B = batch
        self.log("test/accuracy", (self(x_BF).argmax(1) == y_B).float().mean(), sync_dist=True)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0]).argmax(1)
