"""`write_native`: the columns of any source in our own format, block by block, without decoding a value."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from leyden.core.errors import ConfigError
from leyden.core.storage import Storage
from leyden.data.codecs.registry import UNCOMPRESSED
from leyden.data.format.block import PLAIN, Packing, pack_block
from leyden.data.format.chunk import ChunkWriter, Origin
from leyden.data.format.column import Column
from leyden.data.format.compress import Compression
from leyden.data.format.hashing import digest128
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.schema import Schema
from leyden.data.format.versions import INDEX, commit
from leyden.data.interop.columns import taken
from leyden.data.interop.litdata_write import LitdataSettings
from leyden.data.read.native import NativeSource
from leyden.data.tools.opening import AnySource

JOB_DIGITS = 12


def parts_of(source: AnySource) -> Iterator[list[Column]]:
    """Yield the columns of each block, in order, without the rows that are deleted."""
    deleted = source.deleted if isinstance(source, NativeSource) else None
    for block, (first, rows) in enumerate(zip(source.table.first_row.tolist(), source.table.rows.tolist(), strict=True)):
        opened = source.open(block, source.fetch(block))
        columns = [opened.column(number) for number in range(len(source.schema.leaves))]
        gone = [] if deleted is None else deleted[(deleted >= first) & (deleted < first + rows)] - first
        kept = np.setdiff1d(np.arange(rows), gone)
        if len(kept):
            yield columns if len(kept) == rows else [taken(column, kept) for column in columns]


def write_native(source: AnySource, storage: Storage, settings: LitdataSettings) -> Iterator[tuple[str, int]]:
    """Write the source's blocks into chunks, upload each when it is full, and commit version 1 of them.

    Args:
        source: Where the rows come from.
        storage: An empty place.
        settings: Bytes of a chunk and the compression.

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
    chunks: list[Chunk] = []
    with tempfile.TemporaryDirectory(prefix="leyden-convert-") as folder:
        for writer in _filled(source, schema, Path(folder), settings):
            entry = writer.finish(durable=False)
            storage.upload_file(Path(folder) / entry.name, entry.name)
            (Path(folder) / entry.name).unlink()
            chunks.append(Chunk.of(entry))
            yield entry.name, entry.bytes
    kept = {"chunk_bytes": settings.chunk_bytes, "chunk_size": None, "compression": settings.compression}
    lineage = {"parents": [{"version": source.version, "digest": source.digest}]}
    manifest = Manifest(version=1, schema=schema, chunks=tuple(chunks), settings=kept, operation="convert", lineage=lineage)
    commit(storage, lambda _: manifest, must_be_new=True)
    yield INDEX, storage.size(INDEX)


def _filled(source: AnySource, schema: Schema, folder: Path, settings: LitdataSettings) -> Iterator[ChunkWriter]:
    """Yield chunks that are full, and the last one."""
    job = digest128(f"convert {source.digest} {settings.chunk_bytes} {settings.compression}".encode())[:JOB_DIGITS]
    compressible = [leaf.type not in UNCOMPRESSED for leaf in schema.leaves]
    packing = PLAIN if settings.compression is None else Packing(Compression(settings.compression), compressible, None)
    number, writer = 0, None
    for columns in parts_of(source):
        if writer is None:
            writer = ChunkWriter(folder / f"{number}.tmp", Origin(job, "0", number), schema)
        block = pack_block(columns, number=len(writer.blocks), chunk_id=writer.origin.chunk_id, first_row=writer.rows, packing=packing)
        writer.add(block, columns[0].rows)
        if settings.chunk_bytes is not None and writer.size >= settings.chunk_bytes:
            yield writer
            number, writer = number + 1, None
    if writer is not None:
        yield writer
