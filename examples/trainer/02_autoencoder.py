"""An autoencoder of the digits: 64 pixels through 8 numbers and back. The module is a whole system, not one network.

    python examples/trainer/02_autoencoder.py

A callback of one's own writes reconstructions after every epoch, and the encoder is used alone in the end.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from leyden.trainer.loggers import CSVLogger


class DigitImages(LightningDataModule):
    """The images, without labels: 1,500 to learn from, 297 to look at."""

    def __init__(self, batch_size: int = 50) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Cut the data in two; runs on every rank."""
        pixels = torch.tensor(load_digits().data / 16, dtype=torch.float32)
        self.train, self.held_out = TensorDataset(pixels[:1500]), TensorDataset(pixels[1500:])

    def train_dataloader(self) -> DataLoader[tuple[Tensor]]:
        """Return shuffled batches."""
        return DataLoader(self.train, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor]]:
        """Return the held-out images in one batch."""
        return DataLoader(self.held_out, batch_size=300)


class Autoencoder(LightningModule):
    """An encoder and a decoder, trained together."""

    def __init__(self, code: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, code))
        self.decoder = nn.Sequential(nn.Linear(code, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid())

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the code of images."""
        return self.encoder(pixels)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the mean squared error of the reconstruction."""
        (pixels,) = batch
        loss = F.mse_loss(self.decoder(self(pixels)), pixels)
        self.log("train/error", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the error on images never seen."""
        (pixels,) = batch
        self.log("val/error", F.mse_loss(self.decoder(self(pixels)), pixels), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over both networks."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


class Reconstructions(Callback):
    """Writes the first eight held-out images above what became of them, as a PGM picture that any viewer opens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, except while Trainer only tries validation out."""
        if trainer.sanity_checking:
            return
        pixels = trainer.datamodule.held_out.tensors[0][:8]
        with torch.no_grad():
            rows = [pixels, pl_module.decoder(pl_module.encoder(pixels))]
        picture = torch.cat([row.view(8, 8, 8).permute(1, 0, 2).reshape(8, 64) for row in rows])
        self.folder.mkdir(parents=True, exist_ok=True)
        header = b"P5 64 16 255\n"
        (self.folder / f"epoch-{trainer.current_epoch:02}.pgm").write_bytes(header + (picture * 255).byte().numpy().tobytes())


def main(args: argparse.Namespace) -> float:
    """Train, and return the error on held-out images."""
    seed_everything(7, verbose=False)
    folder = Path(args.out) / "autoencoder" / "pictures"
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=args.epochs,
        callbacks=[Reconstructions(folder)],
        logger=CSVLogger(args.out, name="autoencoder"),
        log_every_n_steps=10,
    )
    model, data = Autoencoder(), DigitImages()
    trainer.fit(model, datamodule=data)
    error = trainer.callback_metrics["val/error"].item()
    with torch.no_grad():
        codes = model(data.held_out.tensors[0])
    blank = data.held_out.tensors[0].var(0).mean().item()
    print(f"error {error:.4f} (always drawing the mean image: {blank:.4f}) with codes of {codes.shape[1]} numbers; {folder}")
    return error


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", default="runs/trainer")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
