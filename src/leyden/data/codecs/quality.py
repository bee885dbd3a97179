"""The quality a JPEG file was written with, estimated from its quantisation tables.

libjpeg scales one standard table by a percentage (ITU-T T.81, annex K.1; the scaling is the Independent JPEG Group's), so
the luminance table of a file tells the percentage. Tables of other encoders get the nearest one.
"""

import struct
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LUMINANCE = (  # T.81, table K.1, in reading order
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
START_OF_SCAN, QUANTISATION, FIRST_RESTART, END_OF_IMAGE = 0xDA, 0xDB, 0xD0, 0xD9


def is_jpeg(data: Any) -> bool:
    """Return whether the bytes begin as a JPEG file does.

    Example:
        >>> is_jpeg(b"PNG"), is_jpeg(bytes.fromhex("ffd8ffe0"))
        (False, True)
    """
    return data[:3] == b"\xff\xd8\xff"


def estimated_quality(data: bytes) -> int | None:
    """Return the quality from 1 to 100 that gives tables most like this file's; `None` if it is no JPEG or holds none."""
    for marker, start, end in segments_of(data):
        if marker == QUANTISATION and (quality := _quality_of(bytes(data[start:end]))) is not None:
            return quality
    return None


@lru_cache(maxsize=1024)  # files of one origin have the same tables
def _quality_of(payload: bytes) -> int | None:
    table = _table_zero(payload)
    if table is None:
        return None
    distance = np.abs(_tables() - table).sum(axis=1)
    return 100 - int(np.argmin(distance[::-1]))  # of equal ones the highest: 1 to 25 share clipped values


@cache
def _tables() -> NDArray[np.int64]:
    """Return (100, 64): the sorted luminance table of each quality from 1 to 100."""
    standard = np.array(LUMINANCE.split(), np.int64)
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.sort(np.clip((standard[None] * scale[:, None] + 50) // 100, 1, 255), axis=1)


def segments_of(data: Any) -> list[tuple[int, int, int]]:
    """Return (marker, start, end) of each segment before the image's own data."""
    if not is_jpeg(data):
        return []
    found: list[tuple[int, int, int]] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != START_OF_SCAN:
        marker = data[at + 1]
        if marker == 0xFF:  # padding before a marker
            at += 1
            continue
        if FIRST_RESTART <= marker <= END_OF_IMAGE:  # markers without content
            at += 2
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        found.append((marker, at + 4, at + 2 + length))
        at += 2 + max(length, 2)
    return found


def _table_zero(payload: bytes) -> NDArray[np.int64] | None:
    """Return table 0, sorted: files keep it in zigzag order, which comparing sorted values does not need to undo."""
    at = 0
    while at < len(payload):
        kind, number = np.dtype(">u2") if payload[at] >> 4 else np.dtype("u1"), payload[at] & 15
        end = at + 1 + 64 * kind.itemsize
        if end > len(payload):
            return None
        if number == 0:
            return np.sort(np.frombuffer(payload[at + 1 : end], kind).astype(np.int64))
        at = end
    return None
