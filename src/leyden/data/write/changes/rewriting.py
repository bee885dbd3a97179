"""`write_chunk`: a chunk of columns that are there; and `Rewriter`: chunks of a dataset written anew, with other rows or values.

What lay in column files goes into the chunk itself.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import numpy as np

from leyden.core.files import sync_directory
from leyden.core.ids import new_id
from leyden.data.codecs.registry import UNCOMPRESSED
from leyden.data.format.block import Packing, pack_block
from leyden.data.format.chunk import ChunkEntry, ChunkWriter, Origin
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.format.column import NULL, Column
from leyden.data.format.compress import Compression
from leyden.data.format.hashing import digest128
from leyden.data.format.manifest import Chunk
from leyden.data.format.schema import Schema
from leyden.data.read.native import NativeSource
from leyden.data.write.changes.committing import Files
from leyden.data.write.changes.target import Target, is_remote
from leyden.data.write.unit import OutputFolder

JOB_DIGITS = 12


def new_job(operation: str) -> str:
    """Return an id that no other change has: two that do the same must not write the same files, as one of them removes its own."""
    return digest128(f"{operation} {new_id('change')}".encode())[:JOB_DIGITS]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkOutput:
    """Where chunks are written, and how.

    Args:
        url: The dataset.
        options: Of its storage.
        ciphers: What encrypts; `None`: nothing does.
        compression: A name of `Compression`.
        is_tokens: Whether the tokens of each block are counted.
        prefix: What names begin with.
        durable: Whether a chunk is on the disk when it is there.
    """

    url: str
    options: Mapping[str, Any]
    ciphers: DatasetCiphers | None
    compression: str | None
    is_tokens: bool = False
    prefix: str = "chunk"
    durable: bool = True


def write_chunk(output: ChunkOutput, origin: Origin, blocks: Iterable[list[Column]], schema: Callable[[], Schema]) -> ChunkEntry | None:
    """Write a chunk, and return its entry; `None` if there are no rows.

    Args:
        output: Where and how.
        origin: What the chunk is called by.
        blocks: The columns of each block, in the order of the schema's leaves; those without rows are left out.
        schema: Returns the schema of the blocks so far.
    """
    cipher = salt = key = None
    if output.ciphers is not None:
        cipher, salt, key = output.ciphers.new_chunk(origin.chunk_id)
    compression = Compression(output.compression)
    with OutputFolder(output.url, output.options) as folder:
        path = folder.path / origin.temporary_name()
        writer: ChunkWriter | None = None
        try:
            for columns in blocks:
                if not columns[0].rows:
                    continue
                writer = writer or ChunkWriter(path, origin, schema(), salt=salt, key=key)
                writer.schema = schema()
                packing = Packing(compression, [leaf.type not in UNCOMPRESSED for leaf in writer.schema.leaves], cipher)
                number, first = len(writer.blocks), writer.rows
                block = pack_block(columns, number=number, chunk_id=origin.chunk_id, first_row=first, packing=packing)
                writer.add(block, columns[0].rows, _tokens_of(columns[0]) if output.is_tokens else None)
        except BaseException:
            if writer is not None:
                writer.discard()
            raise
        if writer is None:
            return None
        entry = writer.finish(durable=output.durable)
        name = entry.name.replace("chunk", output.prefix, 1)
        writer.path.replace(folder.path / name)
        if output.durable and not is_remote(output.url):
            sync_directory(folder.path)
        folder.publish([name])
    return entry._replace(name=name)


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
        manifest, into = target.manifest, into or target
        self._files, self._job = files, job
        self._source = NativeSource(target.url, target.options, manifest, verify="always", encryption=encryption)
        cipher = into.manifest.cipher
        self._output = ChunkOutput(
            url=into.url,
            options=into.options,
            ciphers=None if cipher is None else DatasetCiphers(encryption, cipher),
            compression=manifest.settings.get("compression"),
            is_tokens=target.is_tokens,
        )
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
        entry = write_chunk(self._output, Origin(self._job, str(unit), 0), blocks, lambda: schema)
        if entry is None:
            return None
        self._files.add(entry.name)
        return Chunk.of(entry)


def _tokens_of(column: Column) -> int:
    return 0 if column.kind == NULL else int(column.values.size)
