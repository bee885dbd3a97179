"""Samplers that every rank can compute alone: same order everywhere, each rank its own share of it.

Rank r of W takes entries r, r+W, r+2W, … of one global order. So global batch k holds the same samples at every world
size that has the same global batch size, and a position in the epoch is one number that all world sizes understand.
"""

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DistributedSampler

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric import rng


class EpochSampler(DistributedSampler[int]):
    """torch's `DistributedSampler` order, computed from a length, that can start anywhere in an epoch.

    The order of an epoch is `range(length)`, or `randperm` of a generator seeded with `seed + epoch`. `len()` is always
    that of a whole epoch, also where `start` cuts its beginning off.

    Args:
        length: The number of samples, or the dataset.
        shuffle: Whether to permute, anew in each epoch.
        seed: The permutation's seed.
        epoch: Which epoch comes next; `set_epoch` changes it.
        rank: Which share this one yields.
        num_replicas: The number of shares.
        drop_last: Drop the tail that does not divide evenly, instead of repeating samples from the front.
        start: The **global** position in the epoch to start from.
        pad: With `False` and not `drop_last`, shares may differ by one sample and nothing is repeated.

    Raises:
        ConfigError: `rank` is not one of `num_replicas`, or a number is negative.

    Example:
        >>> list(EpochSampler(5, shuffle=False, rank=1, num_replicas=2))
        [1, 3, 0]
    """

    def __init__(  # noqa: PLR0913 - plain data, most of it torch's own arguments
        self,
        length: int | Sized,
        shuffle: bool = True,  # noqa: FBT001, FBT002 - as in torch's sampler
        seed: int = 0,
        epoch: int = 0,
        *,
        rank: int = 0,
        num_replicas: int = 1,
        drop_last: bool = False,
        start: int = 0,
        pad: bool = True,
    ) -> None:
        length = length if isinstance(length, int) else len(length)
        _check_placement(rank, num_replicas)
        if min(length, start, epoch) < 0:
            raise ConfigError(f"length={length}, start={start}, epoch={epoch}: none of them can be negative.")
        entries: Any = range(length)  # all that torch's class asks of a dataset is its length
        super().__init__(entries, num_replicas, rank, shuffle, seed, drop_last)
        self.length = length
        self.epoch = epoch
        self.start = start
        self.pad = pad
        self.passes = 0
        self.num_samples = _share(length, 0, self)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        first, step = self.start + self.rank, self.num_replicas
        wanted = _share(self.length, self.start, self)
        if self.shuffle:
            generator = torch.Generator()
            generator.manual_seed(self.seed + self.epoch)
            order = torch.randperm(self.length, generator=generator)
            mine: Any = order[first::step][:wanted].tolist()
        else:
            order = mine = range(self.length)
            mine = mine[first::step][:wanted]
        if len(mine) == wanted:
            return iter(mine)
        # Where the order ends it begins again: this rank's next entries lie `step` apart beyond the end.
        beyond = range(first + len(mine) * step, first + wanted * step, step)
        return iter([*mine, *(int(order[position % self.length]) for position in beyond)])


class DistributedSamplerWrapper(DistributedSampler[Any]):
    """Share out what another sampler yields: rank r takes every W-th entry.

    All ranks must see one order. So the inner sampler is drawn whole, at the start of an epoch, under generators
    that are seeded for this epoch, whatever the process did with its own before; these are untouched.

    Args:
        sampler: The sampler to share out; it needs a length.
        num_replicas: The number of shares.
        rank: Which share this one yields.
        seed: What the inner sampler's draws are derived from, together with the epoch.
        drop_last: Drop the tail that does not divide evenly, instead of repeating samples from the front.
        pad: With `False` and not `drop_last`, shares may differ by one sample and nothing is repeated.

    Raises:
        ConfigTypeError: The sampler has no length, or goes on after it.
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        num_replicas: int = 1,
        rank: int = 0,
        *,
        seed: int = 0,
        drop_last: bool = False,
        pad: bool = True,
    ) -> None:
        _check_placement(rank, num_replicas)
        length = _sized(sampler)
        entries: Any = range(length)  # all that torch's class asks of a dataset is its length
        super().__init__(entries, num_replicas, rank, shuffle=False, seed=seed, drop_last=drop_last)
        self.sampler = sampler
        self.pad = pad
        self.passes = 0
        self.num_samples = _share(length, 0, self)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        length = _sized(self.sampler)
        with rng.isolate_rng(include_cuda=False):
            rng.seed_stream(rng.fold(self.seed, "sampler", self.epoch))
            entries = list(islice(self.sampler, length + 1))
        if len(entries) > length:
            raise ConfigTypeError(f"{type(self.sampler).__name__} has length {length} but goes on after that. {_REMEDIES}")
        wanted = _share(len(entries), 0, self)
        return iter(
            [entries[position % len(entries)] for position in range(self.rank, self.rank + wanted * self.num_replicas, self.num_replicas)]
        )

    def __len__(self) -> int:
        return _share(_sized(self.sampler), 0, self)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch here and on the inner sampler, if it knows epochs."""
        super().set_epoch(epoch)
        inner = getattr(self.sampler, "set_epoch", None)
        if inner is not None:
            inner(epoch)


_REMEDIES = (
    "To share it out over ranks it must have a right, finite length: give it `__len__`, or shard it yourself and pass "
    "use_distributed_sampler=False."
)


def _share(length: int, start: int, sampler: "EpochSampler | DistributedSamplerWrapper") -> int:
    """Return how many samples this sampler's rank gets of those from `start` on."""
    left, replicas = max(length - start, 0), sampler.num_replicas
    if sampler.drop_last:
        return left // replicas
    if sampler.pad:
        return -(-left // replicas)
    return max(-(-(left - sampler.rank) // replicas), 0)


def _check_placement(rank: int, num_replicas: int) -> None:
    if num_replicas < 1 or not 0 <= rank < num_replicas:
        raise ConfigError(f"rank={rank} with num_replicas={num_replicas}; ranks go from 0 to num_replicas - 1.")


def _sized(sampler: Any) -> int:
    try:
        return len(sampler)
    except TypeError as error:
        raise ConfigTypeError(f"{type(sampler).__name__} has no length. {_REMEDIES}") from error
