"""Small datasets in our own format, written block by block without a job."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leyden.core.storage import open_storage
from leyden.data.format.block import pack_block
from leyden.data.format.chunk import ChunkWriter, Origin
from leyden.data.format.column import Column
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.schema import Schema
from leyden.data.format.versions import commit


def write_native(folder: Path, tree: Mapping[str, Any], chunks: Sequence[Sequence[Sequence[Column]]], job: str = "a") -> Manifest:
    """Write version 1: a list of chunks, each a list of blocks, each a list of columns."""
    schema, made = Schema.from_json(tree), []
    for number, blocks in enumerate(chunks):
        origin = Origin(job, str(number), 0)
        writer = ChunkWriter(folder / f"{number}.tmp", origin, schema)
        for block, columns in enumerate(blocks):
            packed = pack_block(columns, number=block, chunk_id=origin.chunk_id, first_row=writer.rows)
            writer.add(packed, columns[0].rows)
        entry = writer.finish(durable=False)
        if (folder / f"{number}.tmp").exists():
            (folder / f"{number}.tmp").rename(folder / entry.name)
        made.append(Chunk.of(entry))
    return commit(open_storage(folder), lambda _: Manifest(version=1, schema=schema, chunks=tuple(made), settings={}))
