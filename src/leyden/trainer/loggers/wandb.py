"""The Weights & Biases logger at its documented path."""

from leyden.fabric.loggers.wandb import WandbLogger

__all__ = ["WandbLogger"]
