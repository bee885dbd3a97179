"""`Streamed`: what all datasets that are read in an order share: place, position, state, iteration.

A subclass says what its order and arrays are (`stream`), what a state must agree with (`identity`), and which sources it
reads (`readings`); a loader asks for the same things.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np

from leyden.core.errors import StateError
from leyden.data.placement import Place, check_enough, find_place
from leyden.data.read.cursor import Cursor
from leyden.data.read.iteration import Ahead, Share, samples_of
from leyden.data.read.reading import Reading
from leyden.data.read.states import Position, state_of
from leyden.data.read.stream import Stream
from leyden.data.read.supply import LookAhead
from leyden.data.read.torch_seam import Traces, Worker, current_worker, register
from leyden.data.read.transform import Applies, Transform

_MOST_ROWS_AHEAD = 2**20
_SPARE = 4  # by which rows may be smaller than they are on average


class Streamed(ABC):  # noqa: SIZE003 - what users ask, and what loaders ask
    """A dataset that is read in an order."""

    is_sharded = True  # inject no sampler
    batch_transform: Transform | None = None  # what is done with each batch of a loader
    revision = 0  # changes when the rest of the order does, so that what was planned ahead is planned anew

    def _begin_at_the_start(self) -> None:
        self._place: Place | None = None
        self._cursor = Cursor()
        self._loads = 0  # how many states were loaded
        self._num_workers = 0
        self._traces = Traces()
        register(type(self))

    @abstractmethod
    def stream(self, global_batch_size: int = 1) -> Stream:
        """Return the order and the arrays, for a loader.

        Args:
            global_batch_size: Samples of a step of all ranks.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what a state must agree with."""

    @abstractmethod
    def adopt(self, state: Mapping[str, Any]) -> Position:
        """Check a state, take over the order that it says, and return its position.

        Raises:
            ConfigError: It is no state of ours.
            ConflictError: It is of other data.
        """

    @property
    @abstractmethod
    def row_transform(self) -> Applies | None:
        """What is done with each sample."""

    @property
    @abstractmethod
    def readings(self) -> Sequence[Reading]:
        """The sources at work."""

    @property
    @abstractmethod
    def ahead_bytes(self) -> int:
        """How far to look ahead."""

    @property
    @abstractmethod
    def output(self) -> Literal["torch", "numpy"]:
        """What arrays become."""

    @abstractmethod
    def set_output(self, output: Literal["torch", "numpy"]) -> None:
        """Set `output`."""

    @abstractmethod
    def set_binary(self, binary: Literal["bytes", "view"]) -> None:
        """Say what becomes of bytes: objects of their own, or memoryviews of what was read."""

    @abstractmethod
    def set_shuffle(self, shuffle: bool) -> None:  # noqa: FBT001 - the documented signature
        """Set `shuffle`."""

    @abstractmethod
    def set_drop_last(self, drop_last: bool) -> None:  # noqa: FBT001 - the documented signature
        """Set `drop_last`."""

    @property
    def drop_last(self) -> bool | None:
        """Whether the last positions that fill no step are left out; `None`: with several ranks."""
        return None

    @property
    def step_size(self) -> int:
        """Samples of a step of this rank, under a bare iteration."""
        return 1

    @property
    def given_place(self) -> Place | None:
        """The share that the arguments say."""
        return None

    @property
    def place(self) -> Place:
        """Which share this process reads."""
        return self.given_place or self._place or find_place()

    @property
    def is_remote(self) -> bool:
        """Whether blocks must be fetched."""
        return any(reading.is_remote for reading in self.readings)

    @property
    def row_bytes(self) -> int:
        """About how large a stored row is."""
        return sum(reading.row_bytes for reading in self.readings)

    @property
    def current_epoch(self) -> int:
        """The epoch that the next iteration is of."""
        return self._cursor.epoch

    def settle(self, position: Position) -> None:
        """Let changes that were asked for begin at a position: the first that was not handed out."""
        del position

    def begin(self, position: Position) -> None:
        """Take note that an iteration begins at a position."""
        del position

    def look_ahead(self, share: Share, stream: Stream) -> Ahead | None:
        """Return what fetches the blocks of a share ahead; `None` if all are local."""
        if not self.is_remote:
            return None
        sizes = [reading.table.stored_bytes for reading in self.readings]
        bases = np.cumsum([0, *(len(each) for each in sizes[:-1])])
        budget = min([self.ahead_bytes, *(reading.cache_bytes // 2 for reading in self.readings)])
        most_rows = min(_MOST_ROWS_AHEAD, _SPARE * budget // max(1, min(reading.row_bytes for reading in self.readings)))
        return Ahead(share, stream, LookAhead(np.concatenate(sizes), budget, most_rows), tuple(bases.tolist()), self.row_bytes)

    def rows_in(self, epoch: int, global_batch_size: int = 1) -> int | None:
        """Return how many samples an epoch has for all ranks together; `None` without an end. Nothing moves.

        Args:
            epoch: Which one.
            global_batch_size: Samples of a step of all ranks.
        """
        return self.stream(global_batch_size).rows_in(epoch)

    def forget_ahead(self) -> None:
        """Let go of what is fetched for an iteration that was left."""
        for reading in self.readings:
            reading.forget_ahead()

    def __len__(self) -> int:
        share = self._share(Position(epoch=self._cursor.epoch))
        rows = self.rows_in(share.epoch, share.size)
        if rows is None:
            raise TypeError("this dataset has no end, so it has no length. Give length=… a number.")
        return share.count(rows)

    def __iter__(self) -> Iterator[Any]:
        register(type(self))
        worker = current_worker()
        if worker is None:
            self._heed_workers()
        elif not self._traces.begins(self._loads, worker):
            self._cursor.use_up()
        position = self._cursor.begin()
        self.begin(position)
        share = self._share(position, worker)
        if share.drop_last:
            check_enough(self.rows_in(share.epoch, share.size), self.place)
        is_first = worker is None or worker.number == 0  # the step that was begun is the first worker's
        return self._iterate(share, position.within if is_first else 0)

    def _heed_workers(self) -> None:
        """Forget the loaded position if workers of torch's loader, which have copies of this, went on from it."""
        if self._traces.was_begun(self._loads):
            self._cursor.use_up()

    def _iterate(self, share: Share, skip: int) -> Iterator[Any]:
        is_over = False
        try:
            while not is_over:
                revision, done, is_over = self.revision, 0, True
                stream = self.stream(share.size)
                for sample in samples_of(share, stream, self.row_bytes, self.row_transform, self.look_ahead(share, stream)):
                    done += 1
                    if skip:
                        skip -= 1
                        continue
                    self._cursor.handed_out += 1
                    yield sample
                    if revision != self.revision and done % share.batch_size == 0:
                        is_over = False  # the rest is planned anew
                        break
                share = replace(share, consumed=share.consumed + done // share.batch_size * share.size)
                if not is_over:
                    self.settle(Position(epoch=share.epoch, consumed=share.consumed))
        finally:
            self.forget_ahead()

    def _share(self, position: Position | None = None, worker: Worker | None = None) -> Share:
        place, drop = self.place, self.drop_last
        position, worker = position or self._cursor.position, worker or Worker()
        return Share(
            epoch=position.epoch,
            consumed=position.consumed,
            batch_size=self.step_size,
            rank=place.rank,
            world_size=place.world_size,
            worker=worker.number,
            num_workers=worker.count,
            drop_last=place.world_size > 1 if drop is None else drop,
        )

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be of this epoch, from its start; a loaded position of the same epoch stays."""
        self._heed_workers()
        self._cursor.set_epoch(epoch)

    def set_num_workers(self, num_workers: int) -> None:
        """Say how many workers of torch's `DataLoader` iterate this dataset: `state_dict` takes it for its default."""
        self._num_workers = num_workers

    def set_placement(self, rank: int, world_size: int) -> None:
        """Say which share this process reads; what the dataset was given goes before."""
        self._place = Place.checked(rank, world_size)

    def reset(self) -> None:
        """Go back to the start of the epoch, and forget a loaded state."""
        self._cursor.reset()

    def state_dict(self, num_samples_yielded: int | None = None, num_workers: int = 0, batch_size: int = 1) -> dict[str, Any]:
        """Return where this rank stands, to go on from there later, also with another world size.

        Args:
            num_samples_yielded: How many samples of the epoch this rank got; by default what this object has handed out.
            num_workers: Workers of torch's `DataLoader` that iterated.
            batch_size: Its batch size.

        Raises:
            StateError: torch's workers iterated, and it is not said how many samples came.
        """
        if num_samples_yielded is None and self._traces.has_iterated:
            raise StateError(
                "workers of torch's DataLoader iterated this dataset, and only they know how far. Pass "
                "state_dict(num_samples_yielded=…, num_workers=…, batch_size=…), or use StreamingDataLoader."
            )
        self._heed_workers()
        num_workers = num_workers or self._num_workers
        share = self._share(Position(epoch=1))
        position = self._cursor.now()
        if num_samples_yielded is not None:
            position = Position(epoch=position.epoch).after(num_samples_yielded, share, num_workers, batch_size)
        steps = -(-(position.within + position.handed_out) // share.batch_size)
        self.settle(Position(epoch=position.epoch, consumed=position.consumed + steps * share.size))
        return state_of(position, share, self.identity())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where a state was taken.

        Raises:
            ConfigError: It is no state of ours.
            ConflictError: It is of other data.
        """
        self._cursor.load(self.adopt(state))
        self._loads += 1

    def close(self) -> None:
        """End the threads that fetch. The dataset can be used again; they start anew."""
        for reading in self.readings:
            reading.close()

    def __getstate__(self) -> dict[str, Any]:
        place = self.place  # a worker of a rank may not be able to find it
        return {**self.__dict__, "_place": place if place.world_size > 1 else self._place}

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _cursor=copy.copy(self._cursor), _traces=Traces())
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = copy.copy(self)
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(other.__dict__, memo))
        return other
