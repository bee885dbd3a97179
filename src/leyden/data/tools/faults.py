"""`Fault`, and the faults of a version's files: those that are missing, cut, changed, or hold other keys and deletions."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from leyden.core.errors import LeydenError
from leyden.core.storage import Storage
from leyden.data.format import deletes, keys
from leyden.data.format.hashing import digest128
from leyden.data.format.manifest import Chunk, ColumnFile, Manifest


class Fault(NamedTuple):
    """Something that is wrong.

    Args:
        chunk: The file.
        block: The block's number in the dataset, or `None` if it is the file itself.
        column: The leaf's name, or `None` if it is all of them.
        message: What is wrong.
    """

    chunk: str
    block: int | None
    column: str | None
    message: str

    def __str__(self) -> str:
        place = self.chunk if self.block is None else f"{self.chunk}, block {self.block}"
        return f"{place}: {self.message}" if self.column is None else f"{place}, column {self.column!r}: {self.message}"


def file_faults(manifest: Manifest, storage: Storage, *, fast: bool) -> Iterator[Fault]:
    """Yield what is wrong with the files that a manifest names.

    Args:
        manifest: The version.
        storage: Where it lies.
        fast: Compare sizes only; else digests, which cover every byte.
    """
    for chunk in manifest.chunks:
        for file in (chunk, *chunk.files):
            message = _file_fault(file, storage, fast=fast)
            if message is not None:
                yield Fault(file.name, None, None, message)
        if chunk.deleted is not None and not fast:
            yield from _fault_in(chunk.deleted.name, partial(_wrong_deletes, chunk, storage))
    if manifest.keys is not None and not fast:
        yield from _fault_in(str(manifest.keys["name"]), partial(_wrong_keys, manifest, storage))


def _file_fault(file: Chunk | ColumnFile, storage: Storage, *, fast: bool) -> str | None:
    try:
        size = storage.size(file.name)
        if size != file.bytes:
            return f"has {size:,} bytes where the manifest says {file.bytes:,}"
        digest = file.digest if fast else digest128(storage.read(file.name))
    except LeydenError as error:
        return str(error)
    return None if digest == file.digest else f"has the digest {digest} where the manifest says {file.digest}"


def _fault_in(name: str, look: Callable[[str], str | None]) -> Iterator[Fault]:
    try:
        message = look(name)
    except LeydenError as error:
        message = str(error)
    if message is not None:
        yield Fault(name, None, None, message)


def _wrong_deletes(chunk: Chunk, storage: Storage, name: str) -> str | None:
    rows = deletes.from_bytes(storage.read(name), name)
    said = chunk.deleted.rows if chunk.deleted else 0
    if len(rows) != said:
        return f"lists {len(rows):,} deleted rows where the manifest says {said:,}"
    return f"lists row {rows[-1]:,} of {chunk.name}, which has {chunk.rows:,}" if len(rows) and rows[-1] >= chunk.rows else None


def _wrong_keys(manifest: Manifest, storage: Storage, name: str) -> str | None:
    rows = [row for _, row in keys.KeyIndex(storage.read(name), name).items()]
    said = manifest.keys["rows"] if manifest.keys else 0
    if len(rows) != said:
        return f"holds {len(rows):,} keys where the manifest says {said:,}"
    last = max(rows, default=-1)
    return f"has a key of row {last:,}, and there are {manifest.num_stored_rows:,}" if last >= manifest.num_stored_rows else None
