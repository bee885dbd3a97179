"""`ParquetSource`: Parquet files as blocks; a row group is a block.

Footers say how many rows there are. All of them are read when the source is made, unless an index (a manifest of ours over
these files) says the same. pyarrow runs in `fetch` only: what travels to `open` is our own columns.
"""

import fnmatch
import io
import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, final

import numpy as np

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError, closest, listed
from leyden.core.optional import require
from leyden.data.errors import SchemaError
from leyden.data.format.block import ALIGNMENT
from leyden.data.format.hashing import digest128
from leyden.data.format.manifest import Chunk, Manifest, packed
from leyden.data.format.schema import Schema
from leyden.data.interop import arrow
from leyden.data.interop.blocks import ForeignSource
from leyden.data.interop.columns import ForeignBlock
from leyden.data.interop.files import ForeignFiles

SUFFIXES = (".parquet", ".pq")


@final
class ParquetSource(ForeignSource):
    """Parquet files below a folder as a `BlockSource`.

    Args:
        url: The folder or URL.
        options: Of the storage.
        pattern: Which files, such as `"train-*.parquet"`; all by default. They are read in the order of their names.
        columns: Which top columns are read; all by default.
        index: What `indexed` has found before, in place of the footers.

    Raises:
        NotFoundError: There are no such files.
        ConfigError: `columns` names one that is not there.
        SchemaError: Two files have different columns.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        pattern: str | None = None,
        columns: Sequence[str] | None = None,
        index: Manifest | None = None,
    ) -> None:
        self.files = ForeignFiles(url, options)
        found = indexed(self.files, pattern) if index is None else index
        self.chunk_names = found.chunk_names
        self.digest, self.table = found.digest, found.table
        self._bytes = [chunk.bytes for chunk in found.chunks]
        self._groups = np.arange(len(self.table.rows)) - np.searchsorted(self.table.chunk, self.table.chunk)
        self.columns = _selected(found.schema.tree["keys"], columns)
        self.schema = _pruned(found.schema, self.columns)
        self._names = [leaf.name for leaf in self.schema.leaves]

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> bytes:
        """Return the row group's columns; with `columns`, only the top columns that hold those leaves are read."""
        wanted = range(len(self._names)) if columns is None else columns
        tops = [name for name in self.columns if any(_is_below(self._names[leaf], name) for leaf in wanted)]
        chunk = int(self.table.chunk[block])
        file = opened(self.files, self.chunk_names[chunk], self._bytes[chunk])
        table = file.read_row_group(int(self._groups[block]), columns=tops, use_threads=False)
        found = dict(zip([self._names[i] for i in wanted], arrow.columns_of(table, [self._names[i] for i in wanted]), strict=True))
        return pickle.dumps([found.get(name) for name in self._names])

    def open(self, block: int, buffer: Any) -> ForeignBlock:
        """Return the columns of a buffer of `fetch`."""
        columns = pickle.loads(buffer)  # noqa: S301 - what `fetch` made, here or in this node's cache
        return ForeignBlock(int(self.table.rows[block]), int(self.table.first_row[block]), columns)


def opened(files: ForeignFiles, name: str, num_bytes: int | None = None) -> Any:
    """Return a file as pyarrow opens it.

    Args:
        files: Where it lies.
        name: Its name.
        num_bytes: How long it was when it was indexed.

    Raises:
        CorruptDataError: It is damaged, or another one now.
    """
    parquet = require("pyarrow.parquet", purpose="Parquet data", extra="parquet")
    pa = arrow.pyarrow()
    ranged = None if files.is_local else _RangedFile(files, name)
    now = files.size(name) if ranged is None else ranged.num_bytes
    if num_bytes not in {None, now}:
        raise CorruptDataError(
            f"{files.url}/{name} has {now:,} bytes, and had {num_bytes:,} when it was indexed: it was replaced. Open the dataset anew, or "
            "index it again with index_parquet_dataset."
        )
    try:
        if ranged is None:
            return parquet.ParquetFile(pa.BufferReader(pa.py_buffer(files.whole(name))))
        return parquet.ParquetFile(pa.PythonFile(ranged, mode="r"))
    except pa.ArrowInvalid as error:
        raise CorruptDataError(f"{files.url}/{name} is no Parquet file, or damaged: {error}") from error


@final
class _RangedFile(io.RawIOBase):
    """A remote file that is read by ranges, as pyarrow asks for them."""

    def __init__(self, files: ForeignFiles, name: str) -> None:
        super().__init__()
        self._files, self._name, self.num_bytes, self._at = files, name, files.size(name), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.num_bytes}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        length = self.num_bytes - self._at if size is None or size < 0 else min(size, self.num_bytes - self._at)
        data = bytes(self._files.part(self._name, self._at, length)) if length > 0 else b""
        self._at += len(data)
        return data


def parquet_names(files: ForeignFiles, pattern: str | None = None) -> list[str]:
    """Return the Parquet files below a root, in the order of their names."""
    keys = files.names()
    return [key for key in keys if key.endswith(SUFFIXES) and (pattern is None or fnmatch.fnmatch(key, pattern))]


def _unified(schemas: Sequence[Any], names: Sequence[str]) -> Any:
    pa = arrow.pyarrow()
    twice = next((column for column in schemas[0].names if schemas[0].names.count(column) > 1), None)
    if twice is not None:
        raise SchemaError(f"{names[0]} has two columns of the name {twice!r}: nothing says which one is meant. Rename one of them.")
    for schema, name in zip(schemas, names, strict=True):
        if schema.names != schemas[0].names:
            raise SchemaError(f"{name} has the columns {listed(schema.names)}, and {names[0]} has {listed(schemas[0].names)}.")
    try:
        return pa.unify_schemas([schema.remove_metadata() for schema in schemas])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SchemaError(f"the Parquet files have columns of different types: {error}. Read them as datasets of their own.") from error


def _selected(names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    for name in columns or ():
        if name not in names:
            raise ConfigError(f"columns: there is no column {name!r}.{closest(name, names)} There are {listed(names)}.")
    return [name for name in names if columns is None or name in columns]


def _is_below(leaf: str, top: str) -> bool:
    escaped = top.replace("~", "~0").replace("/", "~1")
    return leaf == escaped or leaf.startswith(escaped + "/")


def indexed(files: ForeignFiles, pattern: str | None = None, workers: int = 1) -> Manifest:
    """Return what the footers of all files say, as a manifest: a file is a chunk, a row group a block.

    Args:
        files: Where they lie.
        pattern: Which files; all by default.
        workers: Footers that are read at once.

    Raises:
        NotFoundError: There are no such files.
        SchemaError: Two files have different columns.
    """
    names = parquet_names(files, pattern)
    if not names:
        raise NotFoundError(f"{files.url} holds no Parquet files{f' like {pattern}' if pattern else ''} (*.parquet, *.pq).")
    arrow.pyarrow()  # says what is missing before there are threads
    with ThreadPoolExecutor(workers, "leyden-footers") as pool:
        footers = list(pool.map(lambda name: _footer(files, name), names))  # pyrefly: ignore[implicit-any-lambda]
    whole = _unified([footer.schema for footer in footers], names)
    schema = Schema.from_json(arrow.node_of_schema(arrow.pyarrow().schema([whole.field(name) for name in whole.names])))
    chunks = tuple(footer.chunk for footer in footers)
    return Manifest(version=1, schema=schema, chunks=chunks, settings={}, operation="index", storage="parquet")


class _Footer(NamedTuple):
    schema: Any
    chunk: Chunk


def _footer(files: ForeignFiles, name: str) -> _Footer:
    file = opened(files, name)
    footer = file.metadata
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    pairs = np.array([(group.num_rows, -(-group.total_byte_size // ALIGNMENT)) for group in groups], "<u4").reshape(-1, 2)
    digest = digest128(repr(footer.to_dict()).encode())
    return _Footer(file.schema_arrow, Chunk(name, files.size(name), footer.num_rows, digest, packed(pairs)))


def _pruned(schema: Schema, columns: Sequence[str]) -> Schema:
    tree = schema.tree
    kept = [(key, child) for key, child in zip(tree["keys"], tree["children"], strict=True) if key in columns]
    return Schema({**tree, "keys": [key for key, _ in kept], "children": [child for _, child in kept]})
