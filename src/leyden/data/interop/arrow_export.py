"""Our columns as Arrow's: what Parquet and Arrow files are written from.

Nodes of the tree become structs (a tuple's fields are `0`, `1`, …; a sample that is one leaf is the column `value`). Numbers,
text and lists are Arrow's own; encoded media are binary; arrays are fixed-size lists if the schema fixes their shape (it is
kept in the field's metadata), lists if they have one dimension, and else structs of `values` and `shape`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.data.errors import SchemaError
from leyden.data.format.column import BYTES, FIXED, NULL, STRINGS, Column
from leyden.data.format.schema import Leaf
from leyden.data.interop.arrow import pyarrow

NUMBERS = {"bool": "bool_", "int": "int64", "float": "float64"}
TEXTS = frozenset({"str", "text", "json"})
ROOT = "value"
SHAPE = b"shape"


def table_of(tree: Mapping[str, Any], leaves: Sequence[Leaf], columns: Sequence[Column]) -> Any:
    """Return an Arrow table of some rows.

    Args:
        tree: The schema's node.
        leaves: The schema's leaves, in the order of the columns.
        columns: One for each leaf.

    Raises:
        SchemaError: A column has no one Arrow type: arrays of several ranks.
        ConfigError: A dtype has no Arrow type.
    """
    pa = pyarrow()
    made = {leaf.name: (_field(leaf, column), _array(leaf, column)) for leaf, column in zip(leaves, columns, strict=True)}
    if tree["kind"] == "leaf":
        field, array = made[tree["name"]]
        return pa.table([array], pa.schema([field.with_name(ROOT)]))
    pairs = [_node(name, child, made) for name, child in _children(tree)]
    return pa.table([array for _, array in pairs], pa.schema([field for field, _ in pairs]))


def _children(node: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    names = node.get("keys") or node.get("fields") or range(len(node["children"]))
    return [(str(name), child) for name, child in zip(names, node["children"], strict=True)]


def _node(name: str, node: Mapping[str, Any], made: Mapping[str, tuple[Any, Any]]) -> tuple[Any, Any]:
    pa = pyarrow()
    if node["kind"] == "leaf":
        field, array = made[node["name"]]
        return field.with_name(name), array
    pairs = [_node(inner, child, made) for inner, child in _children(node)]
    fields = [field for field, _ in pairs]
    return pa.field(name, pa.struct(fields), nullable=False), pa.StructArray.from_arrays([array for _, array in pairs], fields=fields)


def _field(leaf: Leaf, column: Column) -> Any:
    pa = pyarrow()
    metadata = {SHAPE: json.dumps(list(column.dims)).encode()} if leaf.type == "array" and column.kind == FIXED else None
    return pa.field(leaf.name or ROOT, _type(leaf, column), nullable=leaf.nullable, metadata=metadata)


def _type(leaf: Leaf, column: Column) -> Any:
    pa = pyarrow()
    if leaf.type in NUMBERS:
        return getattr(pa, NUMBERS[leaf.type])()
    if leaf.type == "list":
        is_text = column.kind == STRINGS or leaf.dtype == "str"
        return pa.large_list(pa.large_string() if is_text else _number(column.dtype if column.kind != NULL else leaf.dtype or "int64"))
    if leaf.type == "array":
        return _array_type(leaf, column)
    return pa.large_string() if leaf.type in TEXTS else pa.large_binary()


def _array_type(leaf: Leaf, column: Column) -> Any:
    pa = pyarrow()
    value = _number(leaf.dtype or column.dtype)
    if column.kind == BYTES:
        raise SchemaError(f"leaf {leaf.name!r} holds arrays of several ranks, which have no one Arrow type. Leave it out with columns=[…].")
    sizes = [size for size in leaf.shape or () if size is not None]
    if leaf.shape is not None and len(sizes) == len(leaf.shape):
        return pa.list_(value, int(np.prod(sizes, dtype=np.int64))) if sizes else value
    if _rank(column) == 1:
        return pa.large_list(value)
    return pa.struct([("values", pa.large_list(value)), ("shape", pa.large_list(pa.int64()))])


def _array(leaf: Leaf, column: Column) -> Any:
    """Return the Arrow array of a column."""
    pa = pyarrow()
    wanted, valid = _type(leaf, column), _valid(column)
    if column.kind == NULL:
        return pa.nulls(column.rows, wanted)
    mask = None if valid is None else ~valid
    if column.kind == BYTES:
        return _binary(wanted, column.values, _existing(column.offsets), valid)
    if column.kind == STRINGS or pa.types.is_large_string(getattr(wanted, "value_type", wanted)):
        ends = column.inner_offsets if column.inner_offsets is not None else np.zeros(1, np.int64)  # of a block of empty lists
        inner = _binary(pa.large_string(), column.values, ends, None)
        return _list(wanted, _existing(column.offsets), inner, mask)
    elements = _plain(column, leaf)
    if not pa.types.is_nested(wanted):
        return pa.array(elements, wanted, mask=mask)
    return _nested(wanted, column, pa.array(elements.reshape(-1)), mask)


def _nested(wanted: Any, column: Column, values: Any, mask: NDArray[np.bool_] | None) -> Any:
    pa = pyarrow()
    missing = None if mask is None else pa.array(mask)
    if pa.types.is_fixed_size_list(wanted):
        return pa.FixedSizeListArray.from_arrays(values, type=wanted, mask=missing)
    if not pa.types.is_struct(wanted):
        return _list(wanted, _offsets(column), values, mask)
    shapes = _shapes(column)
    lists = _list(wanted.field("values").type, _offsets(column), values, None)
    dims = _list(wanted.field("shape").type, np.arange(column.rows + 1) * shapes.shape[1], pa.array(shapes.reshape(-1)), None)
    return pa.StructArray.from_arrays([lists, dims], fields=[wanted.field(0), wanted.field(1)], mask=missing)


def _binary(wanted: Any, values: NDArray[np.uint8], offsets: NDArray[np.int64], valid: NDArray[np.bool_] | None) -> Any:
    pa = pyarrow()
    bits = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [bits, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(wanted, len(offsets) - 1, buffers)


def _list(wanted: Any, offsets: NDArray[np.int64], values: Any, mask: NDArray[np.bool_] | None) -> Any:
    pa = pyarrow()
    ends = pa.array(np.asarray(offsets, np.int64))
    return pa.LargeListArray.from_arrays(ends, values, type=wanted, mask=None if mask is None else pa.array(mask))


def _plain(column: Column, leaf: Leaf) -> NDArray[Any]:
    """Return the elements in a type that Arrow has: bfloat16 becomes float32, which holds it exactly."""
    if column.dtype == "bfloat16":
        return (column.values.astype(np.uint32) << 16).view(np.float32)
    dtype = "float64" if leaf.type == "float" else leaf.dtype if leaf.type == "array" else None  # whole numbers came first, then others
    return column.values if dtype in {None, column.dtype} else column.values.astype(dtype)


def _number(dtype: str) -> Any:
    pa = pyarrow()
    known = {"bool": "bool_", "bfloat16": "float32"}.get(dtype, dtype)
    if known.startswith(("float8", "complex")):
        raise ConfigError(f"Arrow has no type for {dtype}. Leave the column out with columns=[…], or convert it first.")
    return getattr(pa, known)()


def _valid(column: Column) -> NDArray[np.bool_] | None:
    if column.validity is None:
        return None
    return np.unpackbits(np.asarray(column.validity), count=column.rows, bitorder="little").view(bool)


def _rank(column: Column) -> int:
    if column.kind == FIXED:
        return len(column.dims)
    return 1 if column.shapes is None else column.shapes.shape[1]


def _shapes(column: Column) -> NDArray[np.int64]:
    if column.shapes is not None:
        return column.shapes.astype(np.int64)
    return np.tile(np.array(column.dims, np.int64), (column.rows, 1))


def _offsets(column: Column) -> NDArray[np.int64]:
    if column.offsets is not None:
        return column.offsets
    return np.arange(column.rows + 1, dtype=np.int64) * int(np.prod(column.dims, dtype=np.int64))


def _existing(offsets: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if offsets is None:
        raise SchemaError("a column of bytes or lists lacks its offsets")
    return offsets
