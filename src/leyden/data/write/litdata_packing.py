"""The second phase of a job in LitData's layout: a pack of our chunks becomes files that LitData reads.

A pack numbers its files by itself: `chunk-<rank>-<n>.bin`, with a rank of its own, which the job has reserved. How leaves are
written is decided by the first rows of the job, for all packs alike. Files depend on the rows alone, so that a driver that
comes too late writes the same bytes again.
"""

import json
import time
from typing import Any, final

from leyden.core.failpoints import failpoint
from leyden.core.storage import Storage, open_storage
from leyden.data.errors import SchemaError
from leyden.data.format.chunk import ChunkEntry
from leyden.data.format.column import Column
from leyden.data.format.joining import joined
from leyden.data.format.schema import Schema
from leyden.data.interop.litdata_write import LitdataSettings, LitdataWriter
from leyden.data.write.packing import ColumnFiller, Pack, ciphers_of, columns_of
from leyden.data.write.unit import Task


def run_litdata_pack(task: Task, settings: LitdataSettings, unit: int, pack: Pack) -> dict[str, Any]:
    """Pack into LitData's files, and return the record; the files are in the output.

    Args:
        task: The job's.
        settings: How LitData's chunks are filled.
        unit: The pack's number.
        pack: What it packs.

    Raises:
        ConfigError: LitData has no place for a leaf.
        SchemaError: LitData has no place for a value.
        StorageError: The output refuses, or a chunk is damaged or gone.
    """
    start, ciphers, schema = time.monotonic(), ciphers_of(task), Schema.from_json(pack.schema)
    writer = LitdataWriter(schema.tree, schema.leaves, settings, rank=pack.first_rank + unit)
    writer.begin(_in_schema(next(columns_of(task, pack.head, ciphers)), schema, task))
    files = _Files(open_storage(task.output, task.options), writer)
    filler = ColumnFiller(files, schema, task.settings)
    for piece in pack.pieces:
        for columns in columns_of(task, piece, ciphers):
            filler.add(columns)
    failpoint("data.pack.written")
    filler.finish()
    return {
        "unit": unit,
        "inputs": 1,
        "rows": filler.rows,
        "bytes": sum(entry["chunk_bytes"] for entry in files.entries),
        "failures": [],
        "chunks": [],
        "schema": None,
        "litdata": {"chunks": files.entries, "config": json.loads(writer.index([]))["config"]},
        "seconds": round(time.monotonic() - start, 3),
    }


def _in_schema(columns: list[Column], schema: Schema, task: Task) -> list[Column]:
    return [joined([column], leaf, task.settings.token_dtype) for column, leaf in zip(columns, schema.leaves, strict=True)]


def refuse_nulls(schema: Schema) -> None:
    """Refuse rows that LitData's layout cannot hold, before anything is packed.

    Raises:
        SchemaError: A leaf may be `None`.
    """
    for leaf in schema.leaves:
        if leaf.nullable:
            raise SchemaError(f"leaf {leaf.name!r} holds None, for which LitData's layout has no place. Fill it, or write our own layout.")


@final
class _Files:
    """Takes blocks and writes LitData's chunks."""

    def __init__(self, storage: Storage, writer: LitdataWriter) -> None:
        self._storage, self._writer = storage, writer
        self.entries: list[dict[str, Any]] = []

    def add(self, columns: list[Column], schema: Schema, *, is_tokens: bool) -> bool:
        del schema, is_tokens  # the writer knows both
        self._keep(self._writer.add(columns))
        return False  # it counts its rows by itself

    def close(self) -> None:
        pass  # the writer ends a chunk by the same rule

    def finish(self) -> list[ChunkEntry]:
        self._keep(self._writer.finish())
        return []

    def discard(self) -> None:
        pass  # whoever does the pack again writes the same names

    def _keep(self, chunks: Any) -> None:
        for chunk in chunks:
            self._storage.write(chunk.name, chunk.data)
            self.entries.append(chunk.entry)
