"""`Rewriter`: chunks written anew, block by block, with other rows or values; what was in column files goes into the chunk itself."""

import os
from collections.abc import Iterable
from typing import Any, final

import numpy as np

from leyden.core.ids import new_id
from leyden.data.codecs.registry import UNCOMPRESSED
from leyden.data.format.block import Packing, pack_block
from leyden.data.format.chunk import ChunkWriter, Origin
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.format.column import NULL, Column
from leyden.data.format.compress import Compression
from leyden.data.format.hashing import digest128
from leyden.data.format.manifest import Chunk
from leyden.data.format.schema import Schema
from leyden.data.read.native import NativeSource
from leyden.data.write.changes.committing import Files
from leyden.data.write.changes.target import Target
from leyden.data.write.unit import OutputFolder

JOB_DIGITS = 12


def new_job(operation: str) -> str:
    """Return an id that no other change has: two that do the same must not write the same files, as one of them removes its own."""
    return digest128(f"{operation} {new_id('change')}".encode())[:JOB_DIGITS]


@final
class Rewriter:
    """Reads chunks of a dataset and writes others.

    Args:
        target: The dataset.
        files: Notes what is written.
        encryption: What decrypts and encrypts, of an encrypted dataset.
        job: The id that is in the names of chunks.
        into: Another dataset that the chunks are written for; this one by default.

    Raises:
        ConfigError: The dataset is encrypted, and no key or another one's was given.
    """

    def __init__(self, target: Target, files: Files, encryption: Any, job: str, *, into: Target | None = None) -> None:
        manifest, self._into = target.manifest, into or target
        self._files, self._job, self._is_tokens = files, job, target.is_tokens
        self._source = NativeSource(target.url, target.options, manifest, verify="always", encryption=encryption)
        cipher = self._into.manifest.cipher
        self._ciphers = None if cipher is None else DatasetCiphers(encryption, cipher)
        self._compression = Compression(manifest.settings.get("compression"))
        self._first_block = np.searchsorted(self._source.table.chunk, np.arange(len(manifest.chunks) + 1)).tolist()

    def blocks_of(self, chunk: int) -> Iterable[tuple[int, list[Column]]]:
        """Yield the first row, within the chunk, and all columns of each block."""
        first = 0
        for block in range(self._first_block[chunk], self._first_block[chunk + 1]):
            opened = self._source.open(block, self._source.fetch(block))
            yield first, [opened.column(number) for number in range(len(self._source.schema.leaves))]
            first += opened.rows

    def write(self, unit: int, blocks: Iterable[list[Column]], schema: Schema) -> Chunk | None:
        """Write a chunk, and return it; `None` if there are no rows.

        Args:
            unit: A number that no other chunk of this change has.
            blocks: All columns of each block, in the order of the schema.
            schema: Of the rows.
        """
        origin = Origin(self._job, str(unit), 0)
        compressible = [leaf.type not in UNCOMPRESSED for leaf in schema.leaves]
        cipher = salt = key = None
        if self._ciphers is not None:
            cipher, salt, key = self._ciphers.new_chunk(origin.chunk_id)
        packing = Packing(self._compression, compressible, cipher)
        with OutputFolder(self._into.url, self._into.options) as folder:
            path = folder.path / f".chunk-{self._job}-{unit}-{os.getpid()}.tmp"
            writer = ChunkWriter(path, origin, schema, salt=salt, key=key)
            try:
                for columns in blocks:
                    if columns[0].rows:
                        block = pack_block(
                            columns, number=len(writer.blocks), chunk_id=origin.chunk_id, first_row=writer.rows, packing=packing
                        )
                        writer.add(block, columns[0].rows, _tokens_of(columns[0]) if self._is_tokens else None)
            except BaseException:
                writer.discard()
                raise
            if not writer.rows:
                writer.discard()
                return None
            entry = writer.finish()
            self._files.add(entry.name)
            folder.publish([entry.name])
        return Chunk.of(entry)


def _tokens_of(column: Column) -> int:
    return 0 if column.kind == NULL else int(column.values.size)
