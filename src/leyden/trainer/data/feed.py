"""`Feed`: the batches of a run, one after the other, and exactly where it stands in them.

- `batch_idx`, `dataloader_idx` and `is_last` describe the batch that was yielded last. Where nobody knows how many
  there are, a batch is fetched ahead to learn whether it comes; its transfer waits until its turn.
- The state is that of the batch **consumed**. A batch fetched ahead, or by workers, does not count, and neither do the
  random numbers it took: `open` fetches it again under the same ones.
- A pass that is over has to be told so (`end`): what is left of it then belongs to nobody.
- Building iterators draws random numbers. A resumed run loads the state, calls `open`, and only then restores its own.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from leyden.core.errors import ConfigError
from leyden.trainer.data.collections import filled, flattened, is_collection
from leyden.trainer.data.combined import rows, sure_length
from leyden.trainer.data.draws import Draws
from leyden.trainer.data.lane import END, Lane

_NOTHING = object()  # no batch was fetched ahead; `None` may well be one
Transfer = Callable[[Any, int], Any]
"""What moves a batch to the device: `(batch, dataloader_idx)`."""


class Feed:
    """Iterate prepared loaders; each `iter` is a pass, or the rest of one that was restored or opened.

    Args:
        loaders: What `sources.prepare` returned: one loader, or a collection of them.
        num_batches: How many batches a pass has at most; in `sequential` one number per loader. Infinite: all.
        mode: A mode of `CombinedLoader`; one loader is the same in all of them.
        limits: After how many batches each loader counts as at its end, as in `CombinedLoader`.
        transfer: Applied to each batch right before it is yielded.
        epoch: The number of the first pass: shuffling is derived from it. Later ones count up.
        name: How messages call the loaders, such as `train`.

    Example:
        >>> feed = Feed([range(3), range(2)], num_batches=[3, 1], mode="sequential")
        >>> [(batch, feed.batch_idx, feed.dataloader_idx, feed.is_last) for batch in feed]
        [(0, 0, 0, False), (1, 1, 0, False), (2, 2, 0, False), (0, 0, 1, True)]
    """

    def __init__(
        self,
        loaders: Any,
        *,
        num_batches: float | Sequence[float],
        mode: str = "max_size_cycle",
        limits: Sequence[float] | None = None,
        transfer: Transfer | None = None,
        epoch: int = 0,
        name: str = "loader",
    ) -> None:
        self.loaders = loaders
        leaves = flattened(loaders)
        self.lanes = [Lane(loader, name=f"{name}.{position}") for position, loader in enumerate(leaves)]
        for lane, limit in zip(self.lanes, limits or [math.inf] * len(leaves), strict=True):
            lane.limit = limit
        self.mode = mode
        self.num_batches = _as_list(num_batches, len(leaves) if mode == "sequential" else 1)
        self.transfer = transfer
        self.batch_idx = -1
        self.dataloader_idx = 0
        self.is_last = False
        self.batch: Any = None  # the one yielded last, as its loader gave it
        self.is_moving = False  # whether it is not yielded yet, but on its way to the device
        self._batches: Iterator[Any] | None = None
        self._is_handed_out = False
        self._ahead: Any = _NOTHING  # a batch that was fetched ahead before the run was interrupted
        self._indices: Any = None
        if epoch:
            for loader in leaves:
                if set_epoch := getattr(loader, "set_epoch", None):
                    set_epoch(epoch)

    @property
    def batch_indices(self) -> Any:
        """The dataset's indices in the batch yielded last; `None` where its loader draws none."""
        if self._indices is not None:
            return self._indices[0]
        return getattr(self.lanes[self.dataloader_idx].loader, "batch_indices", None) if self.lanes else None

    def __iter__(self) -> Iterator[Any]:
        if self._is_handed_out:
            self.end()
        self.open()
        self._is_handed_out = True
        return self._batches  # pyrefly: ignore[bad-return] - `open` made it

    def open(self) -> None:
        """Go on inside a restored pass, or stand before a new one, without yielding anything; the next `iter` hands it out.

        Afterwards `batch_idx`, `dataloader_idx` and `is_last` describe the batch yielded last before the interruption.
        """
        if self._batches is not None:
            return
        is_resumed = any(lane.is_started for lane in self.lanes)
        if not is_resumed:
            for lane in self.lanes:
                lane.reset()
        self.batch_idx, self.dataloader_idx, self.is_last, self._ahead, self._indices = -1, 0, False, _NOTHING, None
        first = self._active() if self.mode == "sequential" else 0
        self.dataloader_idx = first
        if self.lanes:
            self._enter(first, is_resumed=is_resumed)
        if self.mode == "sequential":
            self._batches = self._sequence(first)
        else:
            self._batches = self._rest(0) if is_collection(self.loaders) else self._one(0)

    def end(self) -> None:
        """Say that the pass is over, whatever is left of it; the state becomes the beginning of the next one."""
        self._drop_batches()
        for lane in self.lanes:
            lane.finish()
            lane.reset()

    def close(self) -> None:
        """Let go of all iterators, and with them of worker processes."""
        self._drop_batches()
        for lane in self.lanes:
            lane.close()
            lane.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the position at the batch consumed; the lanes' own states can be kept one by one as well."""
        return {"lanes": [lane.state_dict() for lane in self.lanes]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, at the next `open` or `iter`.

        Raises:
            ConfigError: It is of another number of loaders, or of loaders over other data.
        """
        states = state_dict["lanes"]
        if len(states) != len(self.lanes):
            raise ConfigError(
                f"The saved run had {len(states)} loaders here, this one has {len(self.lanes)}. Pass the same loaders to resume."
            )
        self._drop_batches()
        for lane, state in zip(self.lanes, states, strict=True):
            lane.load_state_dict(state)

    def skip_to(self, epoch: int, batches: int) -> None:
        """Make `epoch` the next pass, and count `batches` of it as yielded; the pass itself begins at its first batch."""
        for lane in self.lanes:
            if set_epoch := getattr(lane.loader, "set_epoch", None):
                set_epoch(epoch)
            lane.taken = batches

    def moved(self, batch: Any, number: int) -> Any:
        """Return a batch of a loader on its device."""
        self.batch, self.is_moving = batch, True
        result = batch if self.transfer is None else self.transfer(batch, number)
        self.is_moving = False
        return result

    # -- beginning -----------------------------------------------------------------------------------------------

    def _drop_batches(self) -> None:
        batches, self._batches, self._is_handed_out, self._ahead = self._batches, None, False, _NOTHING
        self.batch, self.is_moving = None, False
        if batches is not None:
            batches.close()  # pyrefly: ignore[missing-attribute] - a generator

    def _active(self) -> int:
        """Return the number of the loader in progress, in `sequential`."""
        wanted = [number for number, count in enumerate(self.num_batches) if count > 0]
        left = [number for number in wanted if not self.lanes[number].is_exhausted]
        return left[0] if left else wanted[-1] if wanted else 0

    def _enter(self, number: int, *, is_resumed: bool) -> None:
        """Go on inside restored passes, and fetch ahead again what the interrupted run had.

        Others begin with their first batch: some samplers draw their order only then, and between the two nothing may be drawn.
        """
        lanes, (limit, is_counted) = self._lanes_of(number), self._limit(number)
        taken = max(lane.taken for lane in lanes)
        self.batch_idx, self.is_last = taken - 1, 0 < limit <= taken and self._is_final(number)
        if limit <= 0:
            return
        if is_resumed and all(lane.is_exhausted for lane in lanes):
            self.is_last = self._is_final(number)
            return
        under = next((draws for lane in lanes if (draws := lane.under()) is not None), None)
        for lane in lanes:
            if lane.is_restored and not (lane.is_exhausted and self.mode == "max_size"):
                lane.begin()
        if not taken or is_counted or taken >= limit:
            return
        with (under or Draws()).again():
            for lane in lanes:
                lane.keep(under)
            self._ahead = next(self._source(number), END)
        self.is_last = self._ahead is END and self._is_final(number)

    def _limit(self, number: int) -> tuple[float, bool]:
        """Return how many batches there are at most, and whether there are exactly so many."""
        length = sure_length(self.mode, [lane.length for lane in self._lanes_of(number)])
        return min(self.num_batches[number], length), length < math.inf

    def _is_final(self, number: int) -> bool:
        return not any(count > 0 for count in self.num_batches[number + 1 :])

    def _lanes_of(self, number: int) -> list[Lane]:
        return [self.lanes[number]] if self.mode == "sequential" else self.lanes

    def _source(self, number: int) -> Iterator[Any]:
        """Return what yields batches; it keeps no state of its own."""
        if self.mode == "sequential" or not is_collection(self.loaders):
            return iter(self.lanes[number].take, END)
        return (filled(self.loaders, row) for row in rows(self.mode, self.lanes))

    # -- yielding ------------------------------------------------------------------------------------------------

    def _sequence(self, first: int) -> Iterator[Any]:
        for number in range(first, len(self.lanes)):
            if self.num_batches[number] <= 0:
                continue
            self.dataloader_idx = number
            yield from self._one(number)
            self.lanes[number].finish()
            self.lanes[number].is_exhausted = True

    def _one(self, number: int) -> Iterator[Any]:
        """Yield one loader's batches. Where they are counted, this is the loop that costs a step least."""
        lane, transfer = self.lanes[number], self.transfer
        limit, is_counted = self._limit(number)
        if lane.is_exhausted:
            self._ahead = _NOTHING
            return
        if not is_counted:
            yield from self._rest(number)
            return
        if lane.taken >= limit:
            return
        if lane.iterator is None:
            lane.begin()
        is_final, last = self._is_final(number), int(limit) - 1
        for index, batch in zip(range(lane.taken, int(limit)), lane.iterator or (), strict=False):  # asks for no batch beyond
            lane.count = lane.taken = index + 1
            self.batch_idx = index
            self.is_last = is_final and index == last
            self.batch = batch
            yield batch if transfer is None else self.moved(batch, number)
        lane.is_exhausted = lane.taken < limit  # it has fewer than it said

    def _rest(self, number: int) -> Iterator[Any]:
        """Yield batches of any source, fetching one ahead where nobody knows how many there are."""
        if not self.lanes:
            return
        lanes, transfer, is_final, source = self._lanes_of(number), self.transfer, self._is_final(number), self._source(number)
        limit, is_counted = self._limit(number)
        pending, self._ahead = self._ahead, _NOTHING
        index = max(lane.taken for lane in lanes) if pending is _NOTHING else self.batch_idx + 1
        if pending is _NOTHING:
            pending = next(source, END) if index < limit else END
        while pending is not END:
            batch, pending, is_last = pending, END, index + 1 >= limit
            if is_last or is_counted:
                self._keep_none(lanes)
            else:
                pending = self._fetch_ahead(source, lanes)
                is_last = pending is END
            self.batch_idx, self.is_last = index, is_last and is_final
            self.batch = batch
            yield batch if transfer is None else self.moved(batch, number)
            index += 1
            if is_counted and index < limit:
                pending = next(source, END)

    def _keep_none(self, lanes: Sequence[Lane]) -> None:
        self._indices = None
        for lane in lanes:
            lane.release()

    def _fetch_ahead(self, source: Iterator[Any], lanes: Sequence[Lane]) -> Any:
        self._indices = [getattr(lanes[0].loader, "batch_indices", None)]
        # Workers draw from their own generators, so there is nothing to note then.
        under = Draws() if any(getattr(lane.loader, "num_workers", 0) == 0 for lane in lanes) else None
        for lane in lanes:
            lane.keep(under)
        return next(source, END)


def _as_list(num_batches: float | Sequence[float], expected: int) -> list[float]:
    counts = [num_batches] if isinstance(num_batches, (int, float)) else list(num_batches)
    if len(counts) != expected:
        raise ConfigError(f"num_batches={num_batches!r}: {expected} numbers are expected, one per loader in mode 'sequential', else one.")
    return counts
