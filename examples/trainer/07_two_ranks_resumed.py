"""The digits on two processes, killed with -9 and resumed: it ends bit for bit where an unbroken run ends.

    python examples/trainer/07_two_ranks_resumed.py --name unbroken
    python examples/trainer/07_two_ranks_resumed.py --name killed          # kill -9 it
    python examples/trainer/07_two_ranks_resumed.py --name killed --resume

Nothing in the module knows of ranks, except that `sync_dist=True` reduces what is logged over them. Checkpoints are written every
ten steps, wherever in an epoch that is, and hold the position in the data, random numbers and running averages too.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import LightningModule, Trainer, seed_everything
from leyden.trainer.callbacks import ModelCheckpoint, PlainProgressBar
from leyden.trainer.loggers import CSVLogger

Batch = tuple[Tensor, Tensor]


class Digits(LightningModule):
    """With dropout: a resumed run must draw the masks that the unbroken one draws."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss; log its mean over ranks for each step, and over the epoch."""
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy over all ranks."""
        self.log("accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> dict[str, object]:
        """Return AdamW with a schedule, whose state is in checkpoints too."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}


def main(args: argparse.Namespace) -> None:
    """Train; rows go to `<out>/<name>/metrics.csv`, checkpoints beside them."""
    seed_everything(7, verbose=False)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    folder = Path(args.out) / args.name
    trainer = Trainer(
        accelerator="cpu",
        devices=args.devices,
        strategy=args.strategy,
        max_epochs=args.epochs,
        log_every_n_steps=1,
        callbacks=[ModelCheckpoint(folder, every_n_train_steps=10, save_last=True, enable_version_counter=False), PlainProgressBar()],
        logger=CSVLogger(args.out, name="", version=args.name, resume=args.resume),
        enable_model_summary=False,
    )
    batch_size = 60 // trainer.world_size  # 60 on all ranks together, so that any number of them takes the same steps
    train = DataLoader(TensorDataset(x[:1500], y[:1500]), batch_size=batch_size, shuffle=True)
    val = DataLoader(TensorDataset(x[1500:], y[1500:]), batch_size=100)
    model = Digits()
    trainer.fit(model, train, val, ckpt_path="last" if args.resume else None)
    accuracy = trainer.callback_metrics["accuracy"].item()
    trainer.print(f"{trainer.world_size} ranks, {trainer.global_step} steps: accuracy {accuracy:.3f}")


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--strategy", default="ddp")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", default="runs/trainer")
    parser.add_argument("--name", default="two_ranks")
    parser.add_argument("--resume", action="store_true")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
