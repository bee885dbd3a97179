"""`Tasks`: the batches of an epoch that one rank hands out, cut into trays: several batches that are read at once.

Trays begin with one batch, so that the first comes soon, and double up to what fits into some megabytes: a batch of 64
touches 64 blocks, and a tray of a hundred batches takes many rows from each of them.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.order.lanes import slice_for
from leyden.data.read.iteration import ENDLESS
from leyden.data.read.stream import Rows, Stream, delivered, delivered_to

LastBatch = Literal["drop", "partial", "pad"]
_TRAY_BYTES = 8 * 2**20
_MOST_ROWS = 65_536


class Steps(NamedTuple):
    """Which batches of an epoch one rank hands out.

    Args:
        epoch: The epoch.
        consumed: The global position to begin at.
        size: Samples of a batch of all ranks.
        rank: This rank.
        world_size: Of how many.
        last: What becomes of the last positions that fill no batch.
    """

    epoch: int
    consumed: int
    size: int
    rank: int
    world_size: int
    last: LastBatch

    def count(self, num_rows: int) -> int:
        """Return how many batches there are from here; equal on all ranks."""
        whole, rest = divmod(max(0, num_rows - self.consumed), self.size)
        return whole + (1 if rest and self.last != "drop" else 0)


class Task(NamedTuple):
    """A tray to be read.

    Args:
        number: Its place among the trays.
        rows: All rows of this rank, batch after batch.
        borders: Where batches begin in the rows, and the end of the last.
        consumed: The global position after each batch.
        padding: How many of the last batch's rows only fill it up.
        epoch: The epoch.
    """

    number: int
    rows: Rows
    borders: list[int]
    consumed: list[int]
    padding: int
    epoch: int


@final
class TraySize:
    """How many batches the next tray has.

    Args:
        batch_rows: Rows of a batch.
        row_bytes: About how large a row is, as stored; `learn` puts in what it takes when it is read.
        is_single: Whether each batch is a tray of its own, because the user's code works on it.
    """

    def __init__(self, batch_rows: int, row_bytes: int, *, is_single: bool) -> None:
        self._batch_rows, self._row_bytes, self._is_single = batch_rows, row_bytes, is_single
        self._next = 1

    def take(self) -> int:
        """Return the number of batches of the next tray."""
        if self._is_single:
            return 1
        most = max(1, min(_MOST_ROWS, _TRAY_BYTES // max(self._row_bytes, 1)) // max(self._batch_rows, 1))
        taken = min(self._next, most)
        self._next = 2 * taken
        return taken

    def learn(self, row_bytes: int) -> None:
        """Take note of how large rows are when they are read."""
        self._row_bytes = max(self._row_bytes, row_bytes)


def tasks(steps: Steps, stream: Stream, size: TraySize) -> Iterator[Task]:
    """Yield the trays of an epoch, from a position on.

    Args:
        steps: Which batches.
        stream: Their order.
        size: How many a tray has.
    """
    num_rows = stream.rows_in(steps.epoch)
    left = max(0, (ENDLESS if num_rows is None else num_rows) - steps.consumed)
    whole, rest = divmod(left, steps.size)
    low, high = slice_for(steps.rank, steps.world_size, steps.size)
    done = number = 0
    while done < whole:
        taken = min(size.take(), whole - done)
        start = steps.consumed + done * steps.size
        stop = start + taken * steps.size
        rows = delivered_to(stream, steps.epoch, (start, stop), steps.size, (steps.rank, steps.world_size))
        borders = list(range(0, taken * (high - low) + 1, high - low))
        yield Task(number, rows, borders, list(range(start + steps.size, stop + 1, steps.size)), 0, steps.epoch)
        done, number = done + taken, number + 1
    if rest and steps.last != "drop":
        last = _last(steps, stream, steps.consumed + whole * steps.size, number)
        if len(last.rows):
            yield last


def _last(steps: Steps, stream: Stream, start: int, number: int) -> Task:
    real = delivered(stream, steps.epoch, start, steps.size)
    rows = [real]
    total = start + len(real)
    count = len(real)
    if steps.last == "pad":
        first = stream.known_from(steps.epoch)
        while count < steps.size:  # an epoch smaller than a batch goes round
            rows.append(delivered(stream, steps.epoch, first, min(steps.size - count, total - first)))
            count += len(rows[-1])
    low, high = slice_for(steps.rank, steps.world_size, count)
    padding = max(0, high - max(low, len(real)))
    return Task(number, Rows.joined(rows).cut(slice(low, high)), [0, high - low], [total], padding, steps.epoch)


def bytes_of(values: "NDArray[Any] | list[Any]") -> int:
    """Return about how much memory a column's values take."""
    if isinstance(values, np.ndarray):
        return values.nbytes
    return sum(len(value) if isinstance(value, str | bytes) else getattr(value, "nbytes", 64) for value in values[:64]) * len(values) // 64
