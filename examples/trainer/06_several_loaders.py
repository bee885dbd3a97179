"""Several loaders: train on two sources at once, validate on two sets that are reported apart.

    python examples/trainer/06_several_loaders.py

Training takes a dictionary of loaders: a batch is a dictionary of their batches, and the shorter one starts again
(`max_size_cycle`). Validation takes a list: one after the other, and `dataloader_idx` says which.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import LightningModule, Trainer, seed_everything
from leyden.trainer.loggers import CSVLogger

Batch = tuple[Tensor, Tensor]
NOISE = 0.4


class TwoSources(LightningModule):
    """Learns from clean and from noisy images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Return the sum of both losses."""
        losses = {name: F.cross_entropy(self.net(images), labels) for name, (images, labels) in batch.items()}
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()}, prog_bar=True, batch_size=len(batch["clean"][0]))
        return losses["clean"] + losses["noisy"]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log an accuracy per loader, named by us; by default names would end in /dataloader_idx_0."""
        found = self.net(batch[0]).argmax(1)
        name = ("clean", "noisy")[dataloader_idx]
        self.log(f"val/{name}", (found == batch[1]).float().mean(), add_dataloader_idx=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def data() -> tuple[dict[str, DataLoader[Batch]], list[DataLoader[Batch]]]:
    """Return a dictionary of loaders to train on, and a list to validate on."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    noisy = x + NOISE * torch.randn_like(x)
    train = {
        "clean": DataLoader(TensorDataset(x[:1000], y[:1000]), batch_size=50, shuffle=True),
        "noisy": DataLoader(TensorDataset(noisy[1000:1400], y[1000:1400]), batch_size=50, shuffle=True),
    }
    return train, [DataLoader(TensorDataset(part[1400:], y[1400:]), batch_size=200) for part in (x, noisy)]


def main(args: argparse.Namespace) -> list[dict[str, float]]:
    """Train, and return what each validation loader gives."""
    seed_everything(7, verbose=False)
    train, val = data()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=args.epochs,
        logger=CSVLogger(args.out, name="loaders"),
        log_every_n_steps=10,
        enable_checkpointing=False,
    )
    model = TwoSources()
    trainer.fit(model, train, val)
    return trainer.validate(model, val)


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", default="runs/trainer")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
