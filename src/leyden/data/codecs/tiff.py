"""TIFF leaves: files that tifffile writes and reads, `pip install "leyden[tiff]"`."""

import io
from typing import Any

from leyden.core.optional import require
from leyden.data.codecs.source import as_array


def encode(array: Any) -> bytes:
    """Return a TIFF file of an array or a Pillow image."""
    buffer = io.BytesIO()
    load().imwrite(buffer, as_array(array))
    return buffer.getvalue()


def decode(data: Any) -> Any:
    """Return the array of a TIFF file."""
    return load().imread(io.BytesIO(data))


def load() -> Any:
    """Import tifffile."""
    return require("tifffile", purpose="TIFF leaves", extra="tiff")
