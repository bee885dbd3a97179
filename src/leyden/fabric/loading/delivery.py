"""The loader that a loop iterates: a user's loader whose batches are counted and moved, with a place in it.

How a place is found again is decided by the cursor's kind:

- `map`: an `EpochSampler` starts in the middle of its order; no data is read.
- `replay`: index lists are drawn again under the generators' states of the epoch's start; no data is read.
- `iterable`: the data is read again up to the place, under the same states, with a warning.
- `stateful`: the loader, or its iterable dataset, does it itself.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch

from leyden.core.errors import ConfigError
from leyden.fabric import rng
from leyden.fabric.loading import replay
from leyden.fabric.loading.cursor import Cursor
from leyden.fabric.loading.samplers import DistributedSamplerWrapper, EpochSampler
from leyden.fabric.loading.sharding import Placement, chain
from leyden.fabric.loading.workers import TrackedSampler


class FabricDataLoader:
    """A loader set up by Fabric. Whatever it does not have itself is read from the user's loader.

    Every `iter` is an epoch, numbered from 0; the first one after `load_state_dict` is the rest of the interrupted one.
    `len()` is that of a whole epoch.

    Args:
        loader: What to iterate: an adapted copy of a `DataLoader`, or a stateful loader as it is.
        cursor: Its position.
        placement: Where batches go.
        tracked: The sampler that the copy draws from, if it draws indices.
        injected: The sampler inside it that shares the data out, if any.
        shown: Attributes that are shown instead of the copy's.
        stateful: What keeps its own position (kind `stateful`).
    """

    per_rank: ClassVar[bool] = True
    """A checkpoint keeps one state per rank."""

    def __init__(
        self,
        loader: Any,
        cursor: Cursor,
        placement: Placement,
        *,
        tracked: TrackedSampler | None = None,
        injected: EpochSampler | DistributedSamplerWrapper | None = None,
        shown: dict[str, Any] | None = None,
        stateful: Any = None,
    ) -> None:
        self._loader = loader
        self._cursor = cursor
        self._move = placement.move
        self._device = placement.device
        self._tracked = tracked
        self._injected = injected
        self._shown = shown or {}
        self._stateful = stateful
        self._indices: Any = None
        self._passes = 0
        self._start: dict[str, Any] | None = None  # the generators' states at the epoch's start, where they are needed
        samplers = list(chain(_index_sampler(loader) if tracked is None else tracked.sampler))
        dataset: Any = getattr(self, "dataset", None)
        parts: list[Any] = [*samplers, dataset, loader]
        self._epoch_setters = [part.set_epoch for part in parts if callable(getattr(part, "set_epoch", None))]
        self._generators = replay.own_generators([*samplers, loader, *([dataset] if tracked is None else [])])

    @property
    def device(self) -> torch.device | None:
        """The device that batches are moved to; `None` if they are not moved."""
        return self._device

    @property
    def batch_indices(self) -> Any:
        """The dataset's indices in the batch delivered last; `None` where the loader draws none."""
        return self._indices

    @property
    def is_shared(self) -> bool:
        """Whether Fabric shares the data out over ranks here; else the loader or its dataset does, or nobody."""
        return self._injected is not None

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the next one. A plain loop over epochs needs no such call: they are counted."""
        self._cursor.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        iterator = self._open()
        tracked = self._tracked
        return self._deliver_read(iterator) if tracked is None or not tracked.keeps else self._deliver_drawn(iterator, tracked)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_shown" not in self.__dict__:  # while a copy is being made
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        shown = self.__dict__["_shown"]
        return shown[name] if name in shown else getattr(self.__dict__["_loader"], name)

    # -- an epoch ------------------------------------------------------------------------------------------------

    def _open(self) -> Iterator[Any]:
        """Begin an epoch, or the rest of one, and return the iterator over its batches."""
        cursor = self._cursor
        resumed = cursor.begin()
        if not resumed or self._stateful is None:  # what restored its own place must not be sent back to the epoch's start
            self._tell_epoch(cursor.epoch)
        rewind = replay.Rewind(self._generators, self._start) if resumed else None
        self._place_sampler(rewind)
        if rewind is None:
            if cursor.kind in ("replay", "iterable"):
                self._start = replay.capture(self._generators, process=True)
            return iter(self._loader)
        if self._tracked is not None and self._tracked.keeps:
            iterator = iter(self._loader)
            self._tracked.settle()
            return iterator
        rewind.enter()
        try:
            iterator = iter(self._loader)
            if self._stateful is None:
                self._read_again(iterator)
        finally:
            rewind.leave()
        return iterator

    def _tell_epoch(self, epoch: int) -> None:
        for set_epoch in self._epoch_setters:
            set_epoch(epoch)

    def _place_sampler(self, rewind: replay.Rewind | None) -> None:
        cursor, tracked, injected = self._cursor, self._tracked, self._injected
        if injected is not None:
            self._passes = injected.passes
            injected.seed = injected.seed if cursor.seed is None else cursor.seed
        if tracked is None or not tracked.keeps:
            return
        if isinstance(injected, EpochSampler):
            injected.start = cursor.samples if cursor.kind == "map" else 0
        skip = cursor.batches if cursor.kind == "replay" else 0
        tracked.place(seed=cursor.seed or 0, epoch=cursor.epoch, first=cursor.batches, skip=skip, rewind=rewind)

    def _read_again(self, iterator: Iterator[Any]) -> None:
        batches = self._cursor.batches
        warnings.warn(
            f"Resuming inside epoch {self._cursor.epoch} re-reads {batches} batches: this loader draws no indices and keeps no "
            "state. Give its dataset or loader state_dict() and load_state_dict() to go on at once.",
            stacklevel=4,
        )
        deque(zip(range(batches), iterator, strict=False), maxlen=0)

    def _deliver_drawn(self, iterator: Iterator[Any], tracked: TrackedSampler) -> Iterator[Any]:
        cursor, move, run, world = self._cursor, self._move, self._cursor.run, self._cursor.world_size
        batched = self._loader.batch_sampler is not None
        take: Callable[[], Any] | None = None
        for batch in iterator:
            if take is None:
                self._check_drawn(tracked)
                take = tracked.drawn.popleft  # only now: a subclass may have built the real iterator for its first batch
            try:
                indices = take()
            except IndexError:
                self._lose_track(tracked)
                indices = ()
            if cursor.run == run:
                self._indices = indices
                cursor.advance(world * (len(indices) if batched or isinstance(indices, (list, tuple)) else 1))
            yield batch if move is None else move(batch)
        if cursor.run == run:
            if tracked.drawn:
                self._lose_track(tracked)
            cursor.finish()

    def _deliver_read(self, iterator: Iterator[Any]) -> Iterator[Any]:
        cursor, move, run = self._cursor, self._move, self._cursor.run
        samples = cursor.global_batch or 0
        for batch in iterator:
            if cursor.run == run:
                cursor.advance(samples)
            yield batch if move is None else move(batch)
        if cursor.run == run:
            cursor.finish()

    def _check_drawn(self, tracked: TrackedSampler) -> None:
        """At an epoch's first batch: was it made from the indices that it should have been made from?"""
        injected = self._injected
        if injected is not None and self._cursor.world_size > 1 and (not tracked.drawn or injected.passes == self._passes):
            raise ConfigError(
                f"{type(self._loader).__name__} yields batches without drawing from its sampler, so all {self._cursor.world_size} "
                "ranks would read the same data. Let it draw from `self.batch_sampler` (or `self.sampler`), or shard the data "
                "yourself and pass use_distributed_sampler=False."
            )
        if not tracked.drawn:
            self._read_from_now_on(tracked)

    def _lose_track(self, tracked: TrackedSampler) -> None:
        if self._cursor.kind != "iterable":
            warnings.warn(
                f"{type(self._loader).__name__} does not yield one batch for each that its sampler draws, so a resumed epoch has to "
                "re-read its data. Give the loader state_dict() and load_state_dict() to go on at once.",
                stacklevel=3,
            )
        self._read_from_now_on(tracked)

    def _read_from_now_on(self, tracked: TrackedSampler) -> None:
        self._cursor.kind = "iterable"
        tracked.forget()

    # -- its state -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data: what was delivered, not what was read ahead.

        It is made of plain values and tensors. With `"rank_invariant": True` it is the same on all ranks and goes on at
        any number of them.
        """
        cursor = self._cursor
        state = cursor.state_dict()
        if cursor.kind == "map":
            state["rank_invariant"] = True
        elif cursor.kind == "stateful":
            state["inner"] = self._stateful.state_dict()
            if isinstance(state["inner"], Mapping) and state["inner"].get("rank_invariant"):
                state["rank_invariant"] = True
        elif cursor.entered or cursor.batches:
            state["rng"] = self._start
        else:
            state["rng"] = replay.capture(self._generators, process=False)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:  # noqa: FBT001, FBT002 - as modules have it
        """Go on where `state_dict` was taken, at the next `iter`.

        Args:
            state_dict: What `state_dict` returned.
            strict: With `False`, a position that means nothing here is dropped with a warning, and its epoch starts again.

        Raises:
            ConfigError: This is not a loader's state.
            StateError: The dataset has another length, the sampler is of another kind, or the number of ranks or the batch
                size differs where that matters.
        """
        cursor, tracked = self._cursor, self._tracked
        if tracked is not None and isinstance(state_dict, Mapping) and state_dict.get("kind") == "iterable":
            self._read_from_now_on(tracked)  # the saved run had found out
        keeps = cursor.accepts(state_dict, strict=strict)
        if keeps and self._stateful is not None:
            self._tell_epoch(state_dict["epoch"])  # first: some datasets take a position for one epoch only
            self._stateful.load_state_dict(state_dict["inner"])
        cursor.take(state_dict, keep_position=keeps)
        self._start = state_dict.get("rng") if keeps else None
        if self._start is not None and not cursor.batches:
            replay.restore(self._generators, {**self._start, "process": None})
        self._forget_workers()

    def _forget_workers(self) -> None:
        """Make persistent workers start anew, and as if they had been there for as long as in the saved run."""
        if not getattr(self._loader, "persistent_workers", False):
            return
        attributes = vars(self._loader)
        attributes["_iterator"] = None
        if self._cursor.epoch > 0 and attributes.get("generator") is None:
            # Only the first epoch's iterator takes a seed for the workers from the process's generator.
            attributes["generator"] = torch.Generator().manual_seed(rng.fold(self._cursor.seed or 0, "workers"))


def _index_sampler(loader: Any) -> Any:
    batch_sampler = getattr(loader, "batch_sampler", None)
    return getattr(loader, "sampler", None) if batch_sampler is None else batch_sampler
