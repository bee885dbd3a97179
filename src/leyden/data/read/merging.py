"""The columns of several sources as one: of a mixture row by row, of a zip side by side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leyden.data.read.columns import BINARY, Dense, Objects, Ragged, TrayColumn, stack
from leyden.data.read.source import Leaf


class Table(NamedTuple):
    """Columns, and what they are.

    Args:
        tree: How a sample is put together, as JSON.
        leaves: One per column.
        columns: The rows.
    """

    tree: Any
    leaves: Sequence[Leaf]
    columns: list[TrayColumn]


def interleaved(tables: Sequence[Table], part: NDArray[np.int32]) -> Table | None:
    """Return one table whose rows are those of several in turn, or `None` if their samples are built differently.

    Args:
        tables: One per source; its rows are in order.
        part: int32 (rows,), the source of each row.
    """
    present = sorted(set(part.tolist()))
    if not present:
        return tables[0]
    first = tables[present[0]]
    if len(present) == 1:
        return first
    if any(not _are_alike(first, tables[index]) for index in present[1:]):
        return None
    places = [np.flatnonzero(part == index) for index in present]
    columns = [_interleaved([tables[index].columns[place] for index in present], places, len(part)) for place in range(len(first.columns))]
    return Table(first.tree, first.leaves, columns)


def side_by_side(tables: Sequence[Table]) -> Table:
    """Return a table whose samples are tuples of the samples of several."""
    leaves: list[Any] = []
    children = []
    for number, table in enumerate(tables):
        children.append(_renamed(table.tree, f"{number}/"))
        leaves += [_Renamed(f"{number}/{leaf.name}", leaf.type, leaf.nullable, leaf.dtype, leaf.shape, leaf.of) for leaf in table.leaves]
    return Table({"kind": "tuple", "children": children}, leaves, [column for table in tables for column in table.columns])


class _Renamed(NamedTuple):
    name: str
    type: str
    nullable: bool
    dtype: str | None
    shape: Any
    of: str | None


def _renamed(node: Any, prefix: str) -> Any:
    if node["kind"] == "leaf":
        return {**node, "name": prefix + node["name"]}
    return {**node, "children": [_renamed(child, prefix) for child in node["children"]]}


def _are_alike(one: Table, other: Table) -> bool:
    return _shape_of(one.tree) == _shape_of(other.tree) and [leaf.type for leaf in one.leaves] == [leaf.type for leaf in other.leaves]


def _shape_of(node: Any) -> Any:
    if node["kind"] == "leaf":
        return node["name"]
    return node["kind"], node.get("keys") or node.get("fields"), [_shape_of(child) for child in node["children"]]


def _interleaved(columns: Sequence[TrayColumn], places: Sequence[NDArray[np.intp]], rows: int) -> TrayColumn:
    dense = [column for column in columns if isinstance(column, Dense)]
    if len(dense) == len(columns) and len({(column.values.shape[1:], column.values.dtype, column.dtype) for column in dense}) == 1:
        out = np.empty((rows, *dense[0].values.shape[1:]), dense[0].values.dtype)
        for column, place in zip(dense, places, strict=True):
            out[place] = column.values
        return Dense(out, _nulls(columns, places, rows), dense[0].dtype)
    columns = [_as_objects(column) for column in columns]
    values: list[Any] = [None] * rows
    for column, place in zip(columns, places, strict=True):
        for index, where in enumerate(place.tolist()):
            values[where] = column.row(index)
    kinds = {column.kind for column in columns if isinstance(column, Objects)}
    if kinds:
        return Objects(values, kinds.pop() if len(kinds) == 1 else "object")
    return stack(values, _nulls(columns, places, rows), None)


def _as_objects(column: TrayColumn) -> TrayColumn:
    """Return a column of bytes as one of objects."""
    return Objects(column.views(0, column.rows), "bytes") if isinstance(column, Ragged) and column.dtype == BINARY else column


def _nulls(columns: Sequence[TrayColumn], places: Sequence[NDArray[np.intp]], rows: int) -> NDArray[np.bool_] | None:
    nulls = np.zeros(rows, bool)
    for column, place in zip(columns, places, strict=True):
        if not isinstance(column, Objects) and column.nulls is not None:
            nulls[place] = column.nulls
    return nulls if nulls.any() else None
