"""`MdsSource`: a dataset in MosaicML's format, as blocks.

`index.json` (version 2) names shards; a shard is `u32 N | u32 offset[N + 1] | JSON | samples`, a sample the u32 sizes of its
columns of variable size, then the columns' bytes, ordered by name. Shards that were compressed are decompressed whole.
"""

import bz2
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import xxhash

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.core.optional import require
from leyden.data.format.hashing import digest128
from leyden.data.format.schema import Schema
from leyden.data.interop.blocks import ForeignSource, Plan, pack_items, unpack_items
from leyden.data.interop.columns import ForeignBlock
from leyden.data.interop.files import ForeignFiles, exactly
from leyden.data.interop.litdata_index import escaped
from leyden.data.interop.mds_leaves import MdsLeaf, mds_leaf
from leyden.data.interop.spans import Spans

INDEX = "index.json"


@final
class MdsSource(ForeignSource):
    """An MDS dataset as a `BlockSource`.

    Args:
        url: The folder or URL that holds `index.json`.
        options: Of the storage.

    Raises:
        ConfigError: The index names encodings or compressions that are not read.
        CorruptDataError: It is no index.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.files = ForeignFiles(url, options)
        self._checked: set[int] = set()
        content = self.files.read(INDEX)
        self.digest = digest128(content)
        try:
            self.shards = _shards(json.loads(content))
            first = self.shards[0]
            names, encodings = first["column_names"], first["column_encodings"]
            self._sizes: list[int | None] = first["column_sizes"]
            rows = [shard["samples"] for shard in self.shards]
            stored = [shard["raw_data"]["bytes"] for shard in self.shards]
            self.chunk_names = [shard["raw_data"]["basename"] for shard in self.shards]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise CorruptDataError(f"{url}/{INDEX} is no index of an MDS dataset: {type(error).__name__} {error}") from error
        self._leaves = [mds_leaf(encoding, lambda i=i: self._first(i)) for i, encoding in enumerate(encodings)]
        children = [_leaf_node(name, leaf) for name, leaf in zip(names, self._leaves, strict=True)]
        self.schema = Schema.from_json({"kind": "dict", "keys": names, "children": children})
        self._order = [names.index(name) for name in sorted(names, key=lambda name: escaped(name).encode())]
        self._plan = Plan(np.array(rows, np.int64), np.array(stored, np.int64))
        self.table = self._plan.table

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> bytes:
        """Return the block's samples and where they begin."""
        del columns  # rows lie one after the other: none of them can be left out
        chunk, first, rows = self._plan.place(block)
        return pack_items(*self._items(chunk, first, first + rows))

    def open(self, block: int, buffer: Any) -> ForeignBlock:
        """Return the columns of a buffer of `fetch`."""
        data, offsets = unpack_items(buffer)
        spans = _split(data, offsets, self._sizes)
        columns = [self._leaves[leaf].read(spans[leaf]) for leaf in self._order]
        return ForeignBlock(len(offsets) - 1, int(self.table.first_row[block]), columns)

    def _items(self, chunk: int, first: int, last: int) -> tuple[Any, Any]:
        part = self._reader(chunk)
        offsets = np.frombuffer(part(4 + 4 * first, 4 * (last - first + 1)), "<u4").astype(np.int64)
        if (np.diff(offsets) < 0).any():
            raise CorruptDataError(f"{self.files.url}/{self.chunk_names[chunk]}: samples do not follow each other: it is damaged.")
        return np.frombuffer(part(int(offsets[0]), int(offsets[-1] - offsets[0])), np.uint8), offsets - offsets[0]

    def _reader(self, chunk: int) -> Callable[[int, int], bytes | memoryview]:
        shard, name = self.shards[chunk], self.chunk_names[chunk]
        if shard.get("zip_data") and not self._has_plain(name):
            plain = self.files.held("plain", name, lambda: memoryview(self._decompressed(shard)))
            return lambda start, length: exactly(plain, start, length, f"{self.files.url}/{name}")
        if shard["raw_data"]["hashes"] and chunk not in self._checked:
            _check(self.files.whole(name), shard["raw_data"], self.files.url)
            self._checked.add(chunk)
        return lambda start, length: self.files.part(name, start, length)

    def _has_plain(self, name: str) -> bool:
        return self.files.is_local and self.files.path(name).exists()

    def _decompressed(self, shard: Mapping[str, Any]) -> bytes:
        packed = self.files.whole(shard["zip_data"]["basename"])
        _check(packed, shard["zip_data"], self.files.url)
        plain = _decompressor(shard["compression"])(bytes(packed))
        _check(plain, shard["raw_data"], self.files.url)
        return plain

    def _first(self, leaf: int) -> memoryview:
        return _split(*self._items(0, 0, 1), self._sizes)[leaf].row(0)


def _leaf_node(name: str, leaf: MdsLeaf) -> dict[str, Any]:
    return {"kind": "leaf", "name": escaped(name), "nullable": False, **leaf.node}


def _shards(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    if index.get("version") != 2:
        raise ConfigError(f"the MDS index has version {index.get('version')!r}; read is version 2.")
    shards = index["shards"]
    for shard in shards:
        if shard["format"] != "mds":
            raise ConfigError(f"a shard has the format {shard['format']!r}; of MosaicML's formats 'mds' is read.")
        if (shard["column_names"], shard["column_encodings"]) != (shards[0]["column_names"], shards[0]["column_encodings"]):
            raise ConfigError(f"the shards of the dataset have different columns: {shard['column_names']} and {shards[0]['column_names']}.")
    return list(shards)


def _split(data: Any, offsets: Any, sizes: Sequence[int | None]) -> list[Spans]:
    """Return the spans of each column; only those of variable size have their sizes in front."""
    whole = Spans(data, offsets[:-1], np.diff(offsets))
    variable = [number for number, size in enumerate(sizes) if not size]
    written = whole.fixed("<u4", len(variable)).astype(np.int64)
    widths = np.empty((whole.rows, len(sizes)), np.int64)
    for number, size in enumerate(sizes):
        widths[:, number] = size or written[:, variable.index(number)]
    if whole.rows and (widths.sum(axis=1) + 4 * len(variable) != whole.sizes).any():
        raise CorruptDataError("the sizes of a sample's columns do not add up to the sample")
    starts = offsets[:-1, None] + 4 * len(variable) + np.cumsum(widths, axis=1) - widths
    return [Spans(data, starts[:, number].copy(), widths[:, number].copy()) for number in range(len(sizes))]


def _check(data: Any, file: Mapping[str, Any], where: str) -> None:
    for algorithm, expected in (file.get("hashes") or {}).items():
        library = xxhash if algorithm in xxhash.algorithms_available else hashlib
        actual = getattr(library, algorithm)(bytes(data)).hexdigest()
        if actual != expected:
            raise CorruptDataError(f"{where}/{file['basename']}: {algorithm} is {actual}, where the index says {expected}.")


def _decompressor(name: str) -> Callable[[bytes], bytes]:
    kind = name.partition(":")[0]
    if kind == "gz":
        return gzip.decompress
    if kind == "bz2":
        return bz2.decompress
    if kind == "br":
        return require("brotli", purpose="MDS shards compressed with brotli").decompress
    if kind == "snappy":
        return require("snappy", purpose="MDS shards compressed with snappy", package="python-snappy").decompress
    if kind == "zstd":
        zstandard = require("zstandard", purpose="compressed datasets", extra="data")
        return lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)
    raise ConfigError(f"the MDS dataset is compressed with {name!r}; read are 'zstd', 'gz', 'bz2', 'snappy' and 'br'.")
