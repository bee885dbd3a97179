"""What a conversion's job calls: it writes the files of one run of blocks, in any format, and what the dataset will say of them."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, ConflictError
from leyden.core.optional import require
from leyden.data.codecs.registry import UNCOMPRESSED
from leyden.data.format.block import PLAIN, Packing, pack_block
from leyden.data.format.chunk import ChunkWriter, Origin
from leyden.data.format.column import Column
from leyden.data.format.compress import Compression
from leyden.data.format.hashing import digest128
from leyden.data.format.schema import Schema
from leyden.data.interop.arrow_export import table_of
from leyden.data.interop.columns import taken
from leyden.data.interop.litdata_write import LitdataSettings, LitdataWriter
from leyden.data.read.native import NativeSource
from leyden.data.read.subset import Runs
from leyden.data.tools.opening import Access, AnySource, open_any

FACTS = "_leyden/convert"
JOB_DIGITS = 12


class Part(NamedTuple):
    """A run of the source's blocks.

    Args:
        number: Which run it is.
        first: Its first block.
        stop: The block behind its last.
    """

    number: int
    first: int
    stop: int


def cut_parts(sizes: Sequence[int], most_bytes: int) -> list[Part]:
    """Return runs of blocks that have no more bytes than that together, unless a single one has.

    Example:
        >>> [tuple(part) for part in cut_parts([3, 3, 9, 1], 6)]
        [(0, 0, 2), (1, 2, 3), (2, 3, 4)]
    """
    borders, held = [0], 0
    for block, size in enumerate(sizes):
        if held and held + size > most_bytes:
            borders.append(block)
            held = 0
        held += size
    borders.append(len(sizes))
    return [Part(number, first, stop) for number, (first, stop) in enumerate(pairwise(borders))]


def columns_of(source: AnySource, kept: Runs, blocks: Iterable[int] | None = None) -> Iterator[list[Column]]:
    """Yield the columns of blocks, of all by default, with the rows that are kept; blocks without any are not read."""
    for block in range(len(source.table.rows)) if blocks is None else blocks:
        rows = int(source.table.rows[block])
        within = rows_within(kept, int(source.table.first_row[block]), rows)
        if len(within):
            opened = source.open(block, source.fetch(block))
            columns = [opened.column(number) for number in range(len(source.schema.leaves))]
            yield columns if len(within) == rows else [taken(column, within) for column in columns]


def rows_within(kept: Runs, first: int, rows: int) -> NDArray[np.int64]:
    """Return which rows of a block are kept, by their numbers within it.

    Args:
        kept: Ascending runs.
        first: The block's first row.
        rows: How many it has.

    Example:
        >>> rows_within(Runs(np.array([2, 9]), np.array([4, 3])), first=4, rows=6).tolist()
        [0, 1, 5]
    """
    low = int(np.searchsorted(kept.first + kept.rows, first, side="right"))
    high = int(np.searchsorted(kept.first, first + rows, side="left"))
    pieces = [
        np.arange(max(start, first), min(start + count, first + rows)) - first
        for start, count in zip(kept.first[low:high].tolist(), kept.rows[low:high].tolist(), strict=True)
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def live_runs(source: AnySource) -> Runs:
    """Return all rows of a source that are not deleted."""
    return Runs.all_of(int(source.table.rows.sum()), source.deleted if isinstance(source, NativeSource) else None)


def native_schema(source: AnySource) -> Schema:
    """Return the schema of the source's rows in chunks of our own.

    Raises:
        ConfigError: A leaf cannot be read back without the source's own serializer, or is pickled.
    """
    schema = Schema(source.schema.tree).with_leaves(lambda leaf: dataclasses.replace(leaf, file=None))
    for leaf in schema.leaves:
        if leaf.type == "pickle" or leaf.type.startswith("custom:litdata-"):
            raise ConfigError(
                f"leaf {leaf.name!r} ({leaf.type}) is not copied: it is pickled, at least in part. Write the samples anew with "
                "optimize(…, inputs=StreamingDataLoader(…))."
            )
    return schema


@final
class PartWriter:
    """Writes the files of parts. Pickles as configuration: each process opens the source once.

    Args:
        src: The source's URL.
        digest: What it is.
        access: How it is opened.
        to: The format.
        settings: Bytes of a chunk, and the compression.
        kept: Which of its rows, ascending; all that are not deleted by default.
    """

    def __init__(self, src: str, digest: str, access: Access, to: str, settings: LitdataSettings, kept: Runs | None = None) -> None:
        self._src, self._digest, self._access, self._to = src, digest, access, to
        self.settings, self._kept = settings, kept
        chosen = "" if kept is None else f" {kept.digest}"
        self._job = digest128(f"convert {digest} {settings.chunk_bytes} {settings.compression}{chosen}".encode())[:JOB_DIGITS]
        self._source: AnySource | None = None
        self._head: list[Column] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None, "_head": None}

    @property
    def source(self) -> AnySource:
        """The source, opened.

        Raises:
            ConflictError: It is not what it was when the conversion began.
        """
        if self._source is None:
            self._source = open_any(self._src, self._access)
            if self._source.digest != self._digest:
                raise ConflictError(f"{self._src} has changed since its conversion began. Convert it into another folder.")
        return self._source

    @property
    def kept(self) -> Runs:
        """The rows that are written."""
        if self._kept is None:
            self._kept = live_runs(self.source)
        return self._kept

    @property
    def head(self) -> list[Column] | None:
        """The columns of the first block that has rows: formats are settled by them. `None` if none has."""
        if self._head is None:
            self._head = next(columns_of(self.source, self.kept), None)
        return self._head

    def __call__(self, part: Sequence[int], output_dir: str) -> None:
        """Write the files of a part."""
        chosen, folder = Part(*part), Path(output_dir)
        facts = WRITERS[self._to](self, chosen, folder)
        path = folder / FACTS / f"{chosen.number:08d}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(facts), encoding="utf-8")

    def check(self) -> None:
        """Find out whether rows like the first can be written so.

        Raises:
            ConfigError: A leaf cannot.
            CorruptDataError: The first block is damaged.
        """
        head = self.head
        if self._to == "leyden":
            native_schema(self.source)
        elif self._to == "litdata":
            self.litdata_writer()
        elif head is not None:
            table_of(self.source.schema.tree, self.source.schema.leaves, head)

    def litdata_writer(self, rank: int = 0) -> LitdataWriter:
        """Return a writer of LitData's layout, whose leaves are written as those of the first rows."""
        writer = LitdataWriter(self.source.schema.tree, self.source.schema.leaves, self.settings, rank=rank)
        if self.head is not None:
            writer.begin(self.head)
        return writer

    def native_origin(self, part: Part, sequence: int) -> Origin:
        """Return what a chunk of ours is called by."""
        return Origin(self._job, str(part.number), sequence)


Facts = list[Mapping[str, Any]]


def _native(writer: PartWriter, part: Part, folder: Path) -> Facts:
    return [chunk.finish(durable=False)._asdict() for chunk in _filled(writer, part, folder)]


def _filled(writer: PartWriter, part: Part, folder: Path) -> Iterator[ChunkWriter]:
    """Yield chunks that are full, and the last one."""
    settings, schema = writer.settings, native_schema(writer.source)
    compressible = [leaf.type not in UNCOMPRESSED for leaf in schema.leaves]
    packing = PLAIN if settings.compression is None else Packing(Compression(settings.compression), compressible, None)
    sequence, chunk = 0, None
    for columns in columns_of(writer.source, writer.kept, range(part.first, part.stop)):
        if chunk is None:
            chunk = ChunkWriter(folder / f"{sequence}.tmp", writer.native_origin(part, sequence), schema)
        block = pack_block(columns, number=len(chunk.blocks), chunk_id=chunk.origin.chunk_id, first_row=chunk.rows, packing=packing)
        chunk.add(block, columns[0].rows)
        if settings.chunk_bytes is not None and chunk.size >= settings.chunk_bytes:
            yield chunk
            sequence, chunk = sequence + 1, None
    if chunk is not None:
        yield chunk


def _litdata(writer: PartWriter, part: Part, folder: Path) -> Facts:
    layout, entries = writer.litdata_writer(part.number), list[Mapping[str, Any]]()
    parts = columns_of(writer.source, writer.kept, range(part.first, part.stop))
    for chunks in _with_last((layout.add(columns) for columns in parts), layout.finish):
        for chunk in chunks:
            (folder / chunk.name).write_bytes(chunk.data)
            entries.append(chunk.entry)
    return entries


def _with_last(parts: Iterator[Any], last: Callable[[], Any]) -> Iterator[Any]:
    yield from parts
    yield last()


def _parquet(writer: PartWriter, part: Part, folder: Path) -> Facts:
    parquet = require("pyarrow.parquet", purpose='convert(to="parquet")', extra="parquet")
    return _table_file(writer, part, folder / f"part-{part.number:05d}.parquet", parquet.ParquetWriter)


def _arrow(writer: PartWriter, part: Part, folder: Path) -> Facts:
    ipc = require("pyarrow.ipc", purpose='convert(to="arrow")', extra="parquet")
    return _table_file(writer, part, folder / f"part-{part.number:05d}.arrow", ipc.new_file)


def _table_file(writer: PartWriter, part: Part, path: Path, open_writer: Callable[[Any, Any], Any]) -> Facts:
    """Write a row group or record batch for each block."""
    tree, leaves, head = writer.source.schema.tree, writer.source.schema.leaves, writer.head
    if head is None:
        return []
    schema, file = table_of(tree, leaves, head).schema, None
    try:
        for columns in columns_of(writer.source, writer.kept, range(part.first, part.stop)):
            file = file or open_writer(str(path), schema)
            file.write_table(table_of(tree, leaves, columns).cast(schema))
    finally:
        if file is not None:
            file.close()
    return []


WRITERS: dict[str, Callable[[PartWriter, Part, Path], Facts]] = {
    "leyden": _native,
    "litdata": _litdata,
    "parquet": _parquet,
    "arrow": _arrow,
}
