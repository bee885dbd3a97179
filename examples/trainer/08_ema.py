"""An exponential moving average of the weights: validated with the average, trained without it.

    python examples/trainer/08_ema.py

A learning rate far too large and no schedule: the weights jump about, and their average does not. `EMAWeightAveraging` swaps the
average in for every validation, and leaves it in the module at the end. In a checkpoint `state_dict` is the average, so
`load_from_checkpoint` gives that.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import Callback, LightningModule, Trainer, seed_everything
from leyden.trainer.callbacks import EMAWeightAveraging, ModelCheckpoint
from leyden.trainer.loggers import CSVLogger

Batch = tuple[Tensor, Tensor]


class Digits(LightningModule):
    """Trains with steps that are too large."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss."""
        self.log("val/loss", F.cross_entropy(self.net(batch[0]), batch[1]), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


def main(args: argparse.Namespace) -> tuple[float, float]:
    """Train once without and once with the average; return both validation losses."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    losses = []
    for name, callbacks in {"plain": list[Callback](), "average": [EMAWeightAveraging(decay=0.95)]}.items():
        seed_everything(7, verbose=False)
        saver = ModelCheckpoint()
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=args.epochs,
            callbacks=[*callbacks, saver],
            logger=CSVLogger(args.out, name=f"ema_{name}"),
            log_every_n_steps=10,
            enable_model_summary=False,
        )
        train = DataLoader(TensorDataset(x[:1000], y[:1000]), batch_size=20, shuffle=True)
        val = DataLoader(TensorDataset(x[1000:], y[1000:]), batch_size=400)
        trainer.fit(Digits(), train, val)
        (metrics,) = trainer.validate(Digits.load_from_checkpoint(saver.best_model_path), val, verbose=False)
        losses.append(metrics["val/loss"])
    print(f"validation loss: {losses[0]:.3f} of the last weights, {losses[1]:.3f} of their average")
    return losses[0], losses[1]


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", default="runs/trainer")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
