"""`Filler`: rows become blocks and chunks. What lands where depends on the rows and the settings alone, never on who writes.

A block is closed before a row that would make it too large; a chunk before a block that would. A row larger than a block, or
a block larger than a chunk, makes it larger.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, final

from leyden.data.codecs.registry import UNCOMPRESSED
from leyden.data.format.block import PLAIN, Cipher, Packing, pack_block
from leyden.data.format.chunk import ChunkEntry, ChunkWriter, Origin
from leyden.data.format.column import LIST, Column
from leyden.data.format.compress import Compression
from leyden.data.format.leaves import LeafRules
from leyden.data.format.schema import Schema, unify
from leyden.data.format.tree import SampleBuilder

MIB = 1 << 20


class ChunkCiphers(Protocol):
    """Gives each chunk a cipher of its own."""

    def new_chunk(self, chunk_id: int) -> tuple[Cipher, bytes, str | None]:
        """Return the cipher of a new chunk, its salt, and its wrapped key if it has one."""
        ...


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class FillSettings:
    """How large blocks and chunks become.

    Args:
        block_bytes: Of a block, before compression.
        block_rows: The most rows of a block.
        chunk_bytes: Of a chunk file; `None`: any size.
        chunk_size: The most rows of a chunk, tokens of a token dataset; `None`: any number.
        compression: `None`, or a name of `Compression`.
        token_dtype: Of a token dataset: `auto`, or the type that its numbers are stored in; `None`: no token dataset.
    """

    block_bytes: int = 2 * MIB
    block_rows: int = 4096
    chunk_bytes: int | None = 64_000_000
    chunk_size: int | None = None
    compression: str | None = None
    token_dtype: str | None = None

    def to_json(self) -> Mapping[str, Any]:
        """Return what a manifest keeps of them."""
        known = dataclasses.asdict(self)
        return {key: known[key] for key in ("block_bytes", "block_rows", "chunk_bytes", "chunk_size", "compression")}


@final
class Filler:
    """Writes the rows of one unit into chunks of a local folder.

    Args:
        folder: Where the chunks lie.
        job: The job's id.
        unit: The unit's number, as text.
        settings: How large blocks and chunks become.
        rules: What may be stored.
        ciphers: Encrypts; `None`: nothing does.
        durable: Whether a finished chunk is on the disk.

    Example:
        >>> import tempfile
        >>> filler = Filler(tempfile.mkdtemp(), job="a", unit="0")
        >>> for number, text in enumerate(["zero", "one", "two"]):
        ...     filler.append({"id": number, "text": text})
        >>> filler.finish()[0].digest
        '096b8fabd9d035453138321aef7a35b7'
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        job: str,
        unit: str,
        settings: FillSettings = FillSettings(),
        rules: LeafRules = LeafRules(),  # noqa: B008 - frozen
        ciphers: ChunkCiphers | None = None,
        durable: bool = True,
    ) -> None:
        self._samples, self._rules = SampleBuilder(rules, settings.token_dtype), rules
        self._settings, self._durable = settings, durable
        self._chunks = ChunkFiller(Path(folder), job, unit, settings, ciphers, durable=durable)
        self._cost = self._in_block = self._in_chunk = 0  # bytes of the block; rows, or tokens, of block and chunk
        self._closed = 0  # blocks so far
        self.rows = self.bytes = self.oversized = 0
        self.has_failed = False

    @property
    def schema(self) -> Schema | None:
        """The schema of all rows; `None` before the first one."""
        return self._samples.schema if self.rows else None

    def append(self, sample: Any) -> None:
        """Add a row.

        Raises:
            SchemaError: It cannot be stored, or is built unlike those before; it was not added, and the next one may be.
            StorageError: The disk is full, or refuses.
        """
        size = 1 if self._settings.token_dtype is None else _num_tokens(sample)
        limit = self._settings.chunk_size
        if limit is not None and self._in_chunk and self._in_chunk + size > limit:
            self._close_chunk()
        elif self._samples.rows >= self._settings.block_rows:
            self._close_block()
        cost = self._samples.append(sample)
        if cost + self._cost > self._settings.block_bytes and self._samples.rows > 1:
            self._move_last_row(sample)
        self._cost += cost
        self.oversized += cost > self._settings.block_bytes
        self._in_block += size
        self._in_chunk += size
        self.rows += 1
        self.bytes += cost

    def mark(self) -> tuple[Any, ...]:
        """Return what `go_back` needs."""
        counts = self._cost, self._in_block, self._in_chunk, self.rows, self.bytes, self.oversized
        return self._samples.mark(), self._closed, counts

    def go_back(self, mark: tuple[Any, ...]) -> bool:
        """Forget the rows since a mark, and what they said of the schema; return False, with nothing changed, if some are written."""
        samples, closed, counts = mark
        if closed != self._closed:
            return False
        self._samples.go_back(samples)
        self._cost, self._in_block, self._in_chunk, self.rows, self.bytes, self.oversized = counts
        return True

    def check(self, samples: Sequence[Any]) -> None:
        """Find out whether samples can be added, and add none.

        Raises:
            SchemaError: One cannot be stored, or is built unlike those before.
        """
        trial = SampleBuilder(self._rules, self._settings.token_dtype)
        for sample in samples:
            trial.append(sample)
        if self.schema is not None and trial.rows:
            unify(self.schema, trial.schema)

    def finish(self) -> list[ChunkEntry]:
        """Close the last block and chunk, and return all chunks in order."""
        self._close_block()
        return self._chunks.finish()

    def discard(self) -> None:
        """Remove everything that was written."""
        self._chunks.discard()

    def _move_last_row(self, sample: Any) -> None:
        """Close the block without its newest row, which opens the next one: what it costs is known only when it is stored."""
        self._samples.keep(self._samples.rows - 1)
        self._close_block()
        self._samples.append(sample)

    def _close_chunk(self) -> None:
        self._close_block()
        self._in_chunk = 0
        with self._writing():
            self._chunks.close()

    def _close_block(self) -> None:
        with self._writing():
            self._write_block()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Take note of a disk that refuses: whoever asks why a row was not added learns that it was not the row's fault."""
        try:
            yield
        except BaseException:
            self.has_failed = True
            raise

    def _write_block(self) -> None:
        if self._samples.rows:
            self._closed += 1
            schema, is_tokens = self._samples.schema, self._settings.token_dtype is not None
            if self._chunks.add(self._samples.finish(), schema, is_tokens=is_tokens):
                self._in_chunk = self._in_block
            self._cost = self._in_block = 0


@final
class ChunkFiller:
    """Packs blocks and writes them into chunks."""

    def __init__(self, folder: Path, job: str, unit: str, settings: FillSettings, ciphers: ChunkCiphers | None, *, durable: bool) -> None:
        self._folder, self._job, self._unit, self._settings = folder, job, unit, settings
        self._ciphers, self._durable, self._compression = ciphers, durable, Compression(settings.compression)
        self._writer: ChunkWriter | None = None
        self._cipher: Cipher | None = None
        self.entries: list[ChunkEntry] = []

    def add(self, columns: list[Column], schema: Schema, *, is_tokens: bool) -> bool:
        """Add a block; return whether it opened a new chunk after another one, because the old one was full."""
        (writer, block), opened = self._packed(columns, schema), False
        limit = self._settings.chunk_bytes
        if limit is not None and writer.blocks and writer.size + len(block) > limit:
            self.close()
            (writer, block), opened = self._packed(columns, schema), True  # it is the first of another chunk now
        writer.schema = schema
        writer.add(block, columns[0].rows, _tokens_of(columns[0]) if is_tokens else None)
        return opened

    def _packed(self, columns: list[Column], schema: Schema) -> tuple[ChunkWriter, bytearray]:
        writer = self._writer = self._writer or self._opened(schema)
        compressible = [leaf.type not in UNCOMPRESSED for leaf in schema.leaves]
        packing = Packing(self._compression, compressible, self._cipher) if self._settings.compression or self._cipher else PLAIN
        block = pack_block(columns, number=len(writer.blocks), chunk_id=writer.origin.chunk_id, first_row=writer.rows, packing=packing)
        return writer, block

    def _opened(self, schema: Schema) -> ChunkWriter:
        origin = Origin(self._job, self._unit, len(self.entries))
        salt = key = None
        if self._ciphers is not None:
            self._cipher, salt, key = self._ciphers.new_chunk(origin.chunk_id)
        return ChunkWriter(self._folder / origin.temporary_name(), origin, schema, salt=salt, key=key)

    def close(self) -> None:
        if self._writer is not None:
            self.entries.append(self._writer.finish(durable=self._durable))
            self._writer = None

    def finish(self) -> list[ChunkEntry]:
        self.close()
        return self.entries

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
        for entry in self.entries:
            (self._folder / entry.name).unlink(missing_ok=True)
        self.entries = []


def _num_tokens(sample: Any) -> int:
    if getattr(sample, "ndim", None) == 1:
        return int(sample.shape[0])
    return len(sample) if type(sample) is list else 0  # what else it may be is refused when it is stored


def _tokens_of(column: Column) -> int:
    return int(column.values.size) if column.kind == LIST else 0
