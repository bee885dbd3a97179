"""`FileTables`: in which files a block of our format lies, and which of its columns each has."""

import base64
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import CorruptDataError
from leyden.data.format.block import ALIGNMENT
from leyden.data.format.chunk import HEADER
from leyden.data.format.manifest import Chunk, ColumnFile, Manifest


@final
class FileTables:
    """Where the blocks of each file lie, and which columns it has: file 0 is the chunk, file k + 1 its column file k.

    A chunk need not have every file: rows that were appended or rewritten after columns were added hold them in the chunk itself.
    """

    def __init__(self, manifest: Manifest) -> None:
        main = manifest.table
        self._chunks = manifest.chunks
        self._chunk = main.chunk
        most = max((len(chunk.columns) for chunk in manifest.chunks), default=0)
        counts = np.bincount(main.chunk, minlength=len(manifest.chunks)).tolist()
        tables = [_table_of(manifest, file, counts) for file in range(most)]
        self._sizes = [main.stored_bytes, *(sizes for sizes, _ in tables)]
        self._offsets = [main.offset, *(offsets for _, offsets in tables)]
        self.stored_bytes = np.sum(self._sizes, axis=0)
        self._wanted = [0 if leaf.file is None else leaf.file + 1 for leaf in manifest.schema.leaves]
        self._present = [_present_in(chunk) for chunk in manifest.chunks]
        self._places = {present: self._placed(present) for present in set(self._present)}

    def _placed(self, present: tuple[int, ...]) -> list[tuple[int, int]]:
        parts = [present.index(file if file in present else 0) for file in self._wanted]
        return [(part, parts[:index].count(part)) for index, part in enumerate(parts)]

    def place_of(self, block: int, column: int) -> tuple[int, int]:
        """Return which of a block's files holds a column, and its number there."""
        return self._places[self._present[self._chunk[block]]][column]

    def files_of(self, block: int) -> "list[Chunk | ColumnFile]":
        """Return the files that a block lies in."""
        entry = self._chunks[self._chunk[block]]
        return [entry, *entry.files]

    def digest_of(self, chunk: int) -> str:
        """Return what names the content of a chunk and its column files."""
        entry = self._chunks[chunk]
        return "-".join([entry.digest, *(file.digest[:8] for file in entry.files)])

    def spans(self, block: int) -> list[tuple[str, int, int]]:
        """Return name, start and length of a block in each of its files."""
        numbers, files = self._present[self._chunk[block]], self.files_of(block)
        return [
            (file.name, int(self._offsets[number][block]), int(self._sizes[number][block]))
            for number, file in zip(numbers, files, strict=True)
        ]

    def cut(self, block: int, buffer: Any, prefix_bytes: int) -> list[memoryview]:
        """Return the parts of a buffer that holds the blocks of all files one after another, each behind a prefix."""
        numbers = self._present[self._chunk[block]]
        view, ends = memoryview(buffer), np.cumsum([self._sizes[number][block] + prefix_bytes for number in numbers]).tolist()
        return [view[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]


def _present_in(chunk: Chunk) -> tuple[int, ...]:
    return 0, *(number + 1 for number, file in enumerate(chunk.columns) if file is not None)


def _table_of(manifest: Manifest, number: int, counts: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return bytes and start of every block in column files of a number; zeros in chunks that have none."""
    sizes, offsets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for chunk, count in zip(manifest.chunks, counts, strict=True):
        file = chunk.columns[number] if number < len(chunk.columns) else None
        own = np.zeros(count, np.int64) if file is None else _pairs(file)[:, 1] * ALIGNMENT
        if len(own) != count:
            raise CorruptDataError(
                f"the manifest is damaged: {file.name if file else chunk.name} has {len(own)} blocks instead of {count}."
            )
        sizes.append(own)
        offsets.append(HEADER.size + np.cumsum(own) - own)
    return np.concatenate(sizes), np.concatenate(offsets)


def _pairs(file: ColumnFile) -> NDArray[np.int64]:
    return np.frombuffer(base64.b64decode(file.blocks), "<u4").reshape(-1, 2).astype(np.int64)
