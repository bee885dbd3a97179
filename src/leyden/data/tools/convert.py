"""`convert`: a dataset of any format, written in another."""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from leyden.core.errors import ConfigError, ConflictError, closest, listed
from leyden.core.optional import require
from leyden.core.storage import Storage, open_storage
from leyden.data.codecs.serializer import Serializer
from leyden.data.config import parse_bytes
from leyden.data.interop.arrow_export import table_of
from leyden.data.interop.litdata_chunks import Decrypts
from leyden.data.interop.litdata_index import INDEX
from leyden.data.interop.litdata_write import LitdataSettings, LitdataWriter
from leyden.data.tools.native_copy import parts_of, write_native
from leyden.data.tools.opening import Access, AnySource, live_rows, open_any

Target = Literal["leyden", "litdata", "parquet", "arrow"]
FILE_BYTES = 64_000_000


class Converted(NamedTuple):
    """What `convert` wrote.

    Args:
        url: Where.
        num_rows: How many rows.
        files: The files, in order.
        num_bytes: Their bytes.
    """

    url: str
    num_rows: int
    files: list[str]
    num_bytes: int


def convert(  # noqa: PLR0913 - the settings of three formats, flat as a command line gives them
    src: str,
    dst: str,
    to: Target = "leyden",
    *,
    storage_options: Mapping[str, Any] | None = None,
    encryption: Decrypts | None = None,
    serializers: Mapping[str, Serializer] | None = None,
    chunk_bytes: int | str = "64MB",
    chunk_size: int | None = None,
    compression: str | None = None,
) -> Converted:
    """Write the rows of a dataset in another format, in their order.

    The files come first and what makes them a dataset comes last, so that an unfinished conversion is not taken for a dataset.

    Args:
        src: A dataset of ours, LitData's or MosaicML's, Parquet files or tar shards.
        dst: A folder or URL that is empty.
        to: `"leyden"`, `"litdata"`, `"parquet"` or `"arrow"` (IPC files).
        storage_options: Of both places.
        encryption: What decrypts the source.
        serializers: The user's own kinds of leaves in the source.
        chunk_bytes: The most bytes of a file, unless a single row or block has more.
        chunk_size: The most rows of a chunk, in LitData's layout.
        compression: `"zstd"` or `"zstd:N"`, in our own layout and LitData's.

    Raises:
        NotFoundError: There is no dataset at `src`.
        ConflictError: There is something at `dst`.
        ConfigError: `to` is none of these, or a leaf cannot be written so.
    """
    if to not in WRITERS:
        raise ConfigError(f"to={to!r} is not accepted: it takes {listed(WRITERS)}.{closest(to, WRITERS)}")
    settings = LitdataSettings(chunk_bytes=parse_bytes(chunk_bytes, "chunk_bytes"), chunk_size=chunk_size, compression=compression)
    access = Access(storage_options=storage_options or {}, encryption=encryption, serializers=serializers or {})
    source = open_any(src, access)
    storage = open_storage(dst, dict(storage_options or {}))
    if next(iter(storage.list()), None) is not None:
        raise ConflictError(f"{dst} is not empty. Convert into a new folder: nothing is ever overwritten.")
    files = dict(WRITERS[to](source, storage, settings))
    return Converted(dst, live_rows(source), list(files), sum(files.values()))


def _to_litdata(source: AnySource, storage: Storage, settings: LitdataSettings) -> Iterator[tuple[str, int]]:
    writer = LitdataWriter(source.schema.tree, source.schema.leaves, settings)
    entries: list[dict[str, Any]] = []
    for chunks in _with_last((writer.add(columns) for columns in parts_of(source)), writer.finish):
        for chunk in chunks:
            storage.write(chunk.name, chunk.data)
            entries.append(chunk.entry)
            yield chunk.name, len(chunk.data)
    index = writer.index(entries)
    storage.write(INDEX, index)
    yield INDEX, len(index)


def _with_last(parts: Iterator[Any], last: Callable[[], Any]) -> Iterator[Any]:
    yield from parts
    yield last()


def _to_parquet(source: AnySource, storage: Storage, settings: LitdataSettings) -> Iterator[tuple[str, int]]:
    parquet = require("pyarrow.parquet", purpose='convert(to="parquet")', extra="parquet")
    yield from _to_files(source, storage, settings.chunk_bytes or FILE_BYTES, ".parquet", parquet.ParquetWriter)


def _to_arrow(source: AnySource, storage: Storage, settings: LitdataSettings) -> Iterator[tuple[str, int]]:
    ipc = require("pyarrow.ipc", purpose='convert(to="arrow")', extra="parquet")
    yield from _to_files(source, storage, settings.chunk_bytes or FILE_BYTES, ".arrow", ipc.new_file)


def _to_files(
    source: AnySource, storage: Storage, most_bytes: int, suffix: str, open_writer: Callable[[Any, Any], Any]
) -> Iterator[tuple[str, int]]:
    """Write a row group or record batch per block, and a file per `most_bytes` of them."""
    number, buffer, writer, schema = 0, io.BytesIO(), None, None
    for columns in parts_of(source):
        table = table_of(source.schema.tree, source.schema.leaves, columns)
        if writer is None:
            schema = schema or table.schema
            writer = open_writer(buffer, schema)
        writer.write_table(table.cast(schema))
        if buffer.tell() >= most_bytes:
            yield _close(writer, buffer, storage, f"part-{number:05d}{suffix}")
            number, buffer, writer = number + 1, io.BytesIO(), None
    if writer is not None:
        yield _close(writer, buffer, storage, f"part-{number:05d}{suffix}")


def _close(writer: Any, buffer: io.BytesIO, storage: Storage, name: str) -> tuple[str, int]:
    writer.close()
    data = buffer.getvalue()
    storage.write(name, data)
    return name, len(data)


WRITERS: dict[str, Callable[[AnySource, Storage, LitdataSettings], Iterator[tuple[str, int]]]] = {
    "leyden": write_native,
    "litdata": _to_litdata,
    "parquet": _to_parquet,
    "arrow": _to_arrow,
}
