"""`Work`: what is done with a tray, wherever it is done: in this thread, in another one, or in a worker process."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from leyden.data.loader.collate import Collator
from leyden.data.loader.trace import Span, span
from leyden.data.loader.trays import Task, bytes_of
from leyden.data.read.columns import Arena
from leyden.data.read.merging import Table
from leyden.data.read.stream import Stream, TrayOfMany
from leyden.data.read.transform import Applies, Key, Transform, keys_of


class Made(NamedTuple):
    """A tray that was read: columns of which batches are slices, or finished batches.

    Args:
        table: The columns.
        batches: The finished batches, if the user's code had to see samples.
        spans: When the stages of its making were at work.
    """

    table: Table | None = None
    batches: list[Any] | None = None
    spans: Sequence[Span] = ()

    def row_bytes(self, rows: int) -> int:
        """Return about how much memory a row takes."""
        if self.table is None or not rows:
            return 0
        return sum(bytes_of(column.values) for column in self.table.columns) // rows


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is done with trays. Pickles if the user's functions do.

    Args:
        stream: Where rows come from.
        collator: Makes batches.
        transform: What is done with each sample.
        collate_fn: What makes a batch of samples, in the collator's place.
        batch_transform: What is done with each batch.
        is_remote: Whether blocks must be waited for.
        rank: Of this process, which the random numbers of `batch_transform` depend on.
    """

    stream: Stream
    collator: Collator
    transform: Applies | None = None
    collate_fn: Callable[[list[Any]], Any] | None = None
    batch_transform: Transform | None = None
    is_remote: bool = False
    rank: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether no code of the user's runs."""
        return self.transform is None and self.collate_fn is None and self.batch_transform is None

    @property
    def uses_globals(self) -> bool:
        """Whether the user's code may draw from the global generators, which all threads share."""
        return any(each is not None and each.uses_globals for each in (self.transform, self.batch_transform))

    def make(self, task: Task, arena: Arena | None = None) -> Made:
        """Read a tray.

        Args:
            task: Which rows.
            arena: Where arrays shall lie.
        """
        start = time.perf_counter()
        tray = self.stream.gather(task.rows, arena)
        gathered = span("gather", start)
        made = self._made_of(task, tray)
        return made._replace(spans=(gathered, span("make batches", gathered.stop)))

    def _made_of(self, task: Task, tray: TrayOfMany) -> Made:
        if self.transform is not None or self.collate_fn is not None:
            return Made(batches=self._changed(task, [self._of_samples(task, tray, index) for index in range(len(task.consumed))]))
        table = tray.table()
        batch_of = None if table is None else self.collator.of_table(table)
        if batch_of is None:
            return Made(batches=self._changed(task, [self._of_samples(task, tray, index) for index in range(len(task.consumed))]))
        if self.batch_transform is None:
            return Made(table)
        batches = [batch_of(task.borders[index], task.borders[index + 1]) for index in range(len(task.consumed))]
        return Made(batches=self._changed(task, batches))

    def _of_samples(self, task: Task, tray: TrayOfMany, index: int) -> Any:
        start, stop = task.borders[index : index + 2]
        samples = tray.values(start, stop)
        if self.transform is not None:
            samples = self.transform.apply_all(samples, keys_of(task.epoch, task.rows.cut(slice(start, stop))))
        return self.collator.of_samples(samples) if self.collate_fn is None else self.collate_fn(samples)

    def _changed(self, task: Task, batches: list[Any]) -> list[Any]:
        if self.batch_transform is None:
            return batches
        return self.batch_transform.apply_all(batches, [Key(task.epoch, consumed, self.rank) for consumed in task.consumed])


def batches_of(made: Made, task: Task, collator: Collator) -> "Callable[[int], Any]":
    """Return the function from a batch's number to the batch."""
    if made.batches is not None:
        return made.batches.__getitem__
    if made.table is None:
        raise AssertionError("a tray is columns or batches")
    batch_of = collator.of_table(made.table)
    if batch_of is None:
        raise AssertionError("whoever made the tray has found out that its columns make batches")
    borders = task.borders
    return lambda index: batch_of(borders[index], borders[index + 1])
