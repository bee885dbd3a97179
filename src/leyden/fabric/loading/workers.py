"""Index lists on their way from the sampler to the dataset: they are counted, and carry their position to the workers.

A worker that seeds itself from a batch's position makes random augmentation depend on nothing else: not on how many
workers there are, nor on where a run was cut. Generators that a dataset holds itself are its own business.
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler, Dataset, Sampler

from leyden.fabric import rng
from leyden.fabric.loading.replay import Rewind
from leyden.fabric.loading.samplers import EpochSampler

Stream = tuple[int, int, int, int]
"""What a batch's random numbers are derived from: seed, epoch, position in the epoch, data-parallel rank."""


class PositionedBatch(list[Any]):
    """A list of indices that knows its stream."""

    __slots__ = ("stream",)

    def __init__(self, indices: Iterable[Any], stream: Stream) -> None:
        super().__init__(indices)
        self.stream = stream

    def __reduce__(self) -> tuple[Any, ...]:
        return PositionedBatch, (list(self), self.stream)


class PositionedIndex:
    """Anything else that a sampler yields for one fetch (a single index, an array), with its stream."""

    __slots__ = ("stream", "value")

    def __init__(self, value: Any, stream: Stream) -> None:
        self.value = value
        self.stream = stream

    def __reduce__(self) -> tuple[Any, ...]:
        return PositionedIndex, (self.value, self.stream)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)


class SeededDataset(Dataset[Any]):
    """A dataset as a worker sees it: before a fetch the worker's generators start at that batch's stream.

    Every attribute is read from and written to the user's dataset. Its `set_epoch`, if it has one, is called when an
    epoch's first batch arrives: persistent workers keep a copy that the main process cannot reach.
    """

    def __init__(self, dataset: Any) -> None:
        self.__dict__["_dataset"] = dataset
        self.__dict__["_epoch"] = None

    def __getitem__(self, index: Any) -> Any:
        return self._dataset[self._entered(index)]

    def __getitems__(self, indices: Any) -> Any:
        indices, dataset = self._entered(indices), self._dataset
        many = getattr(dataset, "__getitems__", None)
        return many(indices) if many else [dataset[index] for index in indices]

    def _entered(self, index: Any) -> Any:
        """Start the stream that `index` carries, and return what the dataset itself is asked for."""
        kind = type(index)
        if kind is PositionedBatch:
            self._enter(index.stream)
        elif kind is PositionedIndex:
            self._enter(index.stream)
            return index.value
        return index

    def _enter(self, stream: Stream) -> None:
        epoch = stream[1]
        if epoch != self._epoch:
            self.__dict__["_epoch"] = epoch
            set_epoch = getattr(self._dataset, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
        rng.seed_stream(rng.fold(*stream))

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_dataset"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return SeededDataset, (self._dataset,)

    def __repr__(self) -> str:
        return repr(self._dataset)


class TrackedSampler(Sampler[Any]):
    """The sampler that a `DataLoader` really draws from: it keeps what it yielded until the batch is delivered.

    It is also where a resumed pass is put in place, because a `DataLoader` asks it for an iterator before it draws from
    the process's generators, and for indices after that, whatever a subclass does around it.

    Args:
        sampler: What yields one fetch's indices at a time.
        positioned: Whether workers need each fetch's position.
        rank: The data-parallel rank.
    """

    def __init__(self, sampler: Any, *, positioned: bool, rank: int) -> None:
        self.sampler = sampler
        self.positioned = positioned
        self.rank = rank
        self.drawn: deque[Any] = deque()
        self.keeps = True
        self._seed, self._epoch, self._first, self._skip = 0, 0, 0, 0
        self._rewind: Rewind | None = None
        self._source: Iterator[Any] | None = None

    def place(self, *, seed: int, epoch: int, first: int, skip: int = 0, rewind: Rewind | None = None) -> None:
        """Say where the next pass stands.

        Args:
            seed: The streams' seed.
            epoch: The streams' epoch.
            first: The position of the first fetch.
            skip: How many fetches to draw and drop before that.
            rewind: The generators' states to do so under.
        """
        self._seed, self._epoch, self._first, self._skip, self._rewind = seed, epoch, first, skip, rewind
        self._source = None

    def settle(self) -> None:
        """Finish putting a pass in place, if it was begun; the first draw does it else."""
        if self._source is None:
            return
        skip, self._skip = self._skip, 0
        deque(islice(self._source, skip), maxlen=0)
        rewind, self._rewind = self._rewind, None
        if rewind is not None:
            rewind.leave()

    def forget(self) -> None:
        """Keep nothing any more: what is drawn is not what is delivered."""
        self.keeps = False
        self.drawn.clear()

    def __iter__(self) -> Iterator[Any]:
        self.drawn = deque(maxlen=None if self.keeps else 0)
        if self._rewind is not None:
            self._rewind.enter()
        self._source = iter(_fixed(self.sampler))
        return self._draw(self._source, self.drawn, (self._seed, self._epoch), self._first)

    def _draw(self, source: Iterator[Any], drawn: deque[Any], stream: tuple[int, int], first: int) -> Iterator[Any]:
        self.settle()
        keep = drawn.append
        if not self.positioned:
            for indices in source:
                keep(indices)
                yield indices
            return
        seed, epoch = stream
        rank = self.rank
        for position, indices in enumerate(source, first):
            keep(indices)
            kind = PositionedBatch if type(indices) is list else PositionedIndex
            yield kind(indices, (seed, epoch, position, rank))

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "sampler":  # not there yet, while a copy is being made
            raise AttributeError(name)
        return getattr(self.sampler, name)


def _fixed(sampler: Any) -> Any:
    """Return an epoch's order that a later `iter` does not change: `zip(loader, loader)` pairs two epochs.

    A `BatchSampler` asks for its sampler's order at the first draw only, which may be after a second loop has begun.
    """
    inner = getattr(sampler, "sampler", None)
    if type(sampler) is not BatchSampler or not isinstance(inner, EpochSampler):
        return sampler
    inner.passes += 1
    result = copy.copy(sampler)
    result.sampler = copy.copy(inner)
    return result
