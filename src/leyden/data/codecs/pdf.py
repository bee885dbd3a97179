"""PDF leaves: the file; reading gives a pdfplumber document, `pip install "leyden[pdf]"`."""

import io
from typing import Any

from leyden.core.errors import ConfigError
from leyden.core.optional import require


def encode(document: Any) -> bytes:
    """Return the file behind an open pdfplumber document."""
    stream = getattr(document, "stream", None)
    if stream is None or stream.closed:
        raise ConfigError(f"Pdf(pdf={document!r:.60}): its file is closed. Pass an open pdfplumber document, path=… or bytes=….")
    place = stream.tell()
    stream.seek(0)
    data = stream.read()
    stream.seek(place)
    return data


def decode(data: Any) -> Any:
    """Return the pdfplumber document of a file."""
    return load().open(io.BytesIO(data))


def load() -> Any:
    """Import pdfplumber."""
    return require("pdfplumber", purpose="PDF leaves", extra="pdf")
