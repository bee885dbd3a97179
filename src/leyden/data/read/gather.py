"""`gather`: the rows of a tray, from many blocks, into one array per leaf.

The rows are grouped by block with one sort. Per block and column there is one numpy take and one scatter; what has rows
of several lengths is measured first, then copied to its place in the tray. Nothing is done per sample in Python but
what must be: slicing text, and decoding media.

Everything here is pure: it needs opened blocks, and knows nothing of files, caches or workers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leyden.data.codecs.array import from_npy
from leyden.data.read.blocks import KeptBlock
from leyden.data.read.columns import BINARY, Arena, Dense, Nulls, Objects, Ragged, TrayColumn, allocate, stack
from leyden.data.read.source import Column

NULL, FIXED, BYTES, LIST, TENSOR, STRINGS = range(6)
_LONG_ROW = 64  # elements, from which on a slice per row beats an index per element (measured: 40 to 90)
_STORED_AS = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
_TEXTS = frozenset({"str", "text"})
_NUMBERS = {"bool": "bool", "int": "int64", "float": "float64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A leaf to be gathered.

    Args:
        index: The number of its column in the blocks.
        name: Its name, for messages.
        type: Its type in the schema.
        dtype: The elements' dtype, of numbers and arrays.
        shape: The shape of every row if the schema fixes it.
        decode: Makes the value of stored bytes; `None` leaves them as they are.
        is_array: Whether what `decode` returns are arrays to be put together.
        as_views: Whether bytes stay where they are gathered: rows are views of the tray, not objects of their own.
    """

    index: int
    name: str
    type: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    decode: Callable[[Any], Any] | None = None
    is_array: bool = False
    as_views: bool = False


class Group(NamedTuple):
    """The rows of one block.

    Args:
        block: The opened block.
        rows: Their numbers in the block.
        places: Where they go in the tray.
        number: The block's number.
    """

    block: KeptBlock
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    number: int


def group_by_block(first_row: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the blocks that hold rows, where each one's begin in the order by block, and that order.

    Args:
        first_row: int64 (blocks,), ascending.
        rows: int64 (n,), in any order.
    """
    block = np.searchsorted(first_row, rows, side="right") - 1
    order = np.argsort(_narrowed(block), kind="stable")
    sorted_block = block[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_block[1:] != sorted_block[:-1]])) if len(rows) else np.zeros(0, np.int64)
    return sorted_block[starts], np.append(starts, len(rows)), order


def groups(open_block: Callable[[int], KeptBlock], first_row: NDArray[np.int64], rows: NDArray[np.int64]) -> Iterator[Group]:
    """Yield the rows of each block that holds some, in the order of the blocks; each is opened when it is its turn."""
    blocks, borders, order = group_by_block(first_row, rows)
    within = rows[order] - np.repeat(first_row[blocks], np.diff(borders))
    for number, start, stop in zip(blocks.tolist(), borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        yield Group(open_block(number), within[start:stop], order[start:stop], number)


def _narrowed(block: NDArray[np.int64]) -> NDArray[Any]:
    """Return numbers in the same order that fit into 16 bits, if there are such: numpy sorts these in one pass over the bits."""
    least = int(block.min(initial=0)) if len(block) else 0
    return (block - least).astype(np.uint16) if len(block) and int(block.max()) - least < 2**16 else block


def gather(found: Sequence[Group], wanted: Sequence[Wanted], num_rows: int, arena: Arena | None = None) -> list[TrayColumn]:
    """Return one column per wanted leaf, with the rows of all groups at their places.

    Args:
        found: The groups; together they fill the tray.
        wanted: The leaves.
        num_rows: Rows of the tray.
        arena: Where large arrays shall lie.
    """
    return [_gather_leaf([(group.block.column(leaf.index), group) for group in found], leaf, num_rows, arena) for leaf in wanted]


Parts = list[tuple[Column, Group]]


def _gather_leaf(parts: Parts, leaf: Wanted, num_rows: int, arena: Arena | None) -> TrayColumn:
    nulls = _nulls(parts, num_rows)
    kinds = {column.kind for column, _ in parts} - {NULL}
    if not kinds:
        return _nothing(leaf, num_rows)
    if STRINGS in kinds:
        return Objects(_string_lists(parts, num_rows), "list")
    if BYTES in kinds:
        return _gather_bytes(parts, leaf, num_rows, nulls, arena)
    shape = _one_shape(parts, leaf)
    if shape is not None:
        return _gather_fixed(parts, leaf, (num_rows, *shape), nulls, arena)
    return _gather_ragged(parts, leaf, num_rows, nulls, arena)


def _nulls(parts: Parts, num_rows: int) -> Nulls:
    """Return which rows are null, or `None` if none is."""
    if all(column.validity is None and column.kind != NULL for column, _ in parts):
        return None
    nulls = np.zeros(num_rows, bool)
    for column, group in parts:
        if column.kind == NULL:
            nulls[group.places] = True
        elif column.validity is not None:
            nulls[group.places] = ~np.unpackbits(column.validity, count=column.rows, bitorder="little").view(bool)[group.rows]
    return nulls if nulls.any() else None


def _nothing(leaf: Wanted, num_rows: int) -> TrayColumn:
    """Return a column of nulls."""
    dtype = leaf.dtype or _NUMBERS.get(leaf.type)
    if dtype is None or leaf.shape is None:
        return Objects([None] * num_rows)
    return Dense(np.zeros((num_rows, *leaf.shape), storage(dtype)), np.ones(num_rows, bool), dtype)


def _one_shape(parts: Parts, leaf: Wanted) -> tuple[int, ...] | None:
    shapes = {tuple(column.dims) for column, _ in parts if column.kind == FIXED}
    if len(shapes) != 1 or any(column.kind not in {FIXED, NULL} for column, _ in parts):
        return None
    return next(iter(shapes)) if leaf.type != "list" else None


def _gather_fixed(parts: Parts, leaf: Wanted, shape: tuple[int, ...], nulls: Nulls, arena: Arena | None) -> Dense:
    dtype = _dtype(parts, leaf)
    out = allocate(shape, storage(dtype), arena)
    width = int(np.prod(shape[1:], dtype=np.int64))
    for column, group in parts:
        if column.kind == NULL:
            out[group.places] = 0
        elif width >= _LONG_ROW:
            values = column.values
            for place, row in zip(group.places.tolist(), group.rows.tolist(), strict=True):
                out[place] = values[row]
        else:
            out[group.places] = column.values[group.rows]
    return Dense(out, nulls, dtype)


def _gather_ragged(parts: Parts, leaf: Wanted, num_rows: int, nulls: Nulls, arena: Arena | None) -> TrayColumn:
    """Return arrays of one rank, or of several."""
    ranks = {_rank(column) for column, _ in parts if column.kind != NULL}
    if len(ranks) > 1:
        return stack(_arrays(parts, leaf, num_rows), nulls, arena)
    return _gather_spans(parts, leaf, ranks.pop(), nulls, allocate_in=arena, num_rows=num_rows)


def _gather_spans(parts: Parts, leaf: Wanted, rank: int, nulls: Nulls, *, num_rows: int, allocate_in: Arena | None) -> Ragged:
    """Measure all rows, then copy each to its place; the arrays are dense if their shapes turn out equal."""
    dtype = _dtype(parts, leaf)
    lengths, shapes = np.zeros(num_rows, np.int64), np.zeros((num_rows, rank), np.int64) if rank != 1 else None
    for column, group in parts:
        if column.kind == NULL:
            continue
        lengths[group.places] = _spans(column, group.rows)[1]
        if shapes is not None:
            shapes[group.places] = column.dims if column.kind == FIXED else _existing(column.shapes)[group.rows]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    out = allocate((int(offsets[-1]),), storage(dtype), allocate_in)
    for column, group in parts:
        if column.kind != NULL:
            starts, sizes = _spans(column, group.rows)
            copy_spans(column.values.reshape(-1), starts, sizes, out, offsets[group.places])
    return Ragged(out, offsets, shapes, nulls, dtype)


def copy_spans(
    source: NDArray[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64], out: NDArray[Any], places: NDArray[np.int64]
) -> None:
    """Copy `source[starts[i] : starts[i] + lengths[i]]` to `out` from `places[i]` on, for all i."""
    total = int(lengths.sum())
    if total >= _LONG_ROW * len(lengths):
        for start, length, place in zip(starts.tolist(), lengths.tolist(), places.tolist(), strict=True):
            out[place : place + length] = source[start : start + length]
        return
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out[np.repeat(places, lengths) + within] = source[np.repeat(starts, lengths) + within]


def _gather_bytes(parts: Parts, leaf: Wanted, num_rows: int, nulls: Nulls, arena: Arena | None) -> TrayColumn:
    if leaf.type == "array":
        return stack(_arrays(parts, leaf, num_rows), nulls, arena)
    if leaf.as_views:
        found = _gather_spans(parts, replace(leaf, dtype="uint8"), 1, nulls, num_rows=num_rows, allocate_in=arena)
        return found._replace(dtype=BINARY)
    out: list[Any] = [None] * num_rows
    for column, group in parts:
        if column.kind != NULL:
            _texts(column, group, leaf.index, out) if leaf.type in _TEXTS and leaf.decode is not None else _files(column, group, leaf, out)
    if nulls is not None:
        for place in np.flatnonzero(nulls).tolist():
            out[place] = None
    if leaf.is_array:
        return stack(out, nulls, arena)
    if leaf.decode is None or leaf.type in {"bytes", "file"}:
        return Objects(out, "bytes")
    return Objects(out, "str" if leaf.type in _TEXTS else "object")


def _texts(column: Column, group: Group, index: int, out: list[Any]) -> None:
    """Put text to its places. A block of ASCII is decoded once, and rows are slices of it."""
    starts, lengths = _spans(column, group.rows)
    whole = group.block.text(index)
    spans = zip(group.places.tolist(), starts.tolist(), (starts + lengths).tolist(), strict=True)
    if whole is not None:
        for place, start, stop in spans:
            out[place] = whole[start:stop]
        return
    data = column.values.data
    for place, start, stop in spans:
        out[place] = str(data[start:stop], "utf-8")


def _files(column: Column, group: Group, leaf: Wanted, out: list[Any]) -> None:
    """Put bytes, or what they decode to, to their places."""
    starts, lengths = _spans(column, group.rows)
    data, decode = column.values.data, leaf.decode or bytes
    validity = column.validity
    present = None if validity is None else np.unpackbits(validity, count=column.rows, bitorder="little")[group.rows]
    for number, (place, start, length) in enumerate(zip(group.places.tolist(), starts.tolist(), lengths.tolist(), strict=True)):
        if present is None or present[number]:
            out[place] = decode(data[start : start + length])


def _string_lists(parts: Parts, num_rows: int) -> list[Any]:
    out: list[Any] = [None] * num_rows
    for column, group in parts:
        if column.kind in {NULL, BYTES}:
            continue
        starts, lengths = _spans(column, group.rows)
        inner = column.inner_offsets.tolist() if column.inner_offsets is not None else []
        data = column.values.data
        for place, start, length in zip(group.places.tolist(), starts.tolist(), lengths.tolist(), strict=True):
            out[place] = [str(data[inner[each] : inner[each + 1]], "utf-8") for each in range(start, start + length)]
    nulls = _nulls(parts, num_rows)
    for place in [] if nulls is None else np.flatnonzero(nulls).tolist():
        out[place] = None
    return out


def _arrays(parts: Parts, leaf: Wanted, num_rows: int) -> list[Any]:
    """Return every row as an array of its own: for leaves whose blocks do not even agree on the rank."""
    out: list[Any] = [None] * num_rows
    for column, group in parts:
        if column.kind != NULL:
            for place, row in zip(group.places.tolist(), group.rows.tolist(), strict=True):
                out[place] = array_at(column, row, leaf)
    nulls = _nulls(parts, num_rows)
    for place in [] if nulls is None else np.flatnonzero(nulls).tolist():
        out[place] = None
    return out


def array_at(column: Column, row: int, leaf: Wanted) -> NDArray[Any]:
    """Return one row of an array leaf, as stored."""
    if column.kind == FIXED:
        return column.values[row, ...]
    starts, lengths = _spans(column, np.array([row]))
    values = column.values[int(starts[0]) : int(starts[0] + lengths[0])]
    if column.kind == BYTES:
        return from_npy(values.data) if len(values) else np.zeros(0, storage(leaf.dtype or "uint8"))
    return values if column.shapes is None else values.reshape(column.shapes[row].tolist())


def _spans(column: Column, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where rows begin in the flat values, and how long they are."""
    if column.kind == FIXED:
        width = int(np.prod(column.dims, dtype=np.int64))
        return rows * width, np.full(len(rows), width)
    starts = _existing(column.offsets)[rows]
    return starts, _existing(column.offsets)[rows + 1] - starts


def _rank(column: Column) -> int:
    if column.kind == FIXED:
        return len(column.dims)
    return 1 if column.shapes is None else column.shapes.shape[1]


def _existing(array: NDArray[Any] | None) -> NDArray[Any]:
    if array is None:
        raise AssertionError("a column of this kind has these offsets: its reader checked that")
    return array


def _dtype(parts: Parts, leaf: Wanted) -> str:
    """Return the dtype of the tray: the schema's, else what holds all blocks' (tokens and lists have several physical ones)."""
    if leaf.dtype is not None or leaf.type in _NUMBERS:
        return leaf.dtype or _NUMBERS[leaf.type]
    names = {column.dtype for column, _ in parts if column.kind != NULL}
    return names.pop() if len(names) == 1 else np.result_type(*(storage(name) for name in names)).name


def storage(dtype: str) -> np.dtype[Any]:
    """Return numpy's type for elements of a dtype; bits of the same size where numpy has none."""
    return np.dtype(_STORED_AS.get(dtype, dtype))
