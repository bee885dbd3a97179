"""`LitdataWriter`: rows in LitData's layout: classic, framed, compressed and encrypted chunks, and their `index.json`.

Chunks are a pure function of the rows and the settings. Nothing is written to disk here: finished chunks are handed out, and
the index is made at the end of what the caller kept of them, so that a job can do this in any process.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.core.optional import require
from leyden.data.format.column import Column
from leyden.data.format.schema import Leaf
from leyden.data.interop.litdata_chunks import FRAME, FRAMED, PREFIX, Items
from leyden.data.interop.litdata_index import DEFAULT_FRAME_ROWS, Level, spec_of
from leyden.data.interop.litdata_items import LeafWriter, joined, leaf_writer, rows_of, tokens_in

LARGEST_CHUNK = 2**32 - 1  # offsets are u32
DEFAULT_ZSTD = 4


class Encrypts(Protocol):
    """What an encryption object is here."""

    def encrypt(self, data: bytes) -> bytes:
        """Return the data encrypted."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what the index says of it: algorithm and level."""
        ...


@dataclass(frozen=True, kw_only=True)
class LitdataSettings:
    """How rows become chunks.

    Args:
        chunk_bytes: The most bytes of a chunk, unless a single row has more.
        chunk_size: The most rows of a chunk (tokens, of a token dataset).
        compression: `None`, `"zstd"` or `"zstd:N"`.
        level: What is compressed: `"batch"` (frames of rows), `"sample"` or `"chunk"` (the file).
        frame_rows: Rows in a frame.
        encryption: Encrypts items or chunks, as its level says.
        is_tokens: Whether it is a token dataset: rows are arrays without anything around them.
        allow_pickle: Whether pickled leaves may be written.
    """

    chunk_bytes: int | None = 64_000_000
    chunk_size: int | None = None
    compression: str | None = None
    level: Level = "batch"
    frame_rows: int = DEFAULT_FRAME_ROWS
    encryption: Encrypts | None = None
    is_tokens: bool = False
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        if self.compression is not None and self.compression.partition(":")[0] != "zstd":
            raise ConfigError(f"compression={self.compression!r}: LitData's layout takes 'zstd' or 'zstd:N'.")
        if self.compression is not None and self.level != "chunk" and (self.encryption is not None or self.is_tokens):
            what = "encryption" if self.encryption is not None else "TokensLoader"
            raise ConfigError(f"compression_level={self.level!r} does not go with {what} in LitData's layout. Use 'chunk'.")

    @property
    def encrypted(self) -> str | None:
        """What is encrypted, if anything."""
        return None if self.encryption is None else self.encryption.state_dict()["level"]


class WrittenChunk(NamedTuple):
    """A finished chunk.

    Args:
        name: Its file name.
        data: The file.
        entry: What the index says of it.
    """

    name: str
    data: bytes
    entry: dict[str, Any]


@final
class LitdataWriter:
    """Takes columns of rows and gives chunks.

    Args:
        tree: The schema's node.
        leaves: The schema's leaves, in the order of the columns that `add` gets.
        settings: How rows become chunks.
        rank: The first number in the chunks' names.
    """

    def __init__(self, tree: Mapping[str, Any], leaves: Sequence[Leaf], settings: LitdataSettings, *, rank: int = 0) -> None:
        self._spec, names = spec_of(tree)
        by_name = {leaf.name: number for number, leaf in enumerate(leaves)}
        self._order = [by_name[name] for name in names]
        self._leaves = [leaves[number] for number in self._order]
        self._settings, self._rank = settings, rank
        self._writers: list[LeafWriter] | None = None
        self._items: list[bytes] = []
        self._bytes = self._dim = self._count = 0

    def begin(self, head: Sequence[Column]) -> None:
        """Choose how leaves are written by the first rows of the dataset, where this writer's own are others.

        Raises:
            ConfigError: LitData has no such leaf.
        """
        self._writers = self._chosen(head)

    def add(self, columns: Sequence[Column]) -> list[WrittenChunk]:
        """Take some rows and return the chunks that are full now."""
        self._writers = self._writers or self._chosen(columns)
        ordered = [columns[number] for number in self._order]
        if self._settings.is_tokens:
            items, dims = joined(self._writers[0].write(ordered[0])), tokens_in(ordered[0])
        else:
            items = rows_of(self._writers, ordered, [leaf.name for leaf in self._leaves])
            dims = np.ones(len(items.offsets) - 1, np.int64)
        return self._fill(items, dims)

    def finish(self) -> list[WrittenChunk]:
        """Return the last chunk, if rows are left."""
        return [self._close()] if self._items else []

    def index(self, entries: Sequence[Mapping[str, Any]]) -> bytes:
        """Return `index.json` of chunks whose entries are given in order."""
        settings = self._settings
        is_framed = settings.compression is not None and settings.level == "batch"
        config = {
            "compression": settings.compression,
            "compression_level": settings.level if settings.compression is not None and settings.level != "chunk" else None,
            "compression_batch_size": settings.frame_rows if is_framed else None,
            "ipc_compression": None,
            "chunk_size": settings.chunk_size,
            "chunk_bytes": settings.chunk_bytes,
            "data_format": [writer.format for writer in self._writers or ()],
            "data_spec": json.dumps([1, self._spec]),
            "types": None,
            "encryption": None if settings.encryption is None else settings.encryption.state_dict(),
            "item_loader": "TokensLoader" if settings.is_tokens else "PyTreeLoader",
        }
        return json.dumps({"chunks": list(entries), "config": config, "updated_at": "0"}, sort_keys=True).encode()

    def _chosen(self, head: Sequence[Column]) -> list[LeafWriter]:
        pairs = zip(self._leaves, [head[number] for number in self._order], strict=True)
        return [leaf_writer(leaf, column, allow_pickle=self._settings.allow_pickle) for leaf, column in pairs]

    def _fill(self, items: Items, dims: NDArray[np.int64]) -> list[WrittenChunk]:
        finished = []
        view, ends = items.data.data, items.offsets.tolist()
        for row, dim in enumerate(dims.tolist()):
            item = bytes(view[ends[row] : ends[row + 1]])
            if self._settings.encrypted == "sample" and self._settings.encryption is not None:
                item = self._settings.encryption.encrypt(item)
            if self._items and self._is_full(len(item), dim):
                finished.append(self._close())
            self._items.append(item)
            self._bytes += len(item) + 4
            self._dim += dim
        return finished

    def _is_full(self, size: int, dim: int) -> bool:
        settings = self._settings
        by_bytes = settings.chunk_bytes is not None and 8 + self._bytes + 4 + size > settings.chunk_bytes
        return by_bytes or (settings.chunk_size is not None and self._dim + dim > settings.chunk_size)

    def _close(self) -> WrittenChunk:
        data = chunk_of(joined(self._items), self._settings)
        name = f"chunk-{self._rank}-{self._count}.bin"
        if len(data) > LARGEST_CHUNK:
            raise ConfigError(f"{name} would have {len(data):,} bytes, and LitData's end at 4 GiB. Pass a smaller chunk_bytes.")
        dim = self._dim if self._settings.is_tokens else None
        entry = {"chunk_bytes": len(data), "chunk_size": len(self._items), "dim": dim, "filename": name}
        if self._settings.compression is not None and self._settings.level == "chunk":
            entry["filename"] = name = f"chunk-{self._rank}-{self._count}.{self._settings.compression}.bin"
            data = _compress(data, self._settings.compression)
        self._items.clear()
        self._bytes, self._dim, self._count = 0, 0, self._count + 1
        return WrittenChunk(name, data, entry)


def chunk_of(items: Items, settings: LitdataSettings) -> bytes:
    """Return a chunk's file, all but the compression of the file itself."""
    rows = len(items.offsets) - 1
    if settings.compression is not None and settings.level == "batch":
        return _framed(items, settings.compression, settings.frame_rows)
    if settings.compression is not None and settings.level == "sample":
        view, ends = items.data.data, items.offsets.tolist()
        items = joined([_compress(view[ends[row] : ends[row + 1]], settings.compression) for row in range(rows)])
    if 4 * (rows + 2) + len(items.data) > LARGEST_CHUNK:
        raise ConfigError(f"a chunk of {rows:,} rows would pass 4 GiB, where LitData's end. Pass a smaller chunk_bytes.")
    data = np.array([rows, *(items.offsets + 4 * (rows + 2)).tolist()], "<u4").tobytes() + items.data.tobytes()
    return settings.encryption.encrypt(data) if settings.encrypted == "chunk" and settings.encryption is not None else data


def _framed(items: Items, compression: str, frame_rows: int) -> bytes:
    rows = len(items.offsets) - 1
    starts = np.arange(0, rows, frame_rows)
    ends = np.minimum(starts + frame_rows, rows)
    plain = [items.data[items.offsets[a] : items.offsets[b]].tobytes() for a, b in zip(starts, ends, strict=True)]
    frames = [_compress(part, compression) for part in plain]
    table = np.zeros(len(frames), FRAME)
    head = PREFIX.size + 4 * (rows + 1) + table.nbytes
    table["first"], table["rows"] = starts, ends - starts
    table["stored"], table["plain"] = [len(frame) for frame in frames], [len(part) for part in plain]
    table["offset"] = head + np.cumsum(table["stored"].astype(np.int64)) - table["stored"]
    prefix = PREFIX.pack(FRAMED, 1, 0, rows, frame_rows, len(frames))
    return prefix + items.offsets.astype("<u4").tobytes() + table.tobytes() + b"".join(frames)


def _compress(data: Any, compression: str) -> bytes:
    zstandard = require("zstandard", purpose="compressed datasets", extra="data")
    level = int(compression.partition(":")[2] or DEFAULT_ZSTD)
    return zstandard.ZstdCompressor(level=level).compress(data)
