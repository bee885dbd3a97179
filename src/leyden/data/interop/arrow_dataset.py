"""A dataset as one Arrow table: a record batch per block, whose buffers are the block's own where nothing had to be decoded."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from leyden.data.format.column import NULL, Column
from leyden.data.format.joining import cut
from leyden.data.interop.arrow import pyarrow
from leyden.data.interop.arrow_export import table_of
from leyden.data.read.reading import Reading
from leyden.data.read.subset import Runs


def dataset_table(reading: Reading, pieces: Runs) -> Any:
    """Return the rows of a source as a table.

    Args:
        reading: The source at work.
        pieces: Which rows, cut where blocks begin.
    """
    samples, firsts = reading.samples, reading.table.first_row
    tables = []
    for first, rows in zip(pieces.first.tolist(), pieces.rows.tolist(), strict=True):
        block = int(np.searchsorted(firsts, first, side="right")) - 1
        reading.ready([block])
        opened = reading.open_block(block)
        start = first - int(firsts[block])
        columns = [cut(_own(opened.column(wanted.index)), start, start + rows) for wanted in samples.wanted]
        tables.append(table_of(samples.tree, samples.leaves, columns))  # type: ignore[arg-type]
    return _joined(tables, samples)


def _own(column: Any) -> Column:
    """Return a column as ours, whatever the format it was read from."""
    if isinstance(column, Column):
        return column
    fields = ("kind", "dtype", "dims", "rows", "values", "offsets", "inner_offsets", "shapes", "validity")
    return Column(*(getattr(column, name) for name in fields))


def _joined(tables: Sequence[Any], samples: Any) -> Any:
    pa = pyarrow()
    if not tables:
        empty = [Column(NULL, "none", (), 0, np.empty(0, np.uint8)) for _ in samples.leaves]
        return table_of(samples.tree, samples.leaves, empty)
    return pa.concat_tables(tables, promote_options="permissive")
