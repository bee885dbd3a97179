"""Columns of foreign blocks: the few shapes that values of other formats take here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import xxhash
from numpy.typing import NDArray

FIXED, BYTES, LIST, TENSOR, STRINGS = 1, 2, 3, 4, 5
NAMES = {"float8_e4m3fn": np.uint8, "float8_e5m2": np.uint8, "bfloat16": np.uint16}  # what numpy has no type for


class Column(NamedTuple):
    """The values of one leaf in one block; the kinds and fields are those of our own format.

    Args:
        kind: `FIXED`, `BYTES`, `LIST`, `TENSOR` or `STRINGS`.
        dtype: Of the elements.
        dims: The shape of a row, of a fixed column.
        rows: How many rows.
        values: All elements.
        offsets: int64 (rows + 1,), where rows begin in `values`, or in the strings.
        inner_offsets: int64, where strings begin.
        shapes: uint32 (rows, rank), of tensors.
        validity: uint8, a bit for each row that is not null; `None` if none is.
    """

    kind: int
    dtype: str
    dims: tuple[int, ...]
    rows: int
    values: NDArray[Any]
    offsets: NDArray[np.int64] | None = None
    inner_offsets: NDArray[np.int64] | None = None
    shapes: NDArray[np.uint32] | None = None
    validity: NDArray[np.uint8] | None = None


class Leaf(NamedTuple):
    """One leaf of a schema, as its JSON describes it."""

    name: str
    type: str
    nullable: bool = False
    dtype: str | None = None
    shape: Any = None
    of: str | None = None
    file: int | None = None


class Schema(NamedTuple):
    """The tree of a sample and its leaves, ordered by the bytes of their names."""

    tree: Any
    leaves: tuple[Leaf, ...]

    @classmethod
    def from_json(cls, node: Any) -> "Schema":
        """Return the schema of a tree's node."""
        found = [Leaf(**{key: value for key, value in each.items() if key != "kind"}) for each in leaf_nodes(node)]
        return cls(node, tuple(sorted(found, key=lambda leaf: leaf.name.encode())))


def leaf_nodes(node: Any) -> list[Any]:
    """Return the leaves below a node, in the order of the tree."""
    return [node] if node["kind"] == "leaf" else [leaf for child in node["children"] for leaf in leaf_nodes(child)]


def digest128(data: Any) -> str:
    """Return the xxh3-128 of a buffer as 32 digits."""
    return xxhash.xxh3_128_hexdigest(data)


@final
@dataclass(slots=True)
class ForeignBlock:
    """Rows of another format, as columns.

    Args:
        rows: How many there are.
        first_row: The first one's number in the dataset.
        columns: One for each leaf of the schema.
    """

    rows: int
    first_row: int
    columns: Sequence[Column]

    def column(self, index: int) -> Column:
        """Return column number `index`."""
        return self.columns[index]


def storage_of(dtype: str) -> np.dtype[Any]:
    """Return numpy's type for values of a dtype of ours."""
    return np.dtype(NAMES.get(dtype, dtype))


def fixed_column(dtype: str, values: NDArray[Any], validity: NDArray[np.uint8] | None = None) -> Column:
    """Return a column of one shape: values (rows, …)."""
    return Column(
        kind=FIXED, dtype=dtype, dims=values.shape[1:], rows=len(values), values=values.view(storage_of(dtype)), validity=validity
    )


def bytes_column(values: NDArray[np.uint8], offsets: NDArray[np.int64], validity: NDArray[np.uint8] | None = None) -> Column:
    """Return a column of bytes: row i is `values[offsets[i] : offsets[i + 1]]`."""
    return Column(kind=BYTES, dtype="uint8", dims=(), rows=len(offsets) - 1, values=values, offsets=offsets, validity=validity)


def list_column(dtype: str, values: NDArray[Any], offsets: NDArray[np.int64], validity: NDArray[np.uint8] | None = None) -> Column:
    """Return a column of one-dimensional rows: row i is `values[offsets[i] : offsets[i + 1]]`."""
    return Column(
        kind=LIST, dtype=dtype, dims=(), rows=len(offsets) - 1, values=values.view(storage_of(dtype)), offsets=offsets, validity=validity
    )


def strings_column(
    values: NDArray[np.uint8], inner: NDArray[np.int64], offsets: NDArray[np.int64], validity: NDArray[np.uint8] | None = None
) -> Column:
    """Return a column of lists of text: string i is `values[inner[i] : inner[i + 1]]`, row i has those from `offsets[i]`."""
    return Column(
        kind=STRINGS,
        dtype="uint8",
        dims=(),
        rows=len(offsets) - 1,
        values=values,
        offsets=offsets,
        inner_offsets=inner,
        validity=validity,
    )


def bytes_column_of(values: Sequence[bytes | None]) -> Column:
    """Return a column of bytes, null where a value is `None`."""
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([0 if value is None else len(value) for value in values], out=offsets[1:])
    present = np.array([value is not None for value in values], bool)
    validity = None if present.all() else np.packbits(present, bitorder="little")
    return bytes_column(np.frombuffer(b"".join(value for value in values if value is not None), np.uint8), offsets, validity)


def array_column(dtype: str, values: NDArray[np.uint8], shapes: NDArray[np.int64]) -> Column:
    """Return a column of arrays of one rank.

    Args:
        dtype: Of all elements.
        values: uint8, the elements of all rows.
        shapes: int64 (rows, rank).
    """
    elements = values.view(storage_of(dtype))
    rows, rank = shapes.shape
    if rows and (shapes == shapes[0]).all():
        dims = tuple(shapes[0].tolist())
        return fixed_column(dtype, elements.reshape(rows, *dims))
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(shapes.prod(axis=1), out=offsets[1:])
    if rank == 1:
        return Column(kind=LIST, dtype=dtype, dims=(), rows=rows, values=elements, offsets=offsets)
    return Column(kind=TENSOR, dtype=dtype, dims=(), rows=rows, values=elements, offsets=offsets, shapes=shapes.astype(np.uint32))
