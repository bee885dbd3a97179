"""Arrow's tables and our columns, both ways: what Parquet files, Arrow files and LitData's Arrow rows are read and exported with.

Structs become nodes of the tree, numbers `int` and `float`, lists of numbers, bools or text `list` leaves, lists of fixed
size arrays; lists of anything else, and maps, become `json`. Dates, times and decimals, which have no leaf, are read as text.
A null in a list of floats is NaN. What would become another value is refused: other nulls in lists of numbers or text, unsigned
numbers from 2⁶³ on, binary values in lists of anything.
pyarrow's threads do not survive a fork, so this runs where data is fetched, never in a loader's worker.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.core.optional import require
from leyden.data.codecs import json
from leyden.data.errors import SchemaError
from leyden.data.format.column import Column, bytes_column_of
from leyden.data.interop.columns import bytes_column, fixed_column, list_column, strings_column
from leyden.data.interop.litdata_index import escaped

EXTRA = "parquet"


def pyarrow() -> Any:
    """Import pyarrow."""
    return require("pyarrow", purpose="Arrow and Parquet data", extra=EXTRA)


def node_of_schema(schema: Any) -> dict[str, Any]:
    """Return the schema node of rows of an Arrow schema."""
    return {"kind": "dict", "keys": list(schema.names), "children": [_node(field, (escaped(field.name),)) for field in schema]}


def columns_of(table: Any, names: Sequence[str]) -> list[Column]:
    """Return the columns of a table, one for each leaf.

    Args:
        table: An Arrow table or record batch.
        names: The leaves, as the schema orders them.

    Raises:
        SchemaError: A column holds what no leaf gives back alike.
    """
    found = dict(_leaf_arrays(zip(table.schema, table.columns, strict=True)))
    return [_column_of(name, found[name][1]) for name in names]


def _column_of(name: str, array: Any) -> Column:
    try:
        return _column(array)
    except _ChangedError as error:
        raise SchemaError(f"column {name!r} holds {error}. Leave it out with columns=[…], or write the file with {error.fix}.") from None


class _ChangedError(Exception):
    """A value would come back as another one."""

    def __init__(self, told: str, fix: str) -> None:
        super().__init__(told)
        self.fix = fix


def _node(field: Any, path: tuple[str, ...]) -> dict[str, Any]:
    types = pyarrow().types
    if types.is_struct(field.type) and not _has_null_structs(field):
        inner = [field.type.field(i) for i in range(field.type.num_fields)]
        return {"kind": "dict", "keys": [f.name for f in inner], "children": [_node(f, (*path, escaped(f.name))) for f in inner]}
    return {"kind": "leaf", "name": "/".join(path), "nullable": field.nullable, **_leaf(field.type)}


def _has_null_structs(field: Any) -> bool:
    return not field.type.num_fields


def _leaf(kind: Any) -> dict[str, Any]:
    """Return what a leaf of an Arrow type is here."""
    types = pyarrow().types
    if types.is_dictionary(kind):
        return _leaf(kind.value_type)
    simple = ((types.is_boolean, "bool"), (types.is_integer, "int"), (types.is_floating, "float"), (_is_binary, "bytes"))
    for test, name in simple:
        if test(kind):
            return {"type": name}
    if types.is_fixed_size_list(kind) and _number(kind.value_type):
        return {"type": "array", "dtype": _number(kind.value_type), "shape": [kind.list_size], "of": "numpy"}
    if _is_list(kind):
        return _list_leaf(kind.value_type)
    return {"type": "json"} if types.is_nested(kind) or types.is_null(kind) else {"type": "str"}


def _list_leaf(value: Any) -> dict[str, Any]:
    types = pyarrow().types
    if types.is_boolean(value):
        return {"type": "list", "dtype": "bool"}
    if types.is_integer(value):
        return {"type": "list", "dtype": "int64"}
    if types.is_floating(value):
        return {"type": "list", "dtype": "float64"}
    return {"type": "list", "dtype": "str"} if _is_text(value) else {"type": "json"}


def _leaf_arrays(pairs: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield each leaf's name, field and array; a struct that is null has null leaves."""
    for field, array in pairs:
        whole = array.combine_chunks() if hasattr(array, "combine_chunks") else array
        whole = whole.chunk(0) if hasattr(whole, "num_chunks") and whole.num_chunks else whole
        here = (*path, escaped(field.name))
        if pyarrow().types.is_struct(field.type) and field.type.num_fields:
            inner = [field.type.field(i) for i in range(field.type.num_fields)]
            yield from _leaf_arrays(zip(inner, whole.flatten(), strict=True), here)
        else:
            yield "/".join(here), (field, whole)


def _column(array: Any) -> Column:
    pa = pyarrow()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    leaf = _leaf(array.type)
    validity = None if not array.null_count else np.packbits(array.is_valid().to_numpy(zero_copy_only=False), bitorder="little")
    if leaf["type"] in {"bool", "int", "float"}:
        dtype = {"bool": "bool", "int": "int64", "float": "float64"}[leaf["type"]]
        return fixed_column(dtype, _numbers(array, dtype), validity)
    if leaf["type"] in {"str", "bytes"}:
        return bytes_column(*_blobs(array, is_text=leaf["type"] == "str"), validity)
    if leaf["type"] == "array":
        values = _numbers(_without_nulls(_filled_lists(array)), leaf["dtype"]).reshape(len(array), *leaf["shape"])
        return fixed_column(leaf["dtype"], values, validity)
    if leaf["type"] == "list":
        return _list_column(array, leaf["dtype"], validity)
    values = array.to_pylist()
    return bytes_column_of([None if value is None else json.encode(plain_json(value)) for value in values])


def _filled_lists(array: Any) -> Any:
    """Return the values of a fixed size list, zeros where a row is null."""
    if not array.null_count:
        return array.flatten()
    empty = pyarrow().array([[0] * array.type.list_size], array.type)[0]
    return array.fill_null(empty).flatten()


def _list_column(array: Any, dtype: str, validity: NDArray[np.uint8] | None) -> Column:
    pa = pyarrow()
    whole = array.cast(pa.large_list(array.type.value_type))
    if whole.null_count:
        whole = whole.fill_null(pa.scalar([], whole.type))
    offsets = whole.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    inner = _without_nulls(whole.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])))
    if dtype == "str":
        values, ends = _blobs(inner, is_text=True)
        return strings_column(values, ends, offsets - offsets[0], validity)
    return list_column(dtype, _numbers(inner, dtype), offsets - offsets[0], validity)


def _without_nulls(items: Any) -> Any:
    """Return the items of lists; a null among floats is NaN, and no other type has a value for it."""
    pa = pyarrow()
    if not items.null_count:
        return items
    if pa.types.is_floating(items.type):
        return items.fill_null(pa.scalar(float("nan"), pa.float64()).cast(items.type))
    raise _ChangedError(f"lists with nulls in them ({items.null_count:,} of {items.type} in one row group)", "a value in their place")


def _numbers(array: Any, dtype: str) -> NDArray[Any]:
    pa = pyarrow()
    if pa.types.is_null(array.type):
        return np.zeros(len(array), dtype)
    if array.null_count:
        array = array.fill_null(pa.scalar(0, array.type) if not pa.types.is_boolean(array.type) else False)
    values = np.ascontiguousarray(array.to_numpy(zero_copy_only=False))
    if dtype == "int64" and values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise _ChangedError(f"{int(values.max())}, which does not fit int64", "such numbers as text")
    return values.astype(dtype, copy=False)


def _blobs(array: Any, *, is_text: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bytes of text or binary values, and their offsets."""
    pa = pyarrow()
    if is_text and not _is_text(array.type):
        array = array.cast(pa.string()) if not pa.types.is_null(array.type) else array.cast(pa.large_string())
    whole = array.cast(pa.large_string() if is_text else pa.large_binary())
    if whole.null_count:
        whole = whole.fill_null("" if is_text else b"")
    _, offsets, data = whole.buffers()
    ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1] if len(whole) else np.zeros(1, np.int64)
    values = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None and data.size else np.empty(0, np.uint8)
    return values, ends - ends[0]


def plain_json(value: Any) -> Any:
    """Return a value of `to_pylist` as JSON: maps come as pairs, dates and decimals as text."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, bytes):
        raise _ChangedError("binary values in a list or a map, which JSON cannot hold", "a column for them")
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _number(kind: Any) -> str | None:
    """Return the dtype of a number's type, else `None`."""
    types = pyarrow().types
    if types.is_boolean(kind):
        return "bool"
    return str(np.dtype(kind.to_pandas_dtype())) if types.is_integer(kind) or types.is_floating(kind) else None


def _is_binary(kind: Any) -> bool:
    types = pyarrow().types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _is_text(kind: Any) -> bool:
    types = pyarrow().types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_list(kind: Any) -> bool:
    types = pyarrow().types
    return types.is_list(kind) or types.is_large_list(kind)
