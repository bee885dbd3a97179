"""Which sampler a loader gets, so that each data-parallel rank reads its own share.

| the loader has | what it draws from here |
|---|---|
| torch's `SequentialSampler` or plain `RandomSampler` | an `EpochSampler`, at every number of ranks |
| another sampler with a length | that, in a `DistributedSamplerWrapper`, if there are several ranks |
| a batch sampler | a copy whose `sampler` is replaced by these rules |
| a `DistributedSampler`, or `is_sharded = True` on the dataset | what it had |
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, SequentialSampler

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.loading.samplers import DistributedSamplerWrapper, EpochSampler

Mode = Literal["train", "eval", "predict"]
MODES = ("train", "eval", "predict")


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where a loader's batches go, and which share of the data they are.

    Args:
        rank: The data-parallel rank.
        num_replicas: The number of data-parallel ranks.
        device: The device of this process.
        move: What moves a batch there; `None` leaves batches where they are.
        broadcast: What gives all ranks rank 0's value.
    """

    rank: int = 0
    num_replicas: int = 1
    device: torch.device | None = None
    move: Callable[[Any], Any] | None = None
    broadcast: Callable[[Any], Any] = _same


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One rank's share.

    Args:
        rank: The data-parallel rank.
        num_replicas: How many there are.
        mode: What the loader is for; `predict` must see every sample once, so nothing is repeated or dropped.
        seed: What shuffling is derived from.
    """

    rank: int
    num_replicas: int
    mode: Mode
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharded:
    """What a loader draws from.

    Args:
        index_sampler: What yields the indices of one fetch at a time.
        sampler: The sampler inside it, or itself.
        injected: The sampler that was put there, if any; unless it is drawn from, the ranks do not share anything.
        epoch_sampler: The sampler, if a position in its order is enough to go on from.
    """

    index_sampler: Any
    sampler: Any
    injected: EpochSampler | DistributedSamplerWrapper | None = None
    epoch_sampler: EpochSampler | None = None


def unshared(loader: DataLoader[Any]) -> Sharded:
    """Return what the loader draws from as it is."""
    index_sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return Sharded(index_sampler=index_sampler, sampler=loader.sampler)


def needs_seed(loader: DataLoader[Any], num_replicas: int) -> bool:
    """Return whether `shared` would derive an order from the seed."""
    *_, sampler = chain(unshared(loader).index_sampler)
    if isinstance(sampler, DistributedSampler) or type(sampler) is SequentialSampler:
        return False
    return num_replicas > 1 or _is_plain_random(sampler)


def shared(loader: DataLoader[Any], share: Share) -> Sharded:
    """Return what the loader has to draw from to read this share.

    Raises:
        ConfigTypeError: A sampler has no length, or a batch sampler has no `sampler` that could be replaced.
    """
    present = unshared(loader)
    if getattr(loader.dataset, "is_sharded", False):
        return present
    index_sampler = present.index_sampler
    if isinstance(index_sampler, BatchSampler) or loader.batch_sampler is not None:
        return _shared_batches(index_sampler, share)
    return _sharded(index_sampler, _shared_sampler(index_sampler, share))


def _sharded(sampler: Any, chosen: Any) -> Sharded:
    injected = chosen if chosen is not sampler else None
    return Sharded(
        index_sampler=chosen, sampler=chosen, injected=injected, epoch_sampler=chosen if isinstance(chosen, EpochSampler) else None
    )


def _shared_batches(batch_sampler: Any, share: Share) -> Sharded:
    if not hasattr(batch_sampler, "sampler"):
        if share.num_replicas == 1:
            return Sharded(index_sampler=batch_sampler, sampler=batch_sampler)
        raise ConfigTypeError(
            f"{type(batch_sampler).__name__} has no attribute `sampler`, so its indices cannot be shared out over "
            f"{share.num_replicas} ranks. Let it draw from `self.sampler`, or shard it yourself and pass use_distributed_sampler=False."
        )
    inner = batch_sampler.sampler
    chosen = _shared_sampler(inner, share)
    plain = type(batch_sampler) is BatchSampler
    if chosen is not inner or (plain and share.mode == "predict"):
        batch_sampler = _with_sampler(batch_sampler, chosen)
        if plain and share.mode == "predict":
            batch_sampler.drop_last = False
    # A subclass may look at the whole epoch before its first batch, so only the plain one can start in the middle.
    epoch_sampler = chosen if plain and isinstance(chosen, EpochSampler) else None
    return Sharded(index_sampler=batch_sampler, sampler=chosen, injected=None if chosen is inner else chosen, epoch_sampler=epoch_sampler)


def _with_sampler(batch_sampler: Any, sampler: Any) -> Any:
    result = copy.copy(batch_sampler)
    try:
        result.sampler = sampler
    except AttributeError as error:
        raise ConfigTypeError(
            f"`sampler` of {type(batch_sampler).__name__} cannot be set ({error}), so its indices cannot be shared out. "
            "Make it a plain attribute, or shard it yourself and pass use_distributed_sampler=False."
        ) from error
    return result


def _shared_sampler(sampler: Any, share: Share) -> Any:
    pad = share.mode != "predict"
    if isinstance(sampler, EpochSampler):
        return _placed(sampler, share, pad=pad)
    if isinstance(sampler, DistributedSampler):
        return sampler
    if type(sampler) is SequentialSampler or _is_plain_random(sampler):
        shuffle = type(sampler) is RandomSampler
        return EpochSampler(sampler.data_source, shuffle, share.seed, rank=share.rank, num_replicas=share.num_replicas, pad=pad)
    if share.num_replicas == 1:
        return sampler
    return DistributedSamplerWrapper(sampler, share.num_replicas, share.rank, seed=share.seed, pad=pad)


def _is_plain_random(sampler: Any) -> bool:
    if type(sampler) is not RandomSampler or sampler.replacement or sampler.generator is not None:
        return False
    return sampler.num_samples == len(sampler.data_source)


def _placed(sampler: EpochSampler, share: Share, *, pad: bool) -> EpochSampler:
    """Return a user's `EpochSampler`, made for one process, as this rank's share of the same order."""
    if sampler.num_replicas not in (1, share.num_replicas):
        raise ConfigError(
            f"The EpochSampler has num_replicas={sampler.num_replicas}, but this run has {share.num_replicas} data-parallel ranks. "
            "Leave rank and num_replicas out: they are filled in."
        )
    rank = share.rank if sampler.num_replicas == 1 else sampler.rank
    return EpochSampler(
        sampler.length,
        sampler.shuffle,
        sampler.seed,
        sampler.epoch,
        rank=rank,
        num_replicas=share.num_replicas,
        drop_last=sampler.drop_last,
        pad=sampler.pad and pad,
    )


def chain(sampler: Any) -> Iterator[Any]:
    """Yield a sampler, the one inside it, and so on inwards."""
    seen: set[int] = set()
    while sampler is not None and id(sampler) not in seen:
        seen.add(id(sampler))
        yield sampler
        sampler = getattr(sampler, "sampler", None)
