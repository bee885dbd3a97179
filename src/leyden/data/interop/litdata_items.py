"""From our columns to LitData's items: each leaf's bytes by LitData's rules, and rows put together of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.data.codecs.mesh import file_type
from leyden.data.errors import SchemaError
from leyden.data.format.column import BYTES, FIXED, LIST, STRINGS, Column
from leyden.data.format.schema import Leaf
from leyden.data.interop import litdata_json
from leyden.data.interop.litdata_arrays import code_of
from leyden.data.interop.litdata_chunks import Items

SAME_NAME = frozenset({"str", "text", "bytes", "file", "jpeg", "jpeg_array", "pil", "pdf", "pickle"})
WIRE = {"int": "<i8", "float": "<f8", "bool": "u1"}
LIST_TAGS = {"int64": b"\x02", "float64": b"\x03", "bool": b"\x04"}
MAGIC = {b"\xff\xd8": "jpg", b"\x89P": "png", b"GI": "gif", b"BM": "bmp", b"RI": "webp", b"II": "tiff", b"MM": "tiff"}

Blobs = list[bytes]


class LeafWriter(NamedTuple):
    """How a leaf is written.

    Args:
        format: Its entry in `data_format`.
        write: Returns the bytes of each row of a column.
    """

    format: str
    write: Callable[[Column], Blobs]


def leaf_writer(leaf: Leaf, first: Column, *, allow_pickle: bool = False) -> LeafWriter:
    """Return how LitData writes a leaf.

    Args:
        leaf: From the schema.
        first: The leaf's first column: it decides what the index says for all.
        allow_pickle: Whether pickled leaves may be written.

    Raises:
        ConfigError: LitData has no such leaf.
    """
    if leaf.type == "pickle" and not allow_pickle:
        raise ConfigError(f"leaf {leaf.name!r} is pickled, and reading it runs the code it names. Pass allow_pickle=True to write it.")
    if leaf.type == "array":
        return _array_writer(leaf, first)
    simple = _simple_writer(leaf.type, first)
    if simple is None:
        raise ConfigError(f"leaf {leaf.name!r}: LitData's layout has no place for the type {leaf.type!r}. Leave it out, or write our own.")
    return simple


def rows_of(writers: Sequence[LeafWriter], columns: Sequence[Column], names: Sequence[str]) -> Items:
    """Return the items of some rows: the u32 sizes of the leaves, then the leaves.

    Args:
        writers: How each leaf is written, in LitData's order.
        columns: In the same order.
        names: The leaves' names, for messages.

    Raises:
        SchemaError: A value is null: LitData's layout has no place for it.
    """
    for column, name in zip(columns, names, strict=True):
        if column.validity is not None and not _all_present(column):
            raise SchemaError(f"leaf {name!r} holds None, for which LitData's layout has no place. Fill it, or write our own layout.")
    leaves = [writer.write(column) for writer, column in zip(writers, columns, strict=True)]
    sizes = np.array([[len(blob) for blob in blobs] for blobs in leaves], "<u4").T
    heads = np.ascontiguousarray(sizes)
    items = [heads[row].tobytes() + b"".join(blobs) for row, blobs in enumerate(zip(*leaves, strict=True))]
    return joined(items)


def joined(items: Sequence[bytes]) -> Items:
    """Return items back to back."""
    offsets = np.zeros(len(items) + 1, np.int64)
    np.cumsum([len(item) for item in items], out=offsets[1:])
    return Items(np.frombuffer(b"".join(items), np.uint8), offsets)


def _simple_writer(kind: str, first: Column) -> LeafWriter | None:
    """Return how a leaf is written whose type alone says it, or the type and the first bytes."""
    if kind in WIRE:
        return LeafWriter(kind, partial(_scalars, WIRE[kind]))
    if kind == "list":
        return LeafWriter("json", _list)
    if kind == "json":
        return LeafWriter("json", _json)
    if kind in {"image", "audio", "video", "mesh", "nifti"}:
        return LeafWriter(f"{kind}:{_extension(kind, first)}", _blobs)
    names = {"tiff": "tifffile"}  # LitData 0.2.76 writes "tiff" and then finds no reader of that name
    custom = kind.removeprefix("custom:") if kind.startswith("custom:") else None
    name = names.get(kind, kind if kind in SAME_NAME else custom)
    return None if name is None else LeafWriter(name, _blobs)


def _all_present(column: Column) -> bool:
    bits = np.unpackbits(np.asarray(column.validity), count=column.rows, bitorder="little")
    return bool(bits.all())


def _scalars(wire: str, column: Column) -> Blobs:
    values = np.ascontiguousarray(column.values.astype(wire)).view(np.uint8).reshape(column.rows, -1)
    return [row.tobytes() for row in values]


def _blobs(column: Column) -> Blobs:
    if column.kind != BYTES or column.offsets is None:
        raise SchemaError(f"a column of kind {column.kind} holds no bytes")
    view, ends = np.ascontiguousarray(column.values).data.cast("B"), column.offsets.tolist()
    return [bytes(view[ends[row] : ends[row + 1]]) for row in range(column.rows)]


def _json(column: Column) -> Blobs:
    return [b"\0" + litdata_json.U32.pack(len(text)) + text for text in _blobs(column)]


def _list(column: Column) -> Blobs:
    """Return lists in LitData's binary forms, which unlike JSON text hold every float."""
    if column.kind == STRINGS:
        return [_texts(column, row) for row in range(column.rows)]
    tag = LIST_TAGS[column.dtype]
    count = _counts(column)
    return [tag + litdata_json.U32.pack(n) + blob for n, blob in zip(count, _bare(column), strict=True)]


def _texts(column: Column, row: int) -> bytes:
    if column.offsets is None or column.inner_offsets is None:
        raise SchemaError("a column of lists of text lacks its offsets")
    ends = column.inner_offsets[column.offsets[row] : column.offsets[row + 1] + 1].tolist()
    texts = [column.values[a:b].tobytes() for a, b in pairwise(ends)]
    return b"\x01" + litdata_json.U32.pack(len(texts)) + b"".join(litdata_json.U32.pack(len(text)) + text for text in texts)


def _counts(column: Column) -> list[int]:
    if column.kind == FIXED:
        return [int(np.prod(column.dims, dtype=np.int64))] * column.rows
    return np.diff(np.asarray(column.offsets)).tolist()


def _bare(column: Column) -> Blobs:
    """Return the elements of each row of an array column."""
    values = np.ascontiguousarray(column.values)
    if column.kind == FIXED:
        return [row.tobytes() for row in values.reshape(column.rows, -1)]
    ends = np.asarray(column.offsets).tolist()
    return [values[ends[row] : ends[row + 1]].tobytes() for row in range(column.rows)]


def _shapes(column: Column) -> list[tuple[int, ...]]:
    if column.kind == FIXED:
        return [tuple(column.dims)] * column.rows
    if column.kind == LIST:
        return [(count,) for count in _counts(column)]
    return [tuple(shape) for shape in np.asarray(column.shapes).tolist()]


def _array_writer(leaf: Leaf, first: Column) -> LeafWriter:
    kind = "tensor" if leaf.of == "torch" else "numpy"
    dtype = leaf.dtype or first.dtype
    if first.kind == BYTES:
        raise ConfigError(f"leaf {leaf.name!r} holds arrays of several ranks, for which LitData's layout has no place.")
    if {len(shape) for shape in _shapes(first)[:1]} == {1}:
        return LeafWriter(f"no_header_{kind}:{code_of(kind, dtype)}", partial(_headless, leaf.name, dtype))
    return LeafWriter(kind, partial(_headed, kind, dtype))


def _headless(name: str, dtype: str, column: Column) -> Blobs:
    if any(len(shape) != 1 for shape in _shapes(column)[:1]):
        raise SchemaError(f"leaf {name!r} has one dimension in its first rows, and more later; LitData's layout takes one or the other.")
    return _bare(_cast(column, dtype))


def _headed(kind: str, dtype: str, column: Column) -> Blobs:
    order = ">u4" if kind == "tensor" else "<u4"
    code = code_of(kind, dtype)
    heads = [np.array([code, len(shape), *shape], order).tobytes() for shape in _shapes(column)]
    return [head + blob for head, blob in zip(heads, _bare(_cast(column, dtype)), strict=True)]


def _cast(column: Column, dtype: str) -> Column:
    """Return the column in the schema's dtype; tokens are stored narrower."""
    return column if column.dtype == dtype else replace(column, dtype=dtype, values=column.values.astype(dtype))


def _extension(kind: str, column: Column) -> str:
    first = next(iter(_blobs(column)[:1]), b"")
    if kind == "image":
        return MAGIC.get(first[:2], "jpg")
    if kind == "mesh":
        return file_type(first)
    if kind == "nifti":
        return "nii.gz" if first[:2] == b"\x1f\x8b" else "nii"
    return {"audio": "wav", "video": "mp4"}[kind]


def tokens_in(column: Column) -> NDArray[np.int64]:
    """Return int64 (rows,), how many elements each row has."""
    return np.array(_counts(column), np.int64)
