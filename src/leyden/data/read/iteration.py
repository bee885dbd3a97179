"""`Share`: the samples that one rank, and one of its workers, hands out; what a bare `for sample in dataset` does.

The rank's rows of many steps are planned, fetched and gathered at once (a tray) and handed out one by one. Trays begin
with one step and double, so that the first sample comes soon and the later ones cost little.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from leyden.data.order.lanes import slice_for
from leyden.data.read.stream import Needs, Rows, Stream, delivered, delivered_to
from leyden.data.read.supply import LookAhead
from leyden.data.read.transform import Applies, keys_of

_TRAY_BYTES = 4 * 2**20
_MOST_ROWS = 4096
ENDLESS = 2**62  # positions of a stream without an end
_PLANNED_ROWS = 2048  # at most at once, when looking ahead


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Which samples of an epoch are handed out here.

    Args:
        epoch: The epoch.
        consumed: The global position to begin at.
        batch_size: Samples of a step, per rank.
        rank: This rank.
        world_size: Of how many.
        worker: The number of this worker of the rank; it takes every `num_workers`-th step.
        num_workers: Of how many.
        drop_last: Whether the last positions that fill no step are left out.
        step_size: Samples of a step of all ranks, where these differ; by default as many for each.
    """

    epoch: int
    consumed: int = 0
    batch_size: int = 1
    rank: int = 0
    world_size: int = 1
    worker: int = 0
    num_workers: int = 1
    drop_last: bool = False
    step_size: int | None = None

    @property
    def size(self) -> int:
        """Samples of a step, of all ranks."""
        return self.step_size or self.batch_size * self.world_size

    def count(self, num_rows: int) -> int:
        """Return how many samples this rank hands out, all its workers together."""
        steps, rest = divmod(max(0, num_rows - self.consumed), self.size)
        low, high = self._slice(rest)
        return steps * self.batch_size + (0 if self.drop_last else high - low)

    def trays(self, stream: Stream, row_bytes: int) -> Iterator[Rows]:
        """Yield the rows of this share in trays, in the order in which they are handed out.

        Args:
            stream: The order.
            row_bytes: About how large a row is.
        """
        num_rows = stream.rows_in(self.epoch)
        whole = ((ENDLESS if num_rows is None else num_rows) - self.consumed) // self.size
        most = max(1, min(_MOST_ROWS, _TRAY_BYTES // max(row_bytes, 1)) // self.batch_size)
        step, steps = 0, 1
        while step < whole:
            taken = min(steps * self.num_workers, whole - step)
            start = self.consumed + step * self.size
            rows = delivered_to(stream, self.epoch, (start, start + taken * self.size), self.size, (self.rank, self.world_size))
            yield self._of_worker(rows, step)
            step, steps = step + taken, min(2 * steps, most)
        if not self.drop_last and whole % self.num_workers == self.worker:
            rows = delivered(stream, self.epoch, self.consumed + whole * self.size, self.size)
            low, high = self._slice(len(rows))
            yield rows.cut(slice(low, high))

    def _of_worker(self, rows: Rows, first_step: int) -> Rows:
        if self.num_workers == 1:
            return rows
        steps = first_step + np.arange(len(rows)) // self.batch_size
        return rows.cut(steps % self.num_workers == self.worker)

    def _slice(self, count: int) -> tuple[int, int]:
        return slice_for(self.rank, self.world_size, count)


def samples_of(share: Share, stream: Stream, row_bytes: int, transform: Applies | None, ahead: "Ahead | None") -> Iterator[Any]:
    """Yield the samples of a share.

    Args:
        share: Which.
        stream: Where they are from.
        row_bytes: About how large a row is.
        transform: What the user wants done with each.
        ahead: What fetches the blocks of rows to come; `None` if all are local.
    """
    for rows in share.trays(stream, row_bytes):
        if not len(rows):
            continue
        if ahead is not None:
            ahead.advance(len(rows))
            stream.ready(stream.needs(rows))
        tray = stream.gather(rows)
        if transform is None:
            yield from tray.values(0, len(rows))
            continue
        for sample, key in zip(tray.values(0, len(rows)), keys_of(share.epoch, rows), strict=True):
            yield transform.apply_all([sample], [key])[0]


@final
class Ahead:
    """Keeps the blocks of a share's rows on their way, up to a number of bytes.

    Args:
        share: Which rows.
        stream: Where they are from.
        look_ahead: What counts the bytes.
        bases: Where the blocks of each source begin in a numbering of all of them; sorted, from 0.
        row_bytes: About how large a row is.
    """

    def __init__(self, share: Share, stream: Stream, look_ahead: LookAhead, bases: "tuple[int, ...]" = (0,), row_bytes: int = 0) -> None:
        self._stream = stream
        self._bases = np.array(bases, np.int64)
        self._look_ahead = look_ahead
        small = max(1, 4 * _TRAY_BYTES // max(1, look_ahead.budget_bytes))  # at most a quarter of what may be ahead is planned at once
        self._planned = share.trays(stream, max(row_bytes * small, _TRAY_BYTES // _PLANNED_ROWS))
        self._position = 0
        self._used = 0

    def advance(self, rows: int) -> None:
        """Take note that so many rows are read next, and ask for more blocks."""
        self._used += rows
        self._look_ahead.use(self._used)
        while not self._look_ahead.is_satisfied():
            planned = next(self._planned, None)
            if planned is None:
                return
            needs = self._stream.needs(planned)
            new = np.array(self._look_ahead.ask(self._position, (self._bases[needs.part] + needs.block).tolist()), np.int64)
            if len(new):
                part = np.searchsorted(self._bases, new, side="right") - 1
                self._stream.ahead(Needs(part.astype(np.int32), new - self._bases[part]))
            self._position += len(planned)
