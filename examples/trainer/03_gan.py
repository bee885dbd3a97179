"""A GAN: two optimizers, stepped by hand (manual optimisation), on points of a ring instead of images.

    python examples/trainer/03_gan.py

With `automatic_optimization = False` the loop calls `training_step` and nothing else: backward, steps and their order are the
module's. Clipping, accumulation and schedules are then a line where you want them.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.trainer import LightningModule, Trainer, seed_everything
from leyden.trainer.loggers import CSVLogger


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Return a small network."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, outputs))


class RingGAN(LightningModule):
    """A generator learns to make points that a discriminator cannot tell from those of the ring."""

    def __init__(self, noise: int = 4, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator, self.discriminator = network(noise, 2), network(2, 1)

    def forward(self, count: int) -> Tensor:
        """Return points made of noise."""
        return self.generator(torch.randn(count, self.hparams.noise, device=self.device))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Teach the discriminator, then the generator."""
        (real,) = batch
        of_generator, of_discriminator = self.optimizers()

        with self.toggled_optimizer(of_discriminator):
            loss = self.real_or_not(real, real=True) + self.real_or_not(self(len(real)).detach(), real=False)
            self.log("discriminator", loss, prog_bar=True)
            self.manual_backward(loss)
            of_discriminator.step()
            of_discriminator.zero_grad()

        with self.toggled_optimizer(of_generator):  # no gradients for the discriminator's weights
            loss = self.real_or_not(self(len(real)), real=True)
            self.log("generator", loss, prog_bar=True)
            self.manual_backward(loss)
            self.clip_gradients(of_generator, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
            of_generator.step()
            of_generator.zero_grad()

    def on_train_epoch_end(self) -> None:
        """Step both schedules, and log how far from the ring the points lie."""
        for scheduler in self.lr_schedulers():
            scheduler.step()
        self.log("distance", self.distance(), prog_bar=True)

    def real_or_not(self, points: Tensor, *, real: bool) -> Tensor:
        """Return the discriminator's loss where the points should count as real, or not."""
        logits = self.discriminator(points)
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    @torch.no_grad()
    def distance(self) -> Tensor:
        """Return the mean distance of 500 generated points from the ring."""
        return (self(500).norm(dim=1) - 1).abs().mean()

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
        """Return an optimizer and a schedule for each network."""
        parts = (self.generator, self.discriminator)
        optimizers = [torch.optim.Adam(part.parameters(), lr=self.hparams.lr, betas=(0.5, 0.9)) for part in parts]
        return list(optimizers), [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98) for optimizer in optimizers]


def ring(count: int = 4000) -> TensorDataset:
    """Return points near the unit circle."""
    angles = torch.rand(count) * 2 * torch.pi
    return TensorDataset(torch.stack([angles.cos(), angles.sin()], dim=1) + 0.02 * torch.randn(count, 2))


def main(args: argparse.Namespace) -> tuple[float, float]:
    """Train, and return the distance from the ring before and after."""
    seed_everything(7, verbose=False)
    model = RingGAN()
    before = model.distance().item()
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=args.epochs, logger=CSVLogger(args.out, name="gan"), log_every_n_steps=10)
    trainer.fit(model, DataLoader(ring(), batch_size=100, shuffle=True))
    after = model.distance().item()
    print(f"distance from the ring: {before:.3f} before, {after:.3f} after {trainer.global_step} batches")
    return before, after


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", default="runs/trainer")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
