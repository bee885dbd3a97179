"""`ParallelStreamingDataset`: samples of several datasets side by side, each going round as often as it takes."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.data.philox import TAG_ZIP, SampleRng
from leyden.data.read.columns import Arena
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.merging import Table, side_by_side
from leyden.data.read.several import SeveralDatasets
from leyden.data.read.stream import DatasetStream, Needs, Rows, Tray, all_ready
from leyden.data.read.transform import Key, Transform, takes_rng

GOES_ROUND = 0  # in `Rows.copy` of a zip: the epoch of each dataset follows from the position; else it is one less


class ZippedTray(NamedTuple):
    """One tray of each dataset, of equal rows.

    Args:
        parts: The trays.
        rows: Positions of the zip.
    """

    parts: list[Tray]
    rows: Rows

    def values(self, start: int, stop: int) -> list[Any]:
        """Return rows `start` to `stop` as tuples of samples."""
        return list(zip(*(part.values(start, stop) for part in self.parts), strict=True))

    def table(self) -> Table:
        """Return all rows as columns, side by side."""
        return side_by_side([part.table() for part in self.parts])


@final
class ZippedStream:
    """Several datasets side by side; a row is a position; in `copy` stands its epoch + 1, or `GOES_ROUND`.

    Args:
        parts: The datasets' streams.
        transforms: Their transforms.
        length: Positions of an epoch; `None` is the shortest dataset's, infinity has no end.
        resumes: Whether an epoch goes on where the last one ended.
    """

    def __init__(self, parts: Sequence[DatasetStream], length: "int | float | None", *, resumes: bool) -> None:
        self._parts = list(parts)
        self._sizes = [part.order.num_rows for part in parts]
        self._length, self._resumes = length, resumes
        self._num_rows: int | None = min(self._sizes) if length is None else None if length == float("inf") else int(length)

    def rows_in(self, epoch: int) -> int | None:
        """Return how many positions an epoch has; `None` if it has no end."""
        del epoch
        return self._num_rows

    def known_from(self, epoch: int) -> int:
        """Return the first position of an epoch."""
        del epoch
        return 0

    def positions(self, epoch: int, start: int, stop: int) -> Rows:
        """Return positions of the zip as rows."""
        found = np.arange(start, stop if self._num_rows is None else min(stop, self._num_rows))
        if self._length is None:
            return Rows(np.zeros(len(found), np.int32), found, np.full(len(found), epoch + 1), np.zeros(len(found), np.int32))
        first = (epoch - 1) * self._num_rows if self._resumes and self._num_rows is not None else 0
        return Rows.of_one(found + first, np.full(len(found), GOES_ROUND), np.zeros(len(found), np.int32))

    def arrange(self, rows: Rows, size: int) -> NDArray[np.int64]:
        """Return the order within global batches: that of positions."""
        return np.arange(len(rows)).reshape(-1, size)

    def needs(self, rows: Rows) -> Needs:
        """Return the blocks of all datasets."""
        found = [part.needs(self._rows_of(index, rows)) for index, part in enumerate(self._parts)]
        return Needs(
            np.concatenate([np.full(len(each.block), index, np.int32) for index, each in enumerate(found)]),
            np.concatenate([each.block for each in found]),
        )

    def ahead(self, needs: Needs) -> None:
        """Start to fetch blocks."""
        for part, own in self._by_part(needs):
            part.ahead(own)

    def ready(self, needs: Needs, timeout: float | None = None) -> None:
        """Wait until blocks are at hand."""
        self.ahead(needs)
        all_ready(self._by_part(needs), timeout)

    def never_fetch(self) -> None:
        """Take note that this process must not touch the object store."""
        for part in self._parts:
            part.never_fetch()

    def gather(self, rows: Rows, arena: Arena | None = None) -> ZippedTray:
        """Read rows of all datasets."""
        return ZippedTray([part.gather(self._rows_of(index, rows), arena) for index, part in enumerate(self._parts)], rows)

    def _by_part(self, needs: Needs) -> list[tuple[DatasetStream, Needs]]:
        return [(part, Needs(needs.part[needs.part == index], needs.block[needs.part == index])) for index, part in enumerate(self._parts)]

    def _rows_of(self, index: int, rows: Rows) -> Rows:
        """Return the rows of one dataset at positions of the zip."""
        size = self._sizes[index]
        epochs = np.where(rows.copy == GOES_ROUND, 1 + rows.row // size, rows.copy - 1)
        places = rows.row % size
        pieces: list[Rows] = []
        order: list[NDArray[np.int64]] = []
        for epoch in np.unique(epochs).tolist():
            mine = np.flatnonzero(epochs == epoch)
            low = int(places[mine].min())
            found = self._parts[index].positions(epoch, low, int(places[mine].max()) + 1)
            pieces.append(found.cut(places[mine] - low))
            order.append(mine)
        if not pieces:
            return rows
        back: NDArray[np.int64] = np.argsort(np.concatenate(order))
        return Rows.joined(pieces).cut(back)


@final
class ParallelStreamingDataset(SeveralDatasets):
    """Samples of several datasets side by side, as tuples.

    Args:
        datasets: The datasets.
        length: Samples of an epoch, for all ranks together; `None` is the shortest dataset's, `float("inf")` has no end. With a
            length, datasets that end begin anew.
        force_override_state_dict: Whether arguments given here win over those in a loaded state.
        transform: A function of `(samples)`, or of `(samples, rngs)` with generators `"random"`, `"numpy"` and `"torch"`.
        seed: Of those generators.
        resume: Whether, with a length, an epoch goes on where the last one ended.
        reset_rngs: Whether the generators are the same in every epoch.

    Raises:
        ConfigError: The length is no number ≥ 1.

    Example:
        ```python
        pairs = ParallelStreamingDataset([images, texts], length=10_000)
        for image, text in pairs: ...
        ```
    """

    def __init__(
        self,
        datasets: Sequence[StreamingDataset],
        length: "int | float | None" = None,
        force_override_state_dict: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        transform: Callable[..., Any] | None = None,
        seed: int = 42,
        resume: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        reset_rngs: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    ) -> None:
        super().__init__(datasets, force_override_state_dict=force_override_state_dict)
        if length is not None and (isinstance(length, bool) or not length >= 1 or (length != float("inf") and length != int(length))):
            raise ConfigError(
                f"length={length!r} is not accepted: it takes a number of samples ≥ 1, float('inf'), or None for the shortest."
            )
        self.length, self.seed, self.resume, self.reset_rngs = length, seed, resume, reset_rngs
        self._function = transform

    def stream(self, global_batch_size: int = 1) -> ZippedStream:
        """Return the order and the arrays, for a loader."""
        del global_batch_size
        return ZippedStream([each.stream() for each in self.datasets], self.length, resumes=self.resume)

    @property
    def row_transform(self) -> "ZipTransform | None":
        """What is done with each tuple of samples."""
        of_each = [each.row_transform for each in self.datasets]
        if self._function is None and not any(of_each):
            return None
        return ZipTransform(of_each, self._function, self.seed, resets=self.reset_rngs)


@final
class ZipTransform:
    """Each dataset's own transform, then that of the tuple; keyed by position, so that it is the same for any ranks.

    Args:
        of_each: The datasets' transforms.
        function: Of the tuple.
        seed: Of its generators.
        resets: Whether they are the same in every epoch.
    """

    def __init__(self, of_each: Sequence[Transform | None], function: Callable[..., Any] | None, seed: int, *, resets: bool) -> None:
        self._of_each, self._function, self._seed, self._resets = of_each, function, seed, resets
        self._takes_rng = function is not None and takes_rng(function)

    @property
    def uses_globals(self) -> bool:
        """Whether a function may draw from the global generators."""
        return (self._function is not None and not self._takes_rng) or any(each.uses_globals for each in self._of_each if each is not None)

    def apply_all(self, samples: Iterable[Any], keys: Sequence[Key]) -> list[Any]:
        """Return tuples of samples transformed.

        Args:
            samples: The tuples.
            keys: Of each, with its position as row.
        """
        return [self._applied(sample, 0 if self._resets else key[0], key[1]) for sample, key in zip(samples, keys, strict=True)]

    def _applied(self, samples: Sequence[Any], epoch: int, position: int) -> Any:
        done = tuple(
            sample if each is None else each.apply_all([sample], [Key(epoch, position, 0)])[0]
            for each, sample in zip(self._of_each, samples, strict=True)
        )
        if self._function is None:
            return done
        if not self._takes_rng:
            return self._function(done)
        return self._function(done, _Generators(SampleRng(self._seed, epoch, position, tag=TAG_ZIP)))


class _Generators(dict[str, Any]):
    """The generators by name; torch's is made when it is asked for."""

    def __init__(self, rng: SampleRng) -> None:
        super().__init__(random=random.Random(rng.seed), numpy=rng.numpy)  # noqa: S311 - not for secrets
        self._rng = rng

    def __missing__(self, name: str) -> Any:
        if name != "torch":
            raise KeyError(name)
        self[name] = self._rng.torch
        return self[name]
