"""`CombinedStreamingDataset`: several datasets as one, mixed by weights that may change while it runs."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from leyden.core.arguments import one_of
from leyden.core.errors import ConfigError, ConfigTypeError, ConflictError
from leyden.data.order.mixture import BatchedMixture, End, Mixture, quotas_of
from leyden.data.read.combined import MixedStream
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.several import SeveralDatasets
from leyden.data.read.states import Position
from leyden.data.read.transform import Applies, EachTransform

BatchingMethod = Literal["stratified", "per_stream"]


@final
class CombinedStreamingDataset(SeveralDatasets):
    """Samples of several datasets in one sequence, the same for any number of ranks and workers.

    Args:
        datasets: The datasets.
        seed: Of the sequence.
        weights: How often each comes; by default as often as it has samples. Not with `iterate_over_all`.
        iterate_over_all: Whether an epoch hands out every sample of every dataset once; else it ends where one runs out.
        batching_method: `"stratified"` mixes all datasets in every batch, `"per_stream"` takes each batch from one of them; there, the
            samples that fill no batch of their dataset are left out.
        force_override_state_dict: Whether arguments given here win over those in a loaded state.
        epoch_size: Samples of an epoch, at most.
        temperature: Weights become sizes ** (1 / temperature): 1 is by size, more is closer to even.
        repeat: Whether datasets that run out begin anew; needs `epoch_size`.

    Raises:
        ConfigError: Arguments contradict each other, or weights are negative or not as many as datasets.

    Example:
        ```python
        mix = CombinedStreamingDataset([text, code], weights=[0.7, 0.3], iterate_over_all=False)
        for sample in mix: ...
        mix.set_weights([0.5, 0.5])  # at any time; holds from the next step on
        ```
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        datasets: Sequence[StreamingDataset],
        seed: int = 42,
        weights: Sequence[float] | None = None,
        iterate_over_all: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        batching_method: BatchingMethod = "stratified",
        force_override_state_dict: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        *,
        epoch_size: int | None = None,
        temperature: float | None = None,
        repeat: bool = False,
    ) -> None:
        super().__init__(datasets, force_override_state_dict=force_override_state_dict)
        self.batching_method: BatchingMethod = one_of("batching_method", batching_method, ("stratified", "per_stream"))
        iterate_over_all = iterate_over_all and not repeat
        if iterate_over_all and (weights is not None or temperature is not None):
            raise ConfigError("iterate_over_all=True hands out every sample once, so weights mean nothing: pass iterate_over_all=False.")
        if weights is not None and temperature is not None:
            raise ConfigError("weights and temperature both say how often each dataset comes: pass one of them.")
        if epoch_size is not None and (isinstance(epoch_size, bool) or epoch_size < 1):
            raise ConfigError(f"epoch_size={epoch_size!r} is not accepted: it takes a number of samples ≥ 1.")
        self._seed, self._epoch_size = seed, epoch_size
        self._end: End = "never" if repeat else "all" if iterate_over_all else "shortest"
        self._weights = self._first_weights(weights, temperature)
        self._pending: list[float] | None = None
        self._mixture: Mixture | None = None
        self._size = 1  # of a global batch, which a mixture of whole batches is made for
        self._is_bound = False  # whether positions of the epoch at work count batches of that size
        if not self._existing().rows_in(1):
            warnings.warn("a dataset of the mixture is empty, so the mixture is.", stacklevel=2)

    def _first_weights(self, weights: Sequence[float] | None, temperature: float | None) -> list[float]:
        if weights is not None:
            return self._checked(weights)
        sizes = [float(dataset.num_rows) for dataset in self.datasets]
        if temperature is None:
            return sizes
        if not temperature > 0:
            raise ConfigError(f"temperature={temperature!r} is not accepted: it takes a number > 0; 1 is by size, more is closer to even.")
        return [size ** (1 / temperature) for size in sizes]

    def _checked(self, weights: Sequence[float]) -> list[float]:
        found = [float(weight) for weight in weights]
        if len(found) != len(self.datasets):
            raise ConfigError(f"weights={weights!r} are {len(found)}, and there are {len(self.datasets)} datasets: give each its own.")
        if any(weight < 0 or not math.isfinite(weight) for weight in found) or not sum(found) > 0:
            raise ConfigError(f"weights={weights!r} are not accepted: they take numbers ≥ 0, of which one at least is above 0.")
        return found

    @property
    def weights(self) -> list[float]:
        """How often each dataset comes, as parts of 1."""
        chosen = self._pending or self._weights
        return [weight / sum(chosen) for weight in chosen]

    def set_weights(self, weights: Sequence[float]) -> None:
        """Let other weights hold from the next step on: the first one that was not handed out. Call it on all ranks at the same step.

        Raises:
            ConfigError: They are no weights, or every sample comes once anyway.
        """
        if self._end == "all":
            raise ConfigError("iterate_over_all=True hands out every sample once, so there are no weights to change.")
        self._pending = self._checked(weights)
        self.revision += 1

    def settle(self, position: Position) -> None:
        """Let new weights begin at a position."""
        if self._pending is not None:
            self._weights, self._pending = self._pending, None
            where = position.consumed // self._size if self.batching_method == "per_stream" else position.consumed
            self._existing().set_quotas(quotas_of(self._weights), position.epoch, where)

    def begin(self, position: Position) -> None:
        """Take note that an iteration begins at a position."""
        self._is_bound = position.consumed > 0 and self._is_bound
        if position.consumed == 0:
            self._existing().begin(position.epoch)
        self.settle(position)

    def stream(self, global_batch_size: int = 1) -> MixedStream:
        """Return the order and the arrays, for a loader.

        Args:
            global_batch_size: Samples of a step of all ranks.
        """
        parts = [dataset.stream() for dataset in self.datasets]
        if self.batching_method == "per_stream" and global_batch_size != self._size:
            if self._is_bound:
                raise ConflictError(
                    f"the state was taken with batches of {self._size} samples of all ranks together, each from one dataset, and now they "
                    f"have {global_batch_size}. Pass StreamingDataLoader(global_batch_size={self._size}), or begin an epoch: set_epoch(…)."
                )
            self._size, self._mixture = global_batch_size, None
        mixture = self._existing()
        return MixedStream(parts, BatchedMixture(mixture, self._size) if self.batching_method == "per_stream" else mixture)

    def rows_in(self, epoch: int, global_batch_size: int = 1) -> int | None:
        """Return how many samples an epoch has for all ranks together; the mixture at work stays what it is.

        Args:
            epoch: Which one.
            global_batch_size: Samples of a step of all ranks.
        """
        if self.batching_method == "per_stream" and global_batch_size != self._size:
            return BatchedMixture(self._made(global_batch_size), global_batch_size).rows_in(epoch)
        return super().rows_in(epoch, global_batch_size)

    def _existing(self) -> Mixture:
        if self._mixture is None:
            self._mixture = self._made(self._size if self.batching_method == "per_stream" else 1)
        return self._mixture

    def _made(self, size: int) -> Mixture:
        """Return a mixture at its beginning, of whole batches of a size."""
        sizes = [dataset.num_rows // size for dataset in self.datasets]
        quotas = sizes if self._end == "all" else quotas_of(self._weights)
        epoch_size = None if self._epoch_size is None else self._epoch_size // size
        self._check_batches(size, sizes, epoch_size)
        return Mixture(sizes, quotas, seed=self._seed, end=self._end, epoch_size=epoch_size)

    def _check_batches(self, size: int, sizes: Sequence[int], epoch_size: int | None) -> None:
        """Refuse whole batches of one dataset each that some dataset never fills."""
        short = [dataset for dataset, count in zip(self.datasets, sizes, strict=True) if not count]
        if size > 1 and short and (self._end != "all" or len(short) == len(sizes)):
            raise ConfigError(
                f"batching_method='per_stream' with batches of {size} samples of all ranks together: {short[0]!r} fills none. Take smaller "
                "batches, or batching_method='stratified'."
            )
        if epoch_size == 0:
            raise ConfigError(f"epoch_size={self._epoch_size} holds no batch of {size} samples of all ranks together: make it larger.")

    @property
    def row_transform(self) -> Applies | None:
        """What is done with each sample: the transform of the dataset that it is from."""
        of_each = [dataset.row_transform for dataset in self.datasets]
        return EachTransform(of_each) if any(of_each) else None

    def _own_identity(self) -> dict[str, Any]:
        size = self._size if self.batching_method == "per_stream" else 1
        return {"mixture": {"batch": size, **self._existing().state()}}

    def _adopt_own(self, state: Mapping[str, Any]) -> None:
        theirs = state["mixture"]
        if not isinstance(theirs, Mapping) or len(theirs["quotas"]) != len(self.datasets):
            raise ConfigTypeError("the state is not one of a mixture of these datasets.")
        size = self._size if self.batching_method == "per_stream" else 1
        if theirs["batch"] != size and state["consumed"] and self.batching_method != "per_stream":
            raise ConflictError(
                f"the state is of batching_method='per_stream' with batches of {theirs['batch']} samples of all ranks together: pass the "
                "same."
            )
        if theirs["batch"] != size:
            self._size, self._mixture = theirs["batch"], None
        self._is_bound = self.batching_method == "per_stream" and state["consumed"] > 0
        if self._is_forced:
            if theirs["quotas"] != self._existing().state()["quotas"]:
                self._pending = list(self._weights)  # ours hold from the loaded position on
        else:
            self._weights, self._pending = [float(quota) for quota in theirs["quotas"]], None
        self._existing().load(theirs)
