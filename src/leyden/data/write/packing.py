"""The second phase of a job: many small chunks become few of the size that was asked for.

Units are cut by the number of inputs, so that any number of workers can share them; their chunks may be small, and end
anywhere. A pack is a range of rows over the chunks of neighbouring units, and refills blocks and chunks by the rules of
`leyden.data.format.filling`, column by column. What the packs are follows from the records of the first phase alone, so
bytes are the same whoever packs. The small chunks go once the version that no longer names them is committed.
"""

import mmap
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.failpoints import failpoint
from leyden.core.storage import local_path, open_storage
from leyden.data.format.block import BlockView
from leyden.data.format.chunk import HEADER, ChunkEntry, read_header
from leyden.data.format.cipher import DatasetCiphers
from leyden.data.format.column import Column
from leyden.data.format.filling import ChunkFiller, FillSettings
from leyden.data.format.joining import costs_of, cut, joined
from leyden.data.format.schema import Schema, unify_all
from leyden.data.write.unit import OutputFolder, Task

_PER_PACK = 4  # chunks of the size asked for
_SMALL = 0.25  # of that size, below which chunks are packed on average


class Piece(NamedTuple):
    """Some rows of one chunk.

    Args:
        chunk: The chunk.
        first: The first row.
        rows: How many.
    """

    chunk: ChunkEntry
    first: int
    rows: int


class Pack(NamedTuple):
    """What one unit of the second phase packs.

    Args:
        pieces: In the order of rows.
        schema: Of all rows of the job.
        head: The first rows of the job.
        first_rank: The first of the ranks that files of LitData's layout are named with.
    """

    pieces: Sequence[Piece]
    schema: Mapping[str, Any]
    head: Piece
    first_rank: int = 0


def packs_of(records: Sequence[Mapping[str, Any]], settings: FillSettings, *, must_pack: bool = False) -> list[Pack]:
    """Return the packs of a job; none if its chunks are of the size asked for.

    Args:
        records: Of all units, in order.
        settings: How large blocks and chunks become.
        must_pack: Whether chunks are packed whatever their size, because they become files of another layout.
    """
    chunks = [ChunkEntry(**entry) for record in records for entry in record["chunks"]]
    if not chunks or not (must_pack or _are_small(chunks, settings)):
        return []
    schema = unify_all([Schema.from_json(record["schema"]) for record in records if record["schema"] is not None]).to_json()
    if settings.chunk_size is not None and settings.token_dtype is None:
        found = _by_rows(chunks, _PER_PACK * settings.chunk_size)
    else:
        found = _by_size(chunks, settings)
    return [Pack(pieces, schema, Piece(chunks[0], 0, chunks[0].blocks[0][0])) for pieces in found]


def _are_small(chunks: Sequence[ChunkEntry], settings: FillSettings) -> bool:
    size = settings.chunk_size
    if len(chunks) < 2:
        return False
    if size is not None and settings.token_dtype is None:
        return any(chunk.rows != size for chunk in chunks[:-1]) and _may_grow(chunks, settings)
    return _may_grow(chunks, settings)


def _may_grow(chunks: Sequence[ChunkEntry], settings: FillSettings) -> bool:
    """Return whether chunks are small by every measure that limits them."""
    size, limit = settings.chunk_size, settings.chunk_bytes
    if size is not None and settings.token_dtype is None:
        return limit is None or sum(chunk.bytes for chunk in chunks) / len(chunks) < limit
    if size is not None and sum(map(_tokens, chunks)) / len(chunks) >= _SMALL * size:
        return False
    return limit is None or sum(chunk.bytes for chunk in chunks) / len(chunks) < _SMALL * limit


def _tokens(chunk: ChunkEntry) -> int:
    return sum(chunk.tokens or ())


def _by_rows(chunks: Sequence[ChunkEntry], rows: int) -> Iterator[list[Piece]]:
    pieces, room = list[Piece](), rows
    for chunk in chunks:
        first = 0
        while first < chunk.rows:
            taken = min(room, chunk.rows - first)
            pieces.append(Piece(chunk, first, taken))
            first, room = first + taken, room - taken
            if not room:
                yield pieces
                pieces, room = list[Piece](), rows
    if pieces:
        yield pieces


def _by_size(chunks: Sequence[ChunkEntry], settings: FillSettings) -> Iterator[list[Piece]]:
    pieces, size, tokens = list[Piece](), 0, 0
    for chunk in chunks:
        pieces.append(Piece(chunk, 0, chunk.rows))
        size, tokens = size + chunk.bytes, tokens + _tokens(chunk)
        is_full = settings.chunk_bytes is not None and size >= _PER_PACK * settings.chunk_bytes
        if is_full or (settings.chunk_size is not None and tokens >= _PER_PACK * settings.chunk_size):
            yield pieces
            pieces, size, tokens = list[Piece](), 0, 0
    if pieces:
        yield pieces


def run_pack(task: Task, unit: int, pack: Pack) -> dict[str, Any]:
    """Pack, and return the record; the chunks are in the output.

    Args:
        task: The job's.
        unit: The pack's number.
        pack: What it packs.

    Raises:
        StorageError: The output refuses, or a chunk is damaged or gone.
    """
    start, ciphers = time.monotonic(), ciphers_of(task)
    with OutputFolder(task.output, task.options) as folder:
        filler = ColumnFiller(
            ChunkFiller(folder.path, task.job, f"p{unit}", task.settings, ciphers, durable=task.durable),
            Schema.from_json(pack.schema),
            task.settings,
        )
        try:
            for piece in pack.pieces:
                for columns in columns_of(task, piece, ciphers):
                    filler.add(columns)
            failpoint("data.pack.written")
            chunks = filler.finish()
        except BaseException:
            filler.discard()
            raise
        folder.publish([chunk.name for chunk in chunks], durable=task.durable)
    return {
        "unit": unit,
        "inputs": 1,
        "rows": filler.rows,
        "bytes": sum(chunk.bytes for chunk in chunks),
        "failures": [],
        "chunks": [chunk._asdict() for chunk in chunks],
        "schema": None,
        "seconds": round(time.monotonic() - start, 3),
    }


def columns_of(task: Task, piece: Piece, ciphers: DatasetCiphers | None) -> Iterator[list[Column]]:
    """Yield the columns of each block of a piece, without the rows that are not meant."""
    chunk, stop = piece.chunk, piece.first + piece.rows
    with _Chunk(task, chunk.name) as data:
        header = read_header(data[: HEADER.size], chunk.name)
        cipher = None if ciphers is None else ciphers.of_chunk(header.chunk_id, header.salt, chunk.key)
        offset, first = HEADER.size, 0
        for rows, stored in chunk.blocks:
            low, high = max(piece.first - first, 0), min(stop - first, rows)
            if low < high:
                block = BlockView(data[offset : offset + stored], chunk.name, cipher=cipher)
                yield [cut(block.column(index), low, high) for index in range(block.num_columns)]
            offset, first = offset + stored, first + rows


def ciphers_of(task: Task) -> DatasetCiphers | None:
    """Return what encrypts a job's chunks; `None` if nothing does."""
    return None if task.encryption is None else DatasetCiphers(task.encryption, task.cipher)


@final
class _Chunk:
    """A chunk's bytes, from a map of the file, or of a copy of what lies elsewhere."""

    def __init__(self, task: Task, name: str) -> None:
        self._task, self._name = task, name

    def __enter__(self) -> memoryview:
        output = self._task.output
        local = local_path(output)
        self._copy = tempfile.TemporaryDirectory(prefix="leyden-pack-") if local is None else None
        path = Path(local or "" if self._copy is None else self._copy.name) / self._name
        if self._copy is not None:
            open_storage(output, self._task.options).download_file(self._name, path)
        elif not path.exists():
            open_storage(output).size(self._name)  # says that it is not there, and where it was looked for
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # columns are views: it closes with the last one

    def __exit__(self, *_: object) -> None:
        if self._copy is not None:
            self._copy.cleanup()


class TakesBlocks(Protocol):
    """Where a filler's blocks go."""

    def add(self, columns: list[Column], schema: Schema, *, is_tokens: bool) -> bool:
        """Add a block; return whether it opened a new chunk after another one, because the old one was full."""
        ...

    def close(self) -> None:
        """End the chunk."""
        ...

    def finish(self) -> list[ChunkEntry]:
        """End, and return all chunks in order."""
        ...

    def discard(self) -> None:
        """Remove everything that was written."""
        ...


@final
class ColumnFiller:
    """Rows as columns become blocks and chunks, where `Filler` would put them.

    Args:
        chunks: Takes blocks.
        schema: Of all rows.
        settings: How large blocks and chunks become.
    """

    def __init__(self, chunks: TakesBlocks, schema: Schema, settings: FillSettings) -> None:
        self._chunks, self._schema, self._settings = chunks, schema, settings
        self._parts: list[list[Column]] = []  # of the block
        self._in_block = self._cost = self._sizes_in_block = self._in_chunk = 0
        self.rows = 0

    def add(self, columns: Sequence[Column]) -> None:
        """Add rows: one column per leaf of the schema."""
        costs = np.sum([costs_of(column, leaf) for column, leaf in zip(columns, self._schema.leaves, strict=True)], axis=0)
        sizes = np.ones(columns[0].rows, np.int64) if self._settings.token_dtype is None else _lengths_of(columns[0])
        cost_ends, size_ends = np.cumsum(costs), np.cumsum(sizes)
        start = 0
        while start < len(costs):
            before = (int(cost_ends[start - 1]), int(size_ends[start - 1])) if start else (0, 0)
            stop = self._fitting(start, cost_ends - before[0], size_ends - before[1])
            if stop == start:
                self._make_room(int(sizes[start]))
                continue
            self._parts.append([cut(column, start, stop) for column in columns])
            self._in_block += stop - start
            self._cost += int(cost_ends[stop - 1]) - before[0]
            self._sizes_in_block += int(size_ends[stop - 1]) - before[1]
            self._in_chunk += int(size_ends[stop - 1]) - before[1]
            start = stop
        self.rows += len(costs)

    def _fitting(self, start: int, cost_ends: NDArray[np.int64], size_ends: NDArray[np.int64]) -> int:
        """Return the row up to which rows from `start` on go into the block as it is; the first one of an empty one always does."""
        settings = self._settings
        by_cost = int(np.searchsorted(cost_ends, settings.block_bytes - self._cost, side="right"))
        stop = min(by_cost if self._in_block else max(by_cost, start + 1), start + settings.block_rows - self._in_block)
        if settings.chunk_size is not None:
            by_size = int(np.searchsorted(size_ends, settings.chunk_size - self._in_chunk, side="right"))
            stop = min(stop, by_size if self._in_chunk else max(by_size, start + 1))
        return max(start, stop)

    def _make_room(self, size: int) -> None:
        limit = self._settings.chunk_size
        if limit is not None and self._in_chunk and self._in_chunk + size > limit:
            self._close_block()
            self._chunks.close()
            self._in_chunk = 0
        else:
            self._close_block()

    def _close_block(self) -> None:
        if not self._parts:
            return
        token_dtype = self._settings.token_dtype
        by_leaf = zip(zip(*self._parts, strict=True), self._schema.leaves, strict=True)
        columns = [joined(parts, leaf, token_dtype) for parts, leaf in by_leaf]
        if self._chunks.add(columns, self._schema, is_tokens=token_dtype is not None):
            self._in_chunk = self._sizes_in_block
        self._parts = list[list[Column]]()
        self._in_block = self._cost = self._sizes_in_block = 0

    def finish(self) -> list[ChunkEntry]:
        """Close the last block and chunk, and return all chunks in order."""
        self._close_block()
        return self._chunks.finish()

    def discard(self) -> None:
        """Remove everything that was written."""
        self._chunks.discard()


def _lengths_of(column: Column) -> NDArray[np.int64]:
    if column.offsets is None:
        raise AssertionError("rows of tokens are lists")
    return np.diff(column.offsets)
