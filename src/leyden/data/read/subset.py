"""`Runs`: which rows of a dataset are meant, and in which order: the selection that orders, subsets and splits work on.

A run is (first stored row, how many, which copy). All rows of a plain dataset are one run; deleted rows, subsets, parts
of a split and copies of upsampling make more. Everything is arrays: a run is never a Python object.
"""

import warnings
from collections.abc import Sequence
from typing import final

import numpy as np
import xxhash
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.data.format.table import BlockTable
from leyden.data.philox import TAG_SPLIT, TAG_SUBSAMPLE, perm

MOST_UNITS = 2**18
_ROUNDING = 1e-9  # by which fractions may exceed 1


@final
class Runs:
    """A selection of rows.

    Args:
        first: int64 (runs,), stored row that a run begins with.
        rows: int64 (runs,), how many it has.
        copy: int64 (runs,), 0, or the number of the copy of upsampling.

    Example:
        >>> Runs.all_of(5).at(np.array([4, 0]))[0].tolist()
        [4, 0]
    """

    def __init__(self, first: NDArray[np.int64], rows: NDArray[np.int64], copy: NDArray[np.int64] | None = None) -> None:
        keep = rows > 0
        self.first, self.rows = first[keep], rows[keep]
        self.copy = np.zeros(len(self.first), np.int64) if copy is None else copy[keep]
        self.ends = np.cumsum(self.rows)

    @classmethod
    def all_of(cls, num_rows: int, deleted: NDArray[np.int64] | None = None) -> "Runs":
        """Return all rows but the deleted ones.

        Args:
            num_rows: Stored rows.
            deleted: Those that are gone, ascending.
        """
        gone = np.zeros(0, np.int64) if deleted is None else deleted
        starts = np.concatenate([np.zeros(1, np.int64), gone + 1])
        return cls(starts, np.append(gone, num_rows) - starts)

    @classmethod
    def of_rows(cls, rows: NDArray[np.int64], copies: NDArray[np.int64]) -> "Runs":
        """Return the selection of these rows in this order; neighbours become one run."""
        if not len(rows):
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(copies) != 0)) + 1
        starts = np.concatenate([np.zeros(1, np.int64), breaks])
        return cls(rows[starts], np.diff(np.append(starts, len(rows))), copies[starts])

    @property
    def num_rows(self) -> int:
        """How many rows are selected."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def digest(self) -> str:
        """What two equal selections have in common: the hash of their runs."""
        return xxhash.xxh3_128_hexdigest(np.stack([self.first, self.rows, self.copy], axis=1).astype("<i8").tobytes())

    def at(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the stored rows and copies at places of the selection."""
        run = np.searchsorted(self.ends, indices, side="right")
        return self.first[run] + indices - (self.ends[run] - self.rows[run]), self.copy[run]

    def take(self, indices: NDArray[np.int64]) -> "Runs":
        """Return the selection of the rows at these places, in this order."""
        return Runs.of_rows(*self.at(indices))

    def between(self, start: int, stop: int) -> "Runs":
        """Return the rows at places `start` to `stop`."""
        begins = self.ends - self.rows
        low, high = np.clip(start - begins, 0, self.rows), np.clip(stop - begins, 0, self.rows)
        return Runs(self.first + low, np.maximum(high - low, 0), self.copy)

    def cut(self, borders: NDArray[np.int64]) -> "Runs":
        """Return the same rows as pieces that do not cross borders.

        Args:
            borders: Stored rows at which units begin, ascending, from 0.
        """
        unit_of_first = np.searchsorted(borders, self.first, side="right") - 1
        unit_of_last = np.searchsorted(borders, self.first + self.rows - 1, side="right") - 1
        count = unit_of_last - unit_of_first + 1
        run = np.repeat(np.arange(len(self.first)), count)
        number = np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
        unit = unit_of_first[run] + number
        limits = np.append(borders, np.iinfo(np.int64).max)
        first = np.maximum(self.first[run], limits[unit])
        stop = np.minimum(self.first[run] + self.rows[run], limits[unit + 1])
        return Runs(first, stop - first, self.copy[run])

    def permuted_between(self, order: NDArray[np.int64], start: int, stop: int) -> "Runs":
        """Return rows `start` to `stop` of these pieces in another order, as runs that ascend again."""
        chosen = Runs(self.first[order], self.rows[order], self.copy[order]).between(start, stop)
        back = np.lexsort((chosen.first, chosen.copy))
        return Runs(chosen.first[back], chosen.rows[back], chosen.copy[back])


def choose_unit_blocks(table: BlockTable, least: int) -> int:
    """Return how many consecutive blocks of a chunk make a unit of shuffling: `least`, doubled until there are ≤ 2¹⁸ units."""
    per_chunk = np.bincount(table.chunk) if len(table.chunk) else np.zeros(1, np.int64)
    blocks = least
    while int((-(-per_chunk // blocks)).sum()) > MOST_UNITS:
        blocks *= 2
    return blocks


def unit_borders(table: BlockTable, unit_blocks: int) -> NDArray[np.int64]:
    """Return the rows at which units begin: every `unit_blocks` blocks, and where a chunk does."""
    if not len(table.chunk):
        return np.zeros(0, np.int64)
    chunk_starts = np.flatnonzero(np.diff(table.chunk, prepend=table.chunk[0] - 1))
    number = np.arange(len(table.chunk)) - np.repeat(chunk_starts, np.diff(np.append(chunk_starts, len(table.chunk))))
    starts = table.first_row[number % unit_blocks == 0]
    return starts[np.flatnonzero(np.diff(starts, prepend=starts[0] - 1))]  # they ascend: blocks without rows begin where the next does


def subsampled(runs: Runs, factor: float, borders: NDArray[np.int64], seed: int | None) -> Runs:
    """Return ⌊factor · N⌋ rows: whole copies, and a part of one more.

    Args:
        runs: All rows.
        factor: How much of them; above 1 there are copies.
        borders: Of units; the part is drawn from whole ones.
        seed: Of the draw; `None` takes the first rows.
    """
    copies, part = int(factor), factor - int(factor)
    count = int(runs.num_rows * part + _ROUNDING)
    kept = [Runs(runs.first, runs.rows, runs.copy + number) for number in range(copies)]
    if count:
        source = Runs(runs.first, runs.rows, runs.copy + copies)
        if seed is None:
            kept.append(source.between(0, count))
        else:
            pieces = source.cut(borders)
            kept.append(pieces.permuted_between(perm(seed, TAG_SUBSAMPLE, 0, 0, len(pieces.first)), 0, count))
    if not kept:
        raise ConfigError(f"subsample={factor} of {runs.num_rows} rows leaves none: take a larger one.")
    return Runs(*(np.concatenate([getattr(each, name) for each in kept]) for name in ("first", "rows", "copy")))


def split_runs(runs: Runs, splits: Sequence[float], borders: NDArray[np.int64], seed: int | None) -> list[Runs]:
    """Return disjoint parts of exactly ⌊N · f⌋ rows each.

    Args:
        runs: All rows.
        splits: A fraction for each part.
        borders: Of units; parts are cut from whole ones in permuted order.
        seed: Of the permutation; `None` leaves the order.

    Raises:
        ConfigError: A fraction is not in [0, 1], or their sum exceeds 1.
    """
    splits = splits.tolist() if isinstance(splits, np.ndarray) else splits
    if any(isinstance(part, bool) or not isinstance(part, int | float) for part in splits):
        raise ConfigError(f"splits={list(splits)!r} is not accepted. Each split should be a float. For example [0.9, 0.1].")
    if not len(splits) or any(not 0 <= part <= 1 for part in splits) or sum(splits) > 1 + _ROUNDING:
        raise ConfigError(f"splits={list(splits)!r} is not accepted: each is in [0, 1], and their sum is at most 1, such as [0.9, 0.1].")
    pieces = runs.cut(borders)
    count = len(pieces.first)
    order = np.arange(count) if seed is None else perm(seed, TAG_SPLIT, 0, 0, count)
    parts: list[Runs] = []
    start = 0
    for part in splits:
        stop = min(start + int(runs.num_rows * part + _ROUNDING), runs.num_rows)
        parts.append(pieces.permuted_between(order, start, stop))
        if start == stop and part:
            raise ConfigError(f"a split of {part} of {runs.num_rows} rows is empty: take a larger one, or 0 for none.")
        if start == stop:
            warnings.warn(f"a split of {part} of {runs.num_rows} rows is empty.", stacklevel=3)
        start = stop
    return parts
