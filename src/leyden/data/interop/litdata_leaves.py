"""LitData's leaves: what the entries of an index's `data_format` mean, and how columns are made of their bytes."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from leyden.core.errors import ConfigError
from leyden.data.codecs import json
from leyden.data.format.column import Column, bytes_column_of
from leyden.data.interop import litdata_json
from leyden.data.interop.columns import bytes_column, fixed_column
from leyden.data.interop.litdata_arrays import dtype_of, header_of, read_bare, read_headed
from leyden.data.interop.spans import Spans

SCALARS = {"int": ("<i8", "int64"), "float": ("<f8", "float64"), "bool": ("u1", "bool")}
BLOBS = {  # their name -> our leaf type
    "str": "str", "text": "text", "bytes": "bytes", "file": "file", "jpeg": "jpeg", "image": "image", "jpeg_array": "jpeg_array",
    "pil": "pil", "tiff": "tiff", "tifffile": "tiff", "audio": "audio", "video": "video", "mesh": "mesh", "pdf": "pdf",
    "nifti": "nifti", "pickle": "pickle", "graph": "custom:litdata-graph",
}  # fmt: skip


class LeafFormat(NamedTuple):
    """One leaf of a LitData dataset.

    Args:
        type: Our leaf type.
        dtype: Of arrays and scalars.
        of: `"torch"`, `"numpy"` or `"scalar"`, of arrays.
        read: Makes the column of some rows.
    """

    type: str
    dtype: str | None
    of: str | None
    read: Callable[[Spans], Column]


def leaf_format(name: str, first: Callable[[], memoryview | None], custom: frozenset[str] = frozenset()) -> LeafFormat:
    """Return what an entry of `data_format` means.

    Args:
        name: The entry, such as `"int"`, `"image:png"` or `"no_header_tensor:16"`.
        first: Returns the first row's bytes: `tensor` and `numpy` leaves tell their dtype only there.
        custom: Names of serializers that the user gives.

    Raises:
        ConfigError: No such leaf is known.
    """
    kind, _, detail = name.partition(":")
    if kind in custom or detail in custom:
        return LeafFormat(f"custom:{kind if kind in custom else detail}", None, None, _read_blob)
    if kind in SCALARS:
        return LeafFormat(kind, None, None, partial(_read_scalar, kind))
    if kind in BLOBS:
        return LeafFormat(BLOBS[kind], None, None, _read_blob)
    if kind == "json":
        return LeafFormat("json", None, None, _read_json)
    if kind in {"no_header_tensor", "no_header_numpy"}:
        whose = kind.removeprefix("no_header_")
        dtype = dtype_of(whose, int(detail))
        return LeafFormat("array", dtype, _library(whose), partial(read_bare, dtype))
    if kind in {"tensor", "numpy"}:
        data = first()
        dtype = "float32" if data is None else header_of(kind, data).dtype
        return LeafFormat("array", dtype, _library(kind), partial(read_headed, kind, dtype))
    raise ConfigError(
        f"the dataset has leaves of kind {name!r}, which LitData 0.2.76 does not have. If a serializer of yours wrote them, pass "
        f"serializers={{{kind!r}: …}}."
    )


def _library(kind: str) -> str:
    return "torch" if kind == "tensor" else "numpy"


def _read_scalar(kind: str, spans: Spans) -> Column:
    wire, dtype = SCALARS[kind]
    values = spans.fixed(wire)[:, 0]
    return fixed_column(dtype, (values != 0).astype(np.uint8) if kind == "bool" else values)


def _read_blob(spans: Spans) -> Column:
    return bytes_column(*spans.joined())


def _read_json(spans: Spans) -> Column:
    return bytes_column_of([json.encode(litdata_json.decode(spans.row(row))) for row in range(spans.rows)])
