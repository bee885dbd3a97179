"""`MixedStream`: samples of several datasets in one sequence, which says for every position whose turn it is.

The sequence is a `Mixture`; this turns its picks into rows. Within a global batch the samples of each source are spread
evenly (stratified), so that every rank's slice shows the mixture, and samples of one source stay sorted by lane.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.order.mixture import Turns
from leyden.data.read.columns import Arena
from leyden.data.read.merging import Table, interleaved
from leyden.data.read.stream import DatasetStream, Needs, Rows, Tray, all_ready


class MixedTray(NamedTuple):
    """One tray of each source, and how their rows alternate.

    Args:
        parts: The trays; a source without rows has an empty one.
        part: int32, the source of each row.
        place: int64, its place in its source's tray.
        rows: Which rows they are.
    """

    parts: list[Tray]
    part: NDArray[np.int32]
    place: NDArray[np.int64]
    rows: Rows

    def values(self, start: int, stop: int) -> list[Any]:
        """Return rows `start` to `stop` as samples."""
        out: list[Any] = [None] * (stop - start)
        part, place = self.part[start:stop], self.place[start:stop]
        for index, tray in enumerate(self.parts):
            mine = np.flatnonzero(part == index)
            if len(mine):
                first = int(place[mine[0]])  # rows of a source keep their order, so they are one run of its tray
                for where, value in zip(mine.tolist(), tray.values(first, first + len(mine)), strict=True):
                    out[where] = value
        return out

    def table(self) -> Table | None:
        """Return all rows as columns; `None` if the sources' samples are not built alike."""
        return interleaved([tray.table() for tray in self.parts], self.part)


@final
class MixedStream:
    """Several datasets in one sequence.

    Args:
        parts: The datasets' streams.
        mixture: The sequence.
    """

    def __init__(self, parts: Sequence[DatasetStream], mixture: Turns) -> None:
        self._parts = list(parts)
        self._mixture = mixture

    def rows_in(self, epoch: int) -> int:
        """Return how many positions an epoch has."""
        return self._mixture.rows_in(epoch)

    def known_from(self, epoch: int) -> int:
        """Return the position of an epoch from which on the rows are known: where the weights were changed."""
        return self._mixture.known_from(epoch)

    def positions(self, epoch: int, start: int, stop: int) -> Rows:
        """Return the rows at positions, fewer at the end."""
        picks = self._mixture.picks(epoch, start, stop)
        count = len(picks.source)
        rows = Rows(picks.source.astype(np.int32), np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int32))
        for index, part in enumerate(self._parts):
            for own_epoch in np.unique(picks.epoch[picks.source == index]).tolist():
                mine = np.flatnonzero((picks.source == index) & (picks.epoch == own_epoch))
                low = int(picks.position[mine[0]])  # a source's picks are one after another
                found = part.positions(own_epoch, low, low + len(mine))
                later = own_epoch - epoch << 16  # so that a sample that comes again in this epoch draws other random numbers
                rows.row[mine], rows.copy[mine], rows.lane[mine] = found.row, found.copy + later, found.lane
        return rows

    def arrange(self, rows: Rows, size: int) -> NDArray[np.int64]:
        """Return the order within global batches: sources spread evenly, each by lane."""
        part, lane = rows.part.reshape(-1, size).astype(np.int64), rows.lane.reshape(-1, size)
        by_source = np.argsort(part << 32 | lane, axis=1, kind="stable")
        sorted_part = np.take_along_axis(part, by_source, axis=1)
        place, count = _counted(sorted_part)
        share = (place + 0.5) / count
        even = np.lexsort((sorted_part, share), axis=1)
        return np.take_along_axis(by_source, even, axis=1) + size * np.arange(len(part))[:, None]

    def needs(self, rows: Rows) -> Needs:
        """Return the blocks that hold rows, source by source."""
        found = [part.needs(rows.cut(rows.part == index)).block for index, part in enumerate(self._parts)]
        return Needs(np.repeat(np.arange(len(found), dtype=np.int32), list(map(len, found))), np.concatenate(found))

    def ahead(self, needs: Needs) -> None:
        """Start to fetch blocks."""
        for part, own in self._by_part(needs):
            part.ahead(own)

    def ready(self, needs: Needs, timeout: float | None = None) -> None:
        """Wait until blocks are at hand; all sources are asked before one is waited for."""
        self.ahead(needs)
        all_ready(self._by_part(needs), timeout)

    def _by_part(self, needs: Needs) -> list[tuple[DatasetStream, Needs]]:
        return [(part, Needs(needs.part[needs.part == index], needs.block[needs.part == index])) for index, part in enumerate(self._parts)]

    def never_fetch(self) -> None:
        """Take note that this process must not touch the object store."""
        for part in self._parts:
            part.never_fetch()

    def gather(self, rows: Rows, arena: Arena | None = None) -> MixedTray:
        """Read rows of all sources."""
        place = np.empty(len(rows), np.int64)
        trays = []
        for index, part in enumerate(self._parts):
            mine = np.flatnonzero(rows.part == index)
            place[mine] = np.arange(len(mine))
            trays.append(part.gather(rows.cut(mine), arena))
        return MixedTray(trays, rows.part, place, rows)


def _counted(part: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return of each sorted row's elements the place among its equals, and how many of these there are."""
    width = part.shape[1]
    index = np.broadcast_to(np.arange(width), part.shape)
    is_first = np.ones(part.shape, bool)
    is_first[:, 1:] = part[:, 1:] != part[:, :-1]
    is_last = np.ones(part.shape, bool)
    is_last[:, :-1] = is_first[:, 1:]
    start = np.maximum.accumulate(np.where(is_first, index, 0), axis=1)
    stop = np.minimum.accumulate(np.where(is_last, index, width)[:, ::-1], axis=1)[:, ::-1]
    return index - start, stop - start + 1
