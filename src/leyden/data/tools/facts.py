"""What a few blocks of a leaf say: numbers, lengths, nulls, bytes, the first values as text, and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.core.optional import installed
from leyden.data.codecs import image
from leyden.data.format.column import BYTES, FIXED, STRINGS, Column
from leyden.data.format.schema import Leaf

NUMBERS = frozenset({"bool", "int", "float"})
TEXTS = frozenset({"str", "text", "json"})
PICTURES = frozenset({"jpeg", "image", "pil", "jpeg_array"})
MOST_PICTURES, MOST_TEXTS, TEXT_LENGTH, THUMBNAIL = 24, 8, 200, 160


@dataclass(kw_only=True)
class LeafFacts:
    """One leaf, as far as it was looked at.

    Args:
        leaf: From the schema.
        rows: How many rows were looked at.
        nulls: How many of them are null.
        raw_bytes: Their bytes before compression, offsets left out.
        numbers: The values, of numbers.
        lengths: Bytes of each value, or elements of each array.
        texts: Some values, of text.
        pictures: Some thumbnails, JPEG files.
    """

    leaf: Leaf
    rows: int = 0
    nulls: int = 0
    raw_bytes: int = 0
    numbers: list[NDArray[np.float64]] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)

    def add(self, column: Column) -> None:
        """Take note of a block's column."""
        present = valid_rows(column)
        self.rows += column.rows
        self.nulls += column.rows - int(present.sum())
        self.raw_bytes += column.values.nbytes
        if self.leaf.type in NUMBERS or (self.leaf.of == "scalar" and column.values.dtype.kind in "biuf"):
            self.numbers.append(column.values[present].astype(np.float64))
        elif column.offsets is not None:
            self.lengths.append(np.diff(column.offsets)[present])
        rows = np.flatnonzero(present).tolist()
        if self.leaf.type in TEXTS:
            self.texts += [shown(self.leaf, column, row) for row in rows[: MOST_TEXTS - len(self.texts)]]
        if self.leaf.type in PICTURES and installed("PIL"):
            self.pictures += [thumbnail(self.leaf.type, raw_value(column, row)) for row in rows[: MOST_PICTURES - len(self.pictures)]]

    @property
    def spread(self) -> tuple[str, NDArray[Any]] | None:
        """What a histogram shows: the numbers, or the lengths, unless there is nothing to show."""
        name = "values" if self.numbers else "bytes" if self.leaf.type != "list" and self.leaf.type != "array" else "elements"
        found = np.concatenate(self.numbers or self.lengths or [np.empty(0)])
        finite = found[np.isfinite(found)]
        return (name, finite) if len(finite) else None

    def line(self) -> str:
        """Return the facts in a line."""
        text = " ".join(str(each) for each in (self.leaf.type, self.leaf.dtype, self.leaf.shape or None) if each is not None)
        if self.spread is not None:
            name, values = self.spread
            text += f", {name} {values.min():,.6g} to {values.max():,.6g}"
        return f"{text}, {self.nulls} null" if self.nulls else text

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        facts: dict[str, Any] = {"name": self.leaf.name, "type": self.leaf.type, "nullable": self.leaf.nullable}
        facts |= {key: value for key in ("dtype", "shape", "of") if (value := getattr(self.leaf, key)) is not None}
        facts |= {"rows_seen": self.rows, "nulls": self.nulls, "raw_bytes_per_row": round(self.raw_bytes / max(self.rows, 1), 1)}
        if self.spread is not None:
            name, values = self.spread
            facts[name] = {"least": float(values.min()), "mean": float(values.mean()), "most": float(values.max())}
        return facts


def valid_rows(column: Column) -> NDArray[np.bool_]:
    """Return which rows are not null."""
    if column.kind == 0 or column.validity is None:
        return np.full(column.rows, column.kind != 0)
    return np.unpackbits(np.asarray(column.validity), count=column.rows, bitorder="little").view(bool)


def raw_value(column: Column, row: int) -> bytes:
    """Return the bytes of a row of a column of bytes."""
    ends: Sequence[int] = [0, 0] if column.offsets is None else column.offsets[row : row + 2].tolist()
    return column.values[ends[0] : ends[1]].tobytes()


def shown(leaf: Leaf, column: Column, row: int) -> str:
    """Return a value as a person reads it in a line."""
    if not valid_rows(column)[row]:
        return "None"
    if column.kind == BYTES:
        value = raw_value(column, row)
        return value.decode("utf-8", "replace")[:TEXT_LENGTH] if leaf.type in TEXTS else f"{leaf.type}, {len(value):,} bytes"
    if column.kind == FIXED:
        value = column.values[row]
        return str(value.item()) if not column.dims else f"{column.dtype} ({', '.join(map(str, column.dims))})"
    count = 0 if column.offsets is None else int(column.offsets[row + 1] - column.offsets[row])
    if column.shapes is not None:
        return f"{column.dtype} ({', '.join(map(str, column.shapes[row].tolist()))})"
    return f"{count} texts" if column.kind == STRINGS else f"{column.dtype} ({count},)"


def thumbnail(leaf_type: str, data: bytes) -> bytes:
    """Return a small JPEG of an image leaf; the first one, of several. Damaged images give none: `verify` names them."""
    try:
        files = image.unpack_files(data) if leaf_type == "jpeg_array" else [data]
        if not files:
            return b""
        picture = image.decode_pixels(files[0]) if leaf_type == "pil" else image.open_image(files[0])
        picture = picture.convert("RGB")
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        return image.encode_picture(picture, image.Wish(format="JPEG", quality=80))
    except (OSError, ValueError):
        return b""


def size(count: float) -> str:
    """Return a number of bytes as a person reads it.

    Example:
        >>> size(512), size(1_234_567)
        ('512 bytes', '1.2 MB')
    """
    if count < 1000:
        return f"{count:,.0f} bytes"
    units = ("kB", "MB", "GB", "TB", "PB")
    step = next((step for step in range(1, len(units)) if count < 1000 ** (step + 1)), len(units))
    return f"{count / 1000**step:.1f} {units[step - 1]}"
