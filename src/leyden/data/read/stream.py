"""`Stream`: one dataset, or several, as an order of rows and the arrays of any of them.

A loader plans, waits and gathers by this seam; whether rows come from one dataset, a mixture or a zip, from a disk or a
bucket, is behind it. Everything is per tray (many rows), nothing per sample.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.order.lanes import slice_for
from leyden.data.read.columns import Arena, TrayColumn
from leyden.data.read.gather import gather, groups
from leyden.data.read.merging import Table
from leyden.data.read.reading import Reading
from leyden.data.read.row import Samples
from leyden.data.read.subset import Runs


@final
@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in some order, as arrays of equal length.

    Args:
        part: int32, which source each is from; 0 of a single dataset.
        row: int64, the stored row, or the window of tokens.
        copy: int64, which copy.
        lane: int32, the lane of the order.
    """

    part: NDArray[np.int32]
    row: NDArray[np.int64]
    copy: NDArray[np.int64]
    lane: NDArray[np.int32]

    @classmethod
    def of_one(cls, row: NDArray[np.int64], copy: NDArray[np.int64], lane: NDArray[np.int32]) -> "Rows":
        """Return rows of a single dataset."""
        return cls(np.zeros(len(row), np.int32), row, copy, lane)

    @classmethod
    def joined(cls, parts: "Sequence[Rows]") -> "Rows":
        """Return several one after another."""
        return cls(
            np.concatenate([each.part for each in parts]),
            np.concatenate([each.row for each in parts]),
            np.concatenate([each.copy for each in parts]),
            np.concatenate([each.lane for each in parts]),
        )

    def __len__(self) -> int:
        return len(self.row)

    def cut(self, chosen: "slice | NDArray[Any]") -> "Rows":
        """Return some of the rows."""
        return Rows(self.part[chosen], self.row[chosen], self.copy[chosen], self.lane[chosen])


class RowOrder(Protocol):
    """The order of one dataset: a pure function of seed and epoch."""

    num_rows: int

    def rows(self, epoch: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Return rows, copies and lanes at positions `start` to `stop`."""
        ...


@final
class SequentialOrder:
    """The rows of a selection one after another, every epoch alike.

    Args:
        runs: The selection.
    """

    def __init__(self, runs: Runs) -> None:
        self.num_rows = runs.num_rows
        self._runs = runs

    def rows(self, epoch: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Return rows, copies and lanes at positions `start` to `stop`."""
        del epoch
        rows, copies = self._runs.at(np.arange(start, min(stop, self.num_rows)))
        return rows, copies, np.zeros(len(rows), np.int32)


class Tray(NamedTuple):
    """Rows that were read: one column per leaf.

    Args:
        columns: In the order of `samples.wanted`.
        samples: What the leaves are, and how they are put together.
        rows: Which rows they are.
    """

    columns: list[TrayColumn]
    samples: Samples
    rows: Rows

    def values(self, start: int, stop: int) -> list[Any]:
        """Return rows `start` to `stop` as samples."""
        return self.samples.values(self.columns, start, stop)

    def table(self) -> Table:
        """Return the columns with what they are."""
        return Table(self.samples.tree, self.samples.leaves, self.columns)


class TrayOfMany(Protocol):
    """What `Stream.gather` returns: a `Tray`, or several side by side."""

    def values(self, start: int, stop: int) -> list[Any]:
        """Return rows `start` to `stop` as samples."""
        ...

    def table(self) -> Table | None:
        """Return all rows as columns; `None` if their samples are not built alike."""
        ...


class Needs(NamedTuple):
    """Blocks in the order in which they are first needed.

    Args:
        part: Which source each is of.
        block: Its number there.
    """

    part: NDArray[np.int32]
    block: NDArray[np.int64]


class Stream(Protocol):
    """What a loader needs of datasets. Pickles as configuration."""

    def rows_in(self, epoch: int) -> int | None:
        """Return how many positions an epoch has, for all ranks; `None` if it has no end."""
        ...

    def known_from(self, epoch: int) -> int:
        """Return the position of an epoch from which on its rows are known."""
        ...

    def positions(self, epoch: int, start: int, stop: int) -> Rows:
        """Return the rows at global positions, in the order of positions; fewer at the end."""
        ...

    def arrange(self, rows: Rows, size: int) -> NDArray[np.int64]:
        """Return the order in which whole global batches are handed out: (batches, size), indices of rows."""
        ...

    def needs(self, rows: Rows) -> Needs:
        """Return the blocks that hold rows."""
        ...

    def ahead(self, needs: Needs) -> None:
        """Start to fetch blocks; returns at once."""
        ...

    def ready(self, needs: Needs, timeout: float | None = None) -> None:
        """Wait until blocks are at hand."""
        ...

    def gather(self, rows: Rows, arena: Arena | None = None) -> TrayOfMany:
        """Read rows into one array per leaf."""
        ...

    def never_fetch(self) -> None:
        """Take note that this process must not touch the object store: what is not in the cache raises `EvictedError`."""
        ...


def delivered(stream: Stream, epoch: int, consumed: int, size: int) -> Rows:
    """Return the global batch of `size` at position `consumed`, as it is handed out: by lane, then by position."""
    rows = stream.positions(epoch, consumed, consumed + size)
    return rows.cut(stream.arrange(rows, len(rows))[0]) if len(rows) else rows


def delivered_to(stream: Stream, epoch: int, span: tuple[int, int], size: int, place: tuple[int, int]) -> Rows:
    """Return one rank's slices of all whole global batches within positions, one after another; one sort for all of them.

    Args:
        stream: The order.
        epoch: The epoch.
        span: The first position, and the one behind the last; whole batches apart.
        size: Of a global batch.
        place: Rank and world size.
    """
    rank, world_size = place
    rows = stream.positions(epoch, *span)
    order = stream.arrange(rows.cut(slice(len(rows) // size * size)), size)
    low, high = slice_for(rank, world_size, size)
    return rows.cut(order[:, low:high].reshape(-1))


def all_ready(parts: "Iterable[tuple[DatasetStream, Needs]]", timeout: float | None) -> None:
    """Wait until the blocks of several datasets are at hand; `timeout` is for all of them."""
    deadline = None if timeout is None else time.monotonic() + timeout
    for part, needs in parts:
        part.ready(needs, None if deadline is None else max(0.0, deadline - time.monotonic()))


@final
class DatasetStream:
    """One dataset as a stream.

    Args:
        reading: Its source, opened.
        order: Its order.
    """

    def __init__(self, reading: Reading, order: RowOrder) -> None:
        self.reading = reading
        self.order = order

    def rows_in(self, epoch: int) -> int:
        """Return how many positions an epoch has."""
        del epoch
        return self.order.num_rows

    def known_from(self, epoch: int) -> int:
        """Return the first position of an epoch."""
        del epoch
        return 0

    def positions(self, epoch: int, start: int, stop: int) -> Rows:
        """Return the rows at positions, fewer at the end."""
        return Rows.of_one(*self.order.rows(epoch, start, min(stop, self.order.num_rows)))

    def arrange(self, rows: Rows, size: int) -> NDArray[np.int64]:
        """Return the order within global batches: by lane, then by position; one sort for all of them."""
        lanes = rows.lane.reshape(-1, size)
        return np.argsort(lanes, axis=1, kind="stable") + size * np.arange(len(lanes))[:, None]

    def needs(self, rows: Rows) -> Needs:
        """Return the blocks that hold rows, in the order of need."""
        blocks = self.reading.blocks_of(rows.row)
        return Needs(np.zeros(len(blocks), np.int32), blocks)

    def ahead(self, needs: Needs) -> None:
        """Start to fetch blocks; returns at once."""
        self.reading.ahead(needs.block.tolist())

    def ready(self, needs: Needs, timeout: float | None = None) -> None:
        """Wait until blocks are at hand."""
        self.reading.ready(needs.block.tolist(), timeout)

    def never_fetch(self) -> None:
        """Take note that this process must not touch the object store."""
        self.reading.never_fetch()

    def gather(self, rows: Rows, arena: Arena | None = None) -> Tray:
        """Read rows into one array per leaf."""
        return Tray(gather_rows(self.reading, rows.row, arena), self.reading.samples, rows)


def gather_rows(reading: Reading, rows: NDArray[np.int64], arena: Arena | None = None) -> list[TrayColumn]:
    """Return rows of a source as columns."""
    if reading.windows is not None:
        return list(reading.windows.gather(reading.open_block, rows, reading.token_dtype, arena))
    found = list(groups(reading.open_block, reading.table.first_row, rows))
    return gather(found, reading.samples.wanted, len(rows), arena)
