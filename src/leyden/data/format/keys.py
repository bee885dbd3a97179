"""The key index of a version: `LDKEYS01`, hashes in order, row numbers, the keys themselves, a hash of all.

A key is text or a whole number. Looking one up is a bisection over the hashes; the file is read as a map.
"""

import itertools
import struct
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.data.format.hashing import digest128, xxh3_64

MAGIC = b"LDKEYS01"
_HEAD, _HASH = struct.Struct("<8sQ"), struct.Struct("<Q")


def name_of(version: int, data: bytes | None = None) -> str:
    """Return the file's key.

    Args:
        version: The version that has these keys.
        data: The file: another content has another name, so that writers that race for a version never share one.
    """
    suffix = "" if data is None else f"-{digest128(data)[:8]}"
    return f"_leyden/keys-{version:08d}{suffix}.bin"


def key_bytes(key: str | int) -> bytes:
    """Return a key as it is stored.

    Raises:
        ConfigError: It is neither text nor a whole number.

    Example:
        >>> key_bytes("a"), key_bytes(12)
        (b'sa', b'i12')
    """
    if type(key) is str:
        return b"s" + key.encode("utf-8", "surrogatepass")
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return b"i%d" % int(key)
    raise ConfigError(f"key={key!r} is not accepted: a key is a str or an int. Pass str(key).")


def checked_key(key: Any) -> str | int:
    """Return a sample's key; numpy's numbers as Python's.

    Raises:
        ConfigError: It is neither text, whole characters only, nor a whole number.
    """
    if key is None:
        raise ConfigError("key_fn returned None, and every sample needs a key: return text or a whole number.")
    key_bytes(key)
    if not isinstance(key, str):
        return int(key)
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"key_fn returned {key!r}, which holds half of a surrogate pair and is no text. Return text.") from None
    return key


def to_bytes(keys: Sequence[str | int], rows: Sequence[int] | NDArray[np.int64]) -> bytes:
    """Return the index of keys.

    Args:
        keys: Each once.
        rows: The stored row of each.

    Raises:
        ConfigError: A key comes twice.
    """
    encoded = [key_bytes(key) for key in keys]
    hashes = np.fromiter(map(xxh3_64, encoded), np.uint64, len(encoded))
    order = sorted(range(len(encoded)), key=lambda index: (hashes[index], encoded[index]))
    for before, after in itertools.pairwise(order):
        if encoded[before] == encoded[after]:
            raise ConfigError(f"the key {keys[before]!r} belongs to rows {int(rows[before])} and {int(rows[after])}. Keys must differ.")
    ordered = [encoded[index] for index in order]
    offsets = np.zeros(len(ordered) + 1, "<i8")
    np.cumsum(list(map(len, ordered)), out=offsets[1:])
    parts = [
        _HEAD.pack(MAGIC, len(ordered)),
        hashes[order].astype("<u8").tobytes() if order else b"",
        np.asarray(rows, "<u8")[order].tobytes() if order else b"",
        offsets.tobytes(),
        *ordered,
    ]
    body = b"".join(parts)
    return body + _HASH.pack(xxh3_64(body))


@final
class KeyIndex:
    """An opened index.

    Args:
        data: The file, in memory or as a map.
        where: Its name, for errors.
        verify: Whether the hash of the whole file is compared.

    Raises:
        CorruptDataError: It is damaged.

    Example:
        >>> index = KeyIndex(to_bytes(["a", 7], [3, 5]), "here")
        >>> index.find("a"), index.find(7), index.find("7")
        (3, 5, None)
    """

    def __init__(self, data: Any, where: str, *, verify: bool = True) -> None:
        view = memoryview(data)
        if len(view) < _HEAD.size + 8 + _HASH.size or view[:8] != MAGIC:
            raise CorruptDataError(f"{where} is no key index: it does not begin with {MAGIC.decode()}.")
        count = _HEAD.unpack_from(view)[1]
        keys_at = _HEAD.size + 24 * count + 8
        if len(view) < keys_at + _HASH.size:
            raise CorruptDataError(f"{where} is damaged: {len(view):,} bytes do not hold {count:,} keys.")
        self._hashes = np.frombuffer(view, "<u8", count, _HEAD.size)
        self._rows = np.frombuffer(view, "<u8", count, _HEAD.size + 8 * count)
        self._offsets = np.frombuffer(view, "<i8", count + 1, _HEAD.size + 16 * count)
        self._keys, self._view = view[keys_at : len(view) - _HASH.size], view
        if verify and xxh3_64(view[: -_HASH.size]) != _HASH.unpack_from(view, len(view) - _HASH.size)[0]:
            raise CorruptDataError(f"{where} is damaged: its hash is not the one that it holds.")

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: str | int) -> int | None:
        """Return the stored row of a key; `None` if there is no such key."""
        wanted = key_bytes(key)
        digest = np.uint64(xxh3_64(wanted))
        place = int(np.searchsorted(self._hashes, digest))
        while place < len(self._hashes) and self._hashes[place] == digest:
            if self._keys[self._offsets[place] : self._offsets[place + 1]] == wanted:
                return int(self._rows[place])
            place += 1
        return None

    def items(self) -> list[tuple[str | int, int]]:
        """Return every key with its stored row, in the order of the file."""
        texts = [bytes(self._keys[a:b]) for a, b in itertools.pairwise(self._offsets)]
        decoded = [text[1:].decode("utf-8", "surrogatepass") if text[:1] == b"s" else int(text[1:]) for text in texts]
        return list(zip(decoded, self._rows.astype(np.int64).tolist(), strict=True))
