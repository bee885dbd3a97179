"""`SeveralDatasets`: what mixtures and zips of datasets share: their datasets, and a state that speaks of each."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from leyden.core.errors import ConfigError, ConfigTypeError, ConflictError
from leyden.data.placement import Place
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.reading import Reading
from leyden.data.read.states import Position, recognised
from leyden.data.read.streamed import Streamed


class SeveralDatasets(Streamed):
    """Datasets that are read together.

    Args:
        datasets: At least one.
        force_override_state_dict: Whether arguments given here win over those in a loaded state.
    """

    def __init__(self, datasets: Sequence[StreamingDataset], *, force_override_state_dict: bool) -> None:
        wrong = next((each for each in datasets if not isinstance(each, StreamingDataset)), None)
        if wrong is not None or not datasets:
            raise ConfigTypeError(f"datasets={wrong or datasets!r:.80}: a list of StreamingDataset is accepted, with at least one.")
        self.datasets = list(datasets)
        self._given_place = _place_of_all(self.datasets)
        changed = next((each for each in self.datasets if each.batch_transform is not None), None)
        if changed is not None:
            raise ConfigError(
                f"{changed!r} has a batch_transform, and a batch of several datasets is not its own. Give the loader a collate_fn, or the "
                "dataset a transform of each sample."
            )
        self.batch_size: int | None = None
        self._drop_last: bool | None = None
        self._is_forced = force_override_state_dict
        self._begin_at_the_start()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.datasets!r})"

    def _own_identity(self) -> dict[str, Any]:
        """Return what else a state says."""
        return {}

    def _adopt_own(self, state: Mapping[str, Any]) -> None:
        """Take over what else a state says."""

    @property
    def num_rows(self) -> int | None:
        """How many samples an epoch has, for all ranks together; `None` without an end."""
        share = self._share(Position(epoch=self._cursor.epoch))
        return self.rows_in(share.epoch, share.size)

    @property
    def given_place(self) -> Place | None:
        """The share that the datasets' arguments say."""
        return self._given_place

    @property
    def readings(self) -> Sequence[Reading]:
        """The sources at work."""
        return [dataset.reading for dataset in self.datasets]

    @property
    def ahead_bytes(self) -> int:
        """How far to look ahead."""
        return max(dataset.ahead_bytes for dataset in self.datasets)

    @property
    def drop_last(self) -> bool | None:
        """Whether the last positions that fill no step are left out; `None`: with several ranks."""
        return self._drop_last

    @property
    def step_size(self) -> int:
        """Samples of a step of this rank, under a bare iteration."""
        return self.batch_size or 1

    @property
    def output(self) -> Literal["torch", "numpy"]:
        """What arrays become."""
        return self.datasets[0].output

    def set_batch_size(self, batch_size: int) -> None:
        """Say how many samples a step has, under torch's own `DataLoader`."""
        self.batch_size = batch_size

    def set_drop_last(self, drop_last: bool) -> None:  # noqa: FBT001 - the documented signature
        """Set `drop_last`."""
        self._drop_last = drop_last

    def set_output(self, output: Literal["torch", "numpy"]) -> None:
        """Set `output` of all datasets."""
        for dataset in self.datasets:
            dataset.set_output(output)

    def set_binary(self, binary: Literal["bytes", "view"]) -> None:
        """Say what becomes of bytes, in all datasets."""
        for dataset in self.datasets:
            dataset.set_binary(binary)

    def set_shuffle(self, shuffle: bool) -> None:  # noqa: FBT001 - the documented signature
        """Set `shuffle` of all datasets."""
        for dataset in self.datasets:
            dataset.set_shuffle(shuffle)

    def adopt(self, state: Mapping[str, Any]) -> Position:
        """Check a state, take over the order that it says, and return its position.

        Raises:
            ConfigError: It is no state of ours.
            ConflictError: It is of other data.
        """
        recognised(state)
        if isinstance(state["dataset"], list) and len(state["dataset"]) == len(self.datasets):
            for dataset, theirs in zip(self.datasets, state["dataset"], strict=True):
                dataset.open_version_of(theirs)
        ours = self.identity()
        if state["dataset"] != ours["dataset"]:
            raise ConflictError(f"the state is of other datasets: {state['dataset']} then, {ours['dataset']} now.")
        for dataset, order in zip(self.datasets, state["order"], strict=True):
            dataset.adopt_order(order, is_forced=self._is_forced)
        self._adopt_own(state)
        return Position(epoch=state["current_epoch"], consumed=state["consumed"], within=state["within"])

    def identity(self) -> dict[str, Any]:
        """Return what a state must agree with."""
        found = [dataset.identity() for dataset in self.datasets]
        return {"order": [each["order"] for each in found], "dataset": [each["dataset"] for each in found], **self._own_identity()}


def _place_of_all(datasets: Sequence[StreamingDataset]) -> Place | None:
    """Return the share that was given to the datasets; they must agree."""
    given = {dataset.given_place for dataset in datasets}
    if len(given) > 1:
        told = [None if place is None else tuple(place) for place in (dataset.given_place for dataset in datasets)]
        raise ConfigError(f"the datasets were given different shares (rank, world_size): {told}. Give all the same, or none.")
    return given.pop()
