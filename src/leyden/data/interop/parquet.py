"""`ParquetSource`: Parquet files as blocks; a row group is a block.

Footers are read when the source is made, all of them, as they say how many rows there are. pyarrow runs in `fetch` only:
what travels to `open` is our own columns.
"""

import fnmatch
import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError, closest, listed
from leyden.core.optional import require
from leyden.data.errors import SchemaError
from leyden.data.format.hashing import digest128
from leyden.data.format.schema import Schema
from leyden.data.format.table import BlockTable
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

    Raises:
        NotFoundError: There are no such files.
        ConfigError: `columns` names one that is not there.
        SchemaError: Two files have different columns.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any] | None = None, *, pattern: str | None = None, columns: Sequence[str] | None = None
    ) -> None:
        self.files = ForeignFiles(url, options)
        self.chunk_names = parquet_names(self.files, pattern)
        if not self.chunk_names:
            raise NotFoundError(f"{url} holds no Parquet files{f' like {pattern}' if pattern else ''} (*.parquet, *.pq).")
        footers = [self._file(name) for name in self.chunk_names]
        whole = _unified([footer.schema_arrow for footer in footers], self.chunk_names)
        self.columns = _selected(whole.names, columns)
        node = arrow.node_of_schema(arrow.pyarrow().schema([whole.field(name) for name in self.columns]))
        self.schema = Schema.from_json(node)
        facts = [(name, footer.metadata.to_dict()) for name, footer in zip(self.chunk_names, footers, strict=True)]
        self.digest = digest128(repr(facts).encode())
        self.table, self._groups = _table([footer.metadata for footer in footers])
        self._names = [leaf.name for leaf in self.schema.leaves]

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> bytes:
        """Return the row group's columns; with `columns`, only the top columns that hold those leaves are read."""
        wanted = range(len(self._names)) if columns is None else columns
        tops = [name for name in self.columns if any(_is_below(self._names[leaf], name) for leaf in wanted)]
        file = self._file(self.chunk_names[int(self.table.chunk[block])])
        table = file.read_row_group(int(self._groups[block]), columns=tops, use_threads=False)
        found = dict(zip([self._names[i] for i in wanted], arrow.columns_of(table, [self._names[i] for i in wanted]), strict=True))
        return pickle.dumps([found.get(name) for name in self._names])

    def open(self, block: int, buffer: Any) -> ForeignBlock:
        """Return the columns of a buffer of `fetch`."""
        columns = pickle.loads(buffer)  # noqa: S301 - what `fetch` made, here or in this node's cache
        return ForeignBlock(int(self.table.rows[block]), int(self.table.first_row[block]), columns)

    def _file(self, name: str) -> Any:
        parquet = require("pyarrow.parquet", purpose="Parquet data", extra="parquet")
        pa = arrow.pyarrow()
        try:
            if self.files.is_local:
                return parquet.ParquetFile(pa.BufferReader(pa.py_buffer(self.files.whole(name))))
            return parquet.ParquetFile(pa.PythonFile(_RangedFile(self.files, name), mode="r"))
        except pa.ArrowInvalid as error:
            raise CorruptDataError(f"{self.files.url}/{name} is no Parquet file, or damaged: {error}") from error


@final
class _RangedFile(io.RawIOBase):
    """A remote file that is read by ranges, as pyarrow asks for them."""

    def __init__(self, files: ForeignFiles, name: str) -> None:
        super().__init__()
        self._files, self._name, self._size, self._at = files, name, files.size(name), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        length = self._size - self._at if size is None or size < 0 else min(size, self._size - self._at)
        data = bytes(self._files.part(self._name, self._at, length)) if length > 0 else b""
        self._at += len(data)
        return data


def parquet_names(files: ForeignFiles, pattern: str | None = None) -> list[str]:
    """Return the Parquet files below a root, in the order of their names."""
    keys = sorted(entry.key for entry in files.storage.list())
    return [key for key in keys if key.endswith(SUFFIXES) and (pattern is None or fnmatch.fnmatch(key, pattern))]


def _unified(schemas: Sequence[Any], names: Sequence[str]) -> Any:
    pa = arrow.pyarrow()
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


def _table(footers: Sequence[Any]) -> tuple[BlockTable, NDArray[np.int64]]:
    """Return the table of all row groups, and each one's number in its file."""
    found = [
        (file, number, footer.row_group(number).num_rows, footer.row_group(number).total_byte_size)
        for file, footer in enumerate(footers)
        for number in range(footer.num_row_groups)
    ]
    chunk, group, rows, sizes = np.array(found, np.int64).reshape(-1, 4).T
    offset = np.cumsum(sizes) - sizes
    table = BlockTable(
        chunk=chunk.astype(np.int32),
        first_row=np.cumsum(rows) - rows,
        rows=rows,
        offset=offset,
        stored_bytes=sizes,
        tokens=None,
    )
    return table, group
