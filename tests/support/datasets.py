"""Datasets for tests of loaders: what they return tells which sample it was and which random numbers it saw."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info


class NoisyDataset(Dataset[tuple[int, float, float, float]]):
    """Sample i is `(i, noise, noise, noise)`, drawn from torch's, `random`'s and numpy's global generators."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.reads = 0
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        self.reads += 1
        return index, torch.rand(()).item(), random.random(), float(np.random.rand())

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class EpochDataset(Dataset[int]):
    """Every sample is the epoch that the dataset was told last, in whichever process it lives."""

    epoch = -1

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return self.epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class BatchedDataset(NoisyDataset):
    """The same, fetched a batch at a time."""

    def __getitems__(self, indices: list[int]) -> list[tuple[int, float, float, float]]:
        noise = torch.rand(len(indices)).tolist()
        return [(index, value, 0.0, 0.0) for index, value in zip(indices, noise, strict=True)]


class NoisyStream(IterableDataset[tuple[int, float]]):
    """An iterable that keeps no state: numbers in order, with noise; workers take turns."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[tuple[int, float]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(first, self.length, step):
            yield number, torch.rand(()).item()


class StatefulStream(NoisyStream):
    """The same, with a state."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.next = 0
        self.reads = 0
        self.placement: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[tuple[int, float]]:
        start, self.next = self.next, 0
        for number in range(start, self.length):
            self.reads += 1
            self.next = number + 1
            yield number, torch.rand(()).item()
        self.next = 0

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]

    def set_placement(self, rank: int, world_size: int) -> None:
        self.placement = (rank, world_size)


class StatefulLoader:
    """A loader that is no `DataLoader`: batches of numbers, and a state that any rank may load."""

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self.next = 0
        self.placement: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[torch.Tensor]:
        start, self.next = self.next, 0
        for number in range(start, self.num_batches):
            self.next = number + 1
            yield torch.tensor([number]) + torch.rand(1)
        self.next = 0

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next, "rank_invariant": True}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]

    def set_placement(self, rank: int, world_size: int) -> None:
        self.placement = (rank, world_size)
