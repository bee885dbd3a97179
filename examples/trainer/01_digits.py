"""A classifier of scikit-learn's digits: fit, test, load the best checkpoint, predict.

    python examples/trainer/01_digits.py
    python examples/trainer/01_digits.py --epochs 30 --out runs/mine

The module holds what is research: the network, its loss, its optimizer. Everything else is an argument of `Trainer`.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import LightningModule, Trainer, seed_everything
from leyden.trainer.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from leyden.trainer.loggers import CSVLogger

Batch = tuple[Tensor, Tensor]


class Digits(LightningModule):
    """Two layers on 64 pixels."""

    def __init__(self, width: int = 64, lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.net(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy; they are averaged over the epoch."""
        self.evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the same for images never seen before."""
        self.evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the digit of each image."""
        return self(batch[0]).argmax(1)

    def evaluate(self, stage: str, batch: Batch) -> None:
        """Log loss and accuracy of a batch under the stage's name."""
        images, labels = batch
        logits = self(images)
        self.log(f"{stage}/loss", F.cross_entropy(logits, labels))
        self.log(f"{stage}/accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict[str, object]:
        """Return AdamW with a learning rate that falls along a cosine, step by step."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def loaders() -> tuple[DataLoader[Batch], DataLoader[Batch], DataLoader[Batch]]:
    """Return the loaders for training, validation and test."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    train, val, test = (TensorDataset(x[part], y[part]) for part in (slice(1200), slice(1200, 1500), slice(1500, None)))
    return DataLoader(train, batch_size=60, shuffle=True), DataLoader(val, batch_size=100), DataLoader(test, batch_size=100)


def main(args: argparse.Namespace) -> dict[str, float]:
    """Train, then test the epoch that was best in validation; return its metrics."""
    seed_everything(7, verbose=False)
    train, val, test = loaders()
    best = ModelCheckpoint(monitor="val/accuracy", mode="max", save_last=True)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=args.epochs,
        log_every_n_steps=5,
        callbacks=[best, EarlyStopping("val/loss", patience=3), LearningRateMonitor()],
        logger=CSVLogger(args.out, name="digits"),
    )
    trainer.fit(Digits(), train, val)
    (metrics,) = trainer.test(dataloaders=test, ckpt_path="best")

    model = Digits.load_from_checkpoint(best.best_model_path)  # the width comes from the file
    predicted = torch.cat(trainer.predict(model, test))
    print(f"the first ten digits of the test: {predicted[:10].tolist()}; {best.best_model_path}")
    return metrics


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", default="runs/trainer")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
