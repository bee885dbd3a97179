"""Files of deleted rows: `LDDELET1`, how many, their numbers within the chunk in order, a hash."""

import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import CorruptDataError
from leyden.data.format.hashing import digest128, xxh3_64

MAGIC = b"LDDELET1"
_HEAD, _HASH = struct.Struct("<8sQ"), struct.Struct("<Q")


def name_of(version: int, chunk_digest: str, data: bytes | None = None) -> str:
    """Return the file's key.

    Args:
        version: The version that deletes.
        chunk_digest: The chunk's.
        data: The file: another content has another name, so that writers that race for a version never share one.
    """
    suffix = "" if data is None else f"-{digest128(data)[:8]}"
    return f"_leyden/deletes-{version:08d}-{chunk_digest[:8]}{suffix}.bin"


def to_bytes(rows: Iterable[int] | NDArray[np.int64]) -> bytes:
    """Return the file of deleted rows.

    Example:
        >>> from_bytes(to_bytes([7, 2, 7]), "here").tolist()
        [2, 7]
    """
    ordered = np.unique(np.fromiter(rows, np.int64)).astype("<u4")
    body = _HEAD.pack(MAGIC, len(ordered)) + ordered.tobytes()
    return body + _HASH.pack(xxh3_64(body))


def from_bytes(data: bytes, where: str) -> NDArray[np.uint32]:
    """Return the numbers of the deleted rows, ascending.

    Args:
        data: The file.
        where: Its name, for the error.

    Raises:
        CorruptDataError: It is damaged.
    """
    if len(data) < _HEAD.size + _HASH.size or data[:8] != MAGIC:
        raise CorruptDataError(f"{where} is no file of deleted rows: it does not begin with {MAGIC.decode()}.")
    count = _HEAD.unpack_from(data)[1]
    if len(data) != _HEAD.size + 4 * count + _HASH.size:
        raise CorruptDataError(f"{where} is damaged: {len(data):,} bytes do not hold {count:,} rows.")
    if xxh3_64(data[: -_HASH.size]) != _HASH.unpack_from(data, len(data) - _HASH.size)[0]:
        raise CorruptDataError(f"{where} is damaged: its hash is not the one that it holds.")
    return np.frombuffer(data, "<u4", count, _HEAD.size)
