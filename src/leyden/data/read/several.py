"""`SeveralDatasets`: what mixtures and zips of datasets share: place, position, state, iteration."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from leyden.core.errors import ConfigError, ConfigTypeError, ConflictError
from leyden.data.placement import Place, find_place
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.iteration import Ahead, Share, samples_of
from leyden.data.read.states import FORMAT, Position, state_of
from leyden.data.read.stream import Stream
from leyden.data.read.supply import LookAhead
from leyden.data.read.torch_seam import current_worker, register
from leyden.data.read.transform import Applies


class SeveralDatasets(ABC):
    """Datasets that are read together.

    Args:
        datasets: At least one.
        force_override_state_dict: Whether arguments given here win over those in a loaded state.
    """

    is_sharded = True

    def __init__(self, datasets: Sequence[StreamingDataset], *, force_override_state_dict: bool) -> None:
        wrong = next((each for each in datasets if not isinstance(each, StreamingDataset)), None)
        if wrong is not None or not datasets:
            raise ConfigTypeError(f"datasets={wrong or datasets!r:.80}: a list of StreamingDataset is accepted, with at least one.")
        self.datasets = list(datasets)
        self.batch_size: int | None = None
        self._is_forced = force_override_state_dict
        self._place: Place | None = None
        self._position, self._handed_out = Position(epoch=1), 0
        self._loaded: Position | None = None
        register(type(self))

    @abstractmethod
    def stream(self) -> Stream:
        """Return the order and the arrays, for a loader."""

    @abstractmethod
    def _own_identity(self) -> dict[str, Any]:
        """Return what a state must agree with, beside the datasets."""

    @abstractmethod
    def _own_transform(self) -> Applies | None:
        """Return what is done with each sample."""

    @property
    def current_epoch(self) -> int:
        """The epoch that the next iteration is of."""
        return self._position.epoch

    def __len__(self) -> int:
        rows = self.stream().num_rows
        if rows is None:
            raise TypeError("this dataset has no end, so it has no length. Give length=… a number.")
        return self._share(Position(epoch=1)).count(rows)

    def __iter__(self) -> Iterator[Any]:
        register(type(self))
        worker = current_worker()
        self._position = self._loaded or Position(epoch=self._position.epoch)
        self._loaded, self._handed_out = None, 0
        share = self._share(self._position)
        if worker is not None:
            share = replace(share, worker=worker.number, num_workers=worker.count)
        return self._iterate(share, self._position.within)

    def _iterate(self, share: Share, skip: int) -> Iterator[Any]:
        stream = self.stream()
        tables = [each.reading.table for each in self.datasets]
        row_bytes = sum(int(table.stored_bytes.sum()) // max(1, int(table.rows.sum())) for table in tables)
        for sample in samples_of(share, stream, row_bytes, self._own_transform(), self._ahead(share, stream)):
            if skip:
                skip -= 1
                continue
            self._handed_out += 1
            yield sample

    def _ahead(self, share: Share, stream: Stream) -> Ahead | None:
        if not any(each.reading.is_remote for each in self.datasets):
            return None
        sizes = [each.reading.table.stored_bytes for each in self.datasets]
        bases = np.cumsum([0, *(len(each) for each in sizes[:-1])])
        budget = max(each.ahead_bytes for each in self.datasets)
        return Ahead(share, stream, LookAhead(np.concatenate(sizes), budget), tuple(bases.tolist()))

    def _share(self, position: Position) -> Share:
        place = self._place or find_place()
        drop = place.world_size > 1
        return Share(
            epoch=position.epoch,
            consumed=position.consumed,
            batch_size=self.batch_size or 1,
            rank=place.rank,
            world_size=place.world_size,
            drop_last=drop,
        )

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be of this epoch, from its start; a loaded position of the same epoch stays."""
        if self._loaded is not None and self._loaded.epoch != epoch:
            self._loaded = self._loaded.dropped_for(epoch)
        if self._position.epoch != epoch:
            self._position, self._handed_out = Position(epoch=epoch), 0

    def set_placement(self, rank: int, world_size: int) -> None:
        """Say which share this process reads."""
        self._place = Place.checked(rank, world_size)

    def set_batch_size(self, batch_size: int) -> None:
        """Say how many samples a step has, under torch's own `DataLoader`."""
        self.batch_size = batch_size

    def set_shuffle(self, shuffle: bool) -> None:  # noqa: FBT001 - the documented signature
        """Set `shuffle` of all datasets."""
        for dataset in self.datasets:
            dataset.set_shuffle(shuffle)

    def reset(self) -> None:
        """Go back to the start of the epoch, and forget a loaded state."""
        self._position, self._handed_out, self._loaded = Position(epoch=self._position.epoch), 0, None

    def state_dict(self, num_samples_yielded: int | None = None, num_workers: int = 0, batch_size: int = 1) -> dict[str, Any]:
        """Return where this rank stands, as `StreamingDataset.state_dict` does."""
        share = self._share(Position(epoch=1))
        position = self._loaded or self._position.advanced(self._handed_out)
        if num_samples_yielded is not None:
            position = Position(epoch=position.epoch).after(num_samples_yielded, share, num_workers, batch_size)
        return state_of(position, share, self._identity())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where a state was taken.

        Raises:
            ConfigError: It is no state of ours.
            ConflictError: It is of other data.
        """
        if state.get("format") != FORMAT or "consumed" not in state:
            raise ConfigError(f"this is no state of a dataset of Leyden: its keys are {sorted(state)}.")
        ours = self._identity()
        if state["dataset"] != ours["dataset"]:
            raise ConflictError(f"the state is of other datasets: {state['dataset']} then, {ours['dataset']} now.")
        self._adopt(state)
        self._loaded = Position(epoch=state["current_epoch"], consumed=state["consumed"], within=state["within"])

    def _adopt(self, state: Mapping[str, Any]) -> None:
        """Take over what else a state says."""
        for dataset, order in zip(self.datasets, state["order"], strict=True):
            dataset.adopt_order(order, is_forced=self._is_forced)

    def _identity(self) -> dict[str, Any]:
        found = [dataset.identity() for dataset in self.datasets]
        own = self._own_identity()
        return {"order": [each["order"] for each in found], "dataset": [each["dataset"] for each in found], **own}

    def close(self) -> None:
        """End the threads that fetch."""
        for dataset in self.datasets:
            dataset.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_place": self._place or find_place()}
