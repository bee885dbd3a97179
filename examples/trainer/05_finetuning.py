"""Fine-tuning with a frozen backbone: learn 0-4 first, then 5-9 on top of what was learnt.

    python examples/trainer/05_finetuning.py

`BackboneFinetuning` freezes `module.backbone`, lets the head learn alone, and lets the backbone join later with a smaller learning
rate. A checkpoint knows who trained, so a resumed run goes on the same way.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import Callback, LightningModule, Trainer, seed_everything
from leyden.trainer.callbacks import BackboneFinetuning
from leyden.trainer.loggers import CSVLogger

Batch = tuple[Tensor, Tensor]


class Half(LightningModule):
    """Tells five digits apart: a backbone that sees, a head that names."""

    def __init__(self, lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 5)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss = F.cross_entropy(self.head(self.backbone(batch[0])), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy."""
        found = self.head(self.backbone(batch[0])).argmax(1)
        self.log("val/accuracy", (found == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over what trains now; the callback adds the backbone later."""
        return torch.optim.Adam([parameter for parameter in self.parameters() if parameter.requires_grad], lr=self.hparams.lr)


class WhoTrains(Callback):
    """Writes down how many parameters train in each epoch."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count them."""
        self.counts.append(sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad))


def loaders(first: int) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Return loaders of the five digits from `first` on, named 0 to 4."""
    images, labels = load_digits(return_X_y=True)
    chosen = (labels >= first) & (labels < first + 5)
    x, y = torch.tensor(images[chosen] / 16, dtype=torch.float32), torch.tensor(labels[chosen] - first)
    train, val = TensorDataset(x[:650], y[:650]), TensorDataset(x[650:], y[650:])
    return DataLoader(train, batch_size=50, shuffle=True, drop_last=True), DataLoader(val, batch_size=300)


def main(args: argparse.Namespace) -> tuple[float, list[int]]:
    """Train twice; return the last accuracy, and how many parameters trained in each epoch of the second."""
    seed_everything(7, verbose=False)
    common = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 5, "enable_checkpointing": False}
    first = Trainer(max_epochs=args.epochs, logger=CSVLogger(args.out, name="finetuning"), **common)
    model = Half()
    first.fit(model, *loaders(0))

    model.head = nn.Linear(32, 5)  # new names for new digits
    unfreeze_at = args.epochs // 2
    who = WhoTrains()
    callbacks = [BackboneFinetuning(unfreeze_backbone_at_epoch=unfreeze_at, backbone_initial_ratio_lr=0.1), who]
    second = Trainer(max_epochs=args.epochs, callbacks=callbacks, logger=CSVLogger(args.out, name="finetuning"), **common)
    second.fit(model, *loaders(5))
    accuracy = second.callback_metrics["val/accuracy"].item()
    print(f"digits 5 to 9: accuracy {accuracy:.3f}; parameters that trained in each epoch: {who.counts}")
    return accuracy, who.counts


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", default="runs/trainer")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
