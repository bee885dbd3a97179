r"""LitData's chunk files: `u32 N | u32 offset[N + 1] | items`, and what is done to them by compression and encryption.

Whatever the variant, `Chunks.items` gives plain items back to back and where they begin. Framed files begin with

```
"LDFZ01\0\0" | u16 version 1 | u16 flags | u32 N | u32 rows of a frame | u32 frames | u32 offset[N + 1], of the plain items
per frame: u32 first | u32 n | u64 offset in the file | u32 stored bytes | u32 plain bytes        then the zstd frames
```
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.core.optional import require
from leyden.data.interop.files import ForeignFiles, exactly
from leyden.data.interop.litdata_index import LitdataIndex

FRAMED = b"LDFZ01\0\0"
ARROW = b"LDARW01\0"
PREFIX = struct.Struct("<8sHHIII")
FRAME = np.dtype([("first", "<u4"), ("rows", "<u4"), ("offset", "<u8"), ("stored", "<u4"), ("plain", "<u4")])


class Decrypts(Protocol):
    """What an encryption object is here."""

    @property
    def algorithm(self) -> str:
        """The name of the algorithm, such as `"fernet"`."""
        ...

    def decrypt(self, data: bytes) -> bytes:
        """Return the plain bytes."""
        ...


class Items(NamedTuple):
    """Plain items of a chunk.

    Args:
        data: uint8, the items back to back.
        offsets: int64 (rows + 1,), where they begin in `data`.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


@final
class Chunks:
    """The chunks of a LitData dataset, whatever was done to them.

    Args:
        files: Where they lie.
        index: What the index says.
        encryption: Decrypts them, if they are encrypted.

    Raises:
        ConfigError: They are encrypted and `encryption` is missing or another one.
    """

    def __init__(self, files: ForeignFiles, index: LitdataIndex, encryption: Decrypts | None = None) -> None:
        self.files = files
        self.index = index
        self.encryption = encryption
        self._level = _checked_level(index, encryption)

    @property
    def is_ranged(self) -> bool:
        """Whether a part of a file can be read without the rest."""
        return not self.index.is_file_compressed and self._level != "chunk"

    def items(self, chunk: int, first: int, last: int) -> Items:
        """Return rows `first` to `last` of a chunk.

        Raises:
            CorruptDataError: The file is not what the index says.
        """
        name, rows = self.index.names[chunk], int(self.index.rows[chunk])
        part = self._reader(name)
        head = bytes(part(0, min(PREFIX.size, 4 + 4 * (rows + 1))))
        if head[:8] == FRAMED:
            return self._framed(name, part, rows, first, last)
        count = struct.unpack_from("<I", head)[0] if len(head) >= 4 else -1
        if count != rows:
            raise CorruptDataError(
                f"{self.files.url}/{name} begins with {count} items, not with {rows} as the index says: it is damaged or replaced."
            )
        offsets = np.frombuffer(part(4 + 4 * first, 4 * (last - first + 1)), "<u4").astype(np.int64)
        _ascending(offsets, f"{self.files.url}/{name}")
        data = np.frombuffer(part(int(offsets[0]), int(offsets[-1] - offsets[0])), np.uint8)
        return self._opened(Items(data, offsets - offsets[0]))

    def is_arrow(self, chunk: int) -> bool:
        """Return whether a chunk's rows are an Arrow table."""
        name = self.index.names[chunk]
        return bytes(self._tail(name) if self.is_ranged else self._plain(name)[-8:]) == ARROW

    def table(self, chunk: int) -> Any:
        """Return the Arrow table of a chunk whose rows are one, else `None`."""
        if not self.is_arrow(chunk):
            return None
        whole = self._plain(self.index.names[chunk])
        length = struct.unpack_from("<I", whole, len(whole) - 12)[0]
        ipc = require("pyarrow.ipc", purpose="LitData's Arrow rows", extra="parquet")
        content = whole[len(whole) - 12 - length : len(whole) - 12]
        reader = ipc.open_file if bytes(content[:6]) == b"ARROW1" else ipc.open_stream
        return reader(require("pyarrow", purpose="LitData's Arrow rows", extra="parquet").py_buffer(content)).read_all()

    def _tail(self, name: str) -> bytes | memoryview:
        size = self.files.size(name)
        return self.files.part(name, max(0, size - 8), min(8, size))

    def _reader(self, name: str) -> Callable[[int, int], bytes | memoryview]:
        if self.is_ranged:
            return lambda start, length: self.files.part(name, start, length)
        plain = self._plain(name)
        return lambda start, length: exactly(plain, start, length, f"{self.files.url}/{name}")

    def _plain(self, name: str) -> memoryview:
        """Return a whole file, decompressed and decrypted."""
        if self.is_ranged:
            return self.files.whole(name)
        return self.files.held("plain", name, lambda: memoryview(self._decoded(name)))

    def _decoded(self, name: str) -> bytes:
        plain_name = name.replace(f".{self.index.compression}.", ".")
        if self.index.is_file_compressed and self.files.is_local and not self.files.path(name).exists():
            content = bytes(self.files.whole(plain_name))  # LitData replaces files by plain ones when it reads a local folder
        elif self.index.is_file_compressed:
            content = _decompress(self.files.whole(name))
        else:
            content = bytes(self.files.whole(name))
        return self._decrypt(content) if self._level == "chunk" else content

    def _framed(self, name: str, part: Callable[[int, int], bytes | memoryview], rows: int, first: int, last: int) -> Items:
        _, version, _, count, _, frames = PREFIX.unpack(part(0, PREFIX.size))
        if version != 1 or count != rows:
            raise CorruptDataError(f"{self.files.url}/{name} has version {version} and {count} items, not 1 and {rows}.")
        offsets = np.frombuffer(part(PREFIX.size, 4 * (rows + 1)), "<u4").astype(np.int64)
        _ascending(offsets, f"{self.files.url}/{name}")
        table = np.frombuffer(part(PREFIX.size + 4 * (rows + 1), FRAME.itemsize * frames), FRAME)
        counts = table["rows"].astype(np.int64)
        if not np.array_equal(table["first"], np.cumsum(counts) - counts) or counts.sum() != rows:
            raise CorruptDataError(f"{self.files.url}/{name}: its frames do not hold the {rows} rows one after the other: it is damaged.")
        wanted = table[(table["first"] < last) & (table["first"].astype(np.int64) + table["rows"] > first)]
        plain = b"".join(_decompress(part(int(each["offset"]), int(each["stored"])), int(each["plain"])) for each in wanted)
        begin = int(offsets[wanted["first"][0]]) if len(wanted) else 0
        if int(offsets[last]) - begin > len(plain):
            raise CorruptDataError(f"{self.files.url}/{name}: the frames of rows {first} to {last} hold too little: it is damaged.")
        data = np.frombuffer(plain, np.uint8)[offsets[first] - begin : offsets[last] - begin]
        return self._opened(Items(data, offsets[first : last + 1] - offsets[first]))

    def _opened(self, items: Items) -> Items:
        """Return the items decompressed and decrypted one by one, where that was done to them."""
        steps: list[Callable[[bytes], bytes]] = []
        if self.index.compression is not None and self.index.level == "sample":
            steps.append(_decompress)
        if self._level == "sample":
            steps.append(self._decrypt)
        if not steps:
            return items
        view = items.data.data
        parts: list[bytes] = []
        for start, end in zip(items.offsets[:-1].tolist(), items.offsets[1:].tolist(), strict=True):
            item = bytes(view[start:end])
            for step in steps:
                item = step(item)
            parts.append(item)
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return Items(np.frombuffer(b"".join(parts), np.uint8), offsets)

    def _decrypt(self, data: bytes) -> bytes:
        if self.encryption is None:
            raise AssertionError("unreachable: the level is known from the object")
        return self.encryption.decrypt(data)


def _checked_level(index: LitdataIndex, encryption: Decrypts | None) -> str | None:
    """Return `"sample"`, `"chunk"` or `None`, after comparing the object with what the index says."""
    if index.encryption is None:
        return None
    if encryption is None:
        raise ConfigError("Data is encrypted but no encryption object was provided. Pass encryption=…, the object that wrote it.")
    if encryption.algorithm != index.encryption["algorithm"]:
        raise ConfigError(
            f"Encryption algorithm mismatch. The dataset's is {index.encryption['algorithm']!r}, the object's {encryption.algorithm!r}."
        )
    level = getattr(encryption, "level", None)
    if level != index.encryption["level"]:
        raise ConfigError(f"Encryption level mismatch. The dataset's is {index.encryption['level']!r}, the object's {level!r}.")
    return str(level)


def _ascending(offsets: NDArray[np.int64], where: str) -> None:
    if (np.diff(offsets) < 0).any():
        raise CorruptDataError(f"{where}: items do not follow each other: it is damaged.")


def _decompress(data: Any, size: int | None = None) -> bytes:
    zstandard = require("zstandard", purpose="compressed datasets", extra="data")
    try:
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(bytes(data))
    except zstandard.ZstdError as error:
        raise CorruptDataError(f"a zstd frame of {len(data)} bytes is damaged: {error}") from error
    if size is not None and len(plain) != size:
        raise CorruptDataError(f"a zstd frame holds {len(plain)} bytes where {size} were expected")
    return plain
