"""One unit of `add_columns`: a function over the rows of a chunk, into a file of the same blocks with the new columns alone."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.errors import SchemaError, UnitFailedError
from leyden.data.format.chunk import ChunkEntry, Origin
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.format.column import NULL, Column
from leyden.data.format.leaves import LeafRules
from leyden.data.format.manifest import Manifest
from leyden.data.format.tree import SampleBuilder
from leyden.data.interop.columns import taken
from leyden.data.read.dataset import StreamingDataset
from leyden.data.write.changes.deleting import deleted_in
from leyden.data.write.changes.rewriting import ChunkOutput, write_chunk
from leyden.data.write.changes.scanning import opened_once
from leyden.data.write.changes.target import Target, open_target
from leyden.data.write.unit import Reports, Task

PREFIX = "columns"


@final
class ColumnWork:
    """What makes the new columns of a version; pickles as configuration.

    Args:
        function: The user's: returns a dict of a sample.
        url: The dataset.
        options: Of its storage.
        version: Whose rows.
        reading: What else `StreamingDataset` is told: which leaves the function gets, and as what.
    """

    def __init__(
        self, function: Callable[[Any], Mapping[str, Any]], url: str, options: Mapping[str, Any], version: int, reading: Mapping[str, Any]
    ) -> None:
        self.function, self._url, self._options, self._version, self._reading = function, url, options, version, reading
        self._opened: _Rows | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __call__(self, sample: Any) -> Mapping[str, Any]:
        """Return the new columns of a sample."""
        return self.function(sample)

    def rows(self, encryption: Any) -> "_Rows":
        """Return the rows of the version; it is opened once in each process."""
        if self._opened is None:
            target = open_target(self._url, self._options, version=self._version)
            self._opened = _Rows(target, opened_once(target, encryption=encryption, **self._reading))
        return self._opened


@final
class _Rows:
    """The rows of each block, and which of them are left."""

    def __init__(self, target: Target, dataset: StreamingDataset) -> None:
        self.manifest, self.dataset = target.manifest, dataset
        self._table = self.manifest.table
        gone = deleted_in(target)
        self._gone = np.zeros(0, np.int64) if gone is None else gone
        self._first_block = np.searchsorted(self._table.chunk, np.arange(len(self.manifest.chunks) + 1)).tolist()

    def blocks_of(self, chunk: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield the first number, as the dataset counts, and for each row of the block whether it is left."""
        for block in range(self._first_block[chunk], self._first_block[chunk + 1]):
            first, rows = int(self._table.first_row[block]), int(self._table.rows[block])
            low, high = np.searchsorted(self._gone, [first, first + rows]).tolist()
            is_left = np.ones(rows, np.bool_)
            is_left[self._gone[low:high] - first] = False
            yield first - low, is_left


def run_column_unit(task: Task, unit: int, first: int, inputs: Sequence[Any], without: frozenset[int], report: Reports) -> dict[str, Any]:
    """Make the column files of some chunks, and return the record; they are in the dataset.

    Args:
        task: The job's; its function is a `ColumnWork`.
        unit: The unit's number.
        first: The number of its first input.
        inputs: Numbers of chunks.
        without: Nothing: a chunk cannot be left out.
        report: Hears which input is worked on.

    Raises:
        UnitFailedError: The function failed.
        SchemaError: It returned what cannot be stored, or what is there already.
        StorageError: The storage refuses.
    """
    del without
    start = time.monotonic()
    work: Any = task.function
    rows = work.rows(task.encryption)
    output, samples = output_of_columns(task, rows.manifest), _Made(task.rules, rows.manifest)
    files: dict[str, Any] = {}
    for index, chunk in enumerate(inputs, start=first):
        report(index)
        blocks = _with_dead_blocks(_live_blocks(rows, chunk, work, samples))
        entry = write_chunk(output, Origin(task.job, str(chunk), 0), blocks, lambda: samples.builder.schema)
        files[str(chunk)] = None if entry is None else entry._asdict()
    made = [entry for entry in files.values() if entry is not None]
    return {
        "unit": unit,
        "inputs": len(inputs),
        "rows": samples.rows,
        "bytes": sum(entry["bytes"] for entry in made),
        "failures": [],
        "chunks": made,
        "files": files,
        "schema": samples.builder.schema.to_json() if samples.rows else None,
        "seconds": round(time.monotonic() - start, 3),
    }


def output_of_columns(task: Task, manifest: Manifest) -> ChunkOutput:
    """Return where and how column files of a dataset are written."""
    ciphers = None if manifest.cipher is None else DatasetCiphers(task.encryption, manifest.cipher)
    return ChunkOutput(
        url=task.output,
        options=task.options,
        ciphers=ciphers,
        compression=manifest.settings.get("compression"),
        prefix=PREFIX,
        durable=task.durable,
    )


def write_dead_file(task: Task, manifest: Manifest, chunk: int, width: int, schema: Any) -> ChunkEntry:
    """Write the column file of a chunk whose rows are all deleted: the function was never asked, and all is null.

    Args:
        task: The job's.
        manifest: The version.
        chunk: The chunk's number.
        width: How many new leaves there are.
        schema: Of the new columns.
    """
    rows = manifest.table.rows[manifest.table.chunk == chunk].tolist()
    blocks = (_nulls(count, width) for count in rows)
    entry = write_chunk(output_of_columns(task, manifest), Origin(task.job, str(chunk), 1), blocks, lambda: schema)
    assert entry is not None  # noqa: S101 - no chunk is without rows
    return entry


@final
class _Made:
    """What the function has returned so far."""

    def __init__(self, rules: LeafRules, manifest: Manifest) -> None:
        self.builder, self.rows = SampleBuilder(rules), 0
        self._there = frozenset(map(str, manifest.schema.tree["keys"]))

    def add(self, made: Any) -> None:
        """Add the new columns of a row.

        Raises:
            SchemaError: They are no dict of new names, or built unlike those before.
        """
        if type(made) is not dict or not made:
            raise SchemaError(f"fn returned {made!r:.80}: it returns a dict with at least one new column, such as {{'length': 3}}.")
        there = sorted(self._there & set(map(str, made)))
        if there:
            raise SchemaError(f"column {there[0]!r} is there already: fn returns new ones only. Use another name, or dataset_update.")
        self.builder.append(made)
        self.rows += 1


def _live_blocks(rows: _Rows, chunk: int, function: Callable[[Any], Any], made: _Made) -> Iterator[tuple[int, list[Column] | None]]:
    """Yield how many rows each block has, and its new columns; none if all its rows are deleted."""
    for first, is_left in rows.blocks_of(chunk):
        count = int(is_left.sum())
        if not count:
            yield len(is_left), None
            continue
        for number, sample in enumerate(rows.dataset[first : first + count], start=first):
            _add(made, function, sample, number)
        columns = made.builder.finish()
        if count < len(is_left):  # a deleted row gets the value of the one before: nobody sees it, and nothing becomes nullable
            nearest = np.maximum(np.cumsum(is_left) - 1, 0)
            columns = [taken(column, nearest) for column in columns]
        yield len(is_left), columns


def _add(made: _Made, function: Callable[[Any], Any], sample: Any, number: int) -> None:
    try:
        made.add(function(sample))
    except SchemaError as error:
        raise SchemaError(f"row {number}: {error}") from error
    except Exception as error:
        raise UnitFailedError(
            f"fn failed for row {number}: {type(error).__name__}: {error}. The columns of other chunks that were done are kept: mend fn "
            "and run the same command again.",
            traceback.format_exc(),
        ) from error


def _with_dead_blocks(blocks: Iterator[tuple[int, list[Column] | None]]) -> Iterator[list[Column]]:
    """Yield the columns of every block, nulls for those whose rows are all deleted; nothing if all are."""
    waiting, width = list[int](), None
    for rows, columns in blocks:
        if columns is not None:
            width = len(columns)
            yield from [_nulls(count, width) for count in waiting]
            waiting.clear()
            yield columns
        elif width is None:
            waiting.append(rows)  # nobody knows yet how many columns there are
        else:
            yield _nulls(rows, width)


def _nulls(rows: int, width: int) -> list[Column]:
    return [Column(NULL, "none", (), rows, np.empty(0, np.uint8)) for _ in range(width)]
