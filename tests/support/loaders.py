"""Loaders of every rank in one process, and what they deliver."""

from typing import Any

from torch.utils.data import DataLoader

from leyden.fabric import rng
from leyden.fabric.loading.loader import FabricDataLoader, wrap_loader
from leyden.fabric.loading.sharding import Placement


def loaders(loader: DataLoader[Any], world: int, **kwargs: Any) -> list[FabricDataLoader]:
    return [wrap_loader(loader, Placement(rank=rank, num_replicas=world), **kwargs) for rank in range(world)]


def numbers(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch]


def seeded(seed: int = 1) -> None:
    rng.seed_everything(seed, verbose=False)
