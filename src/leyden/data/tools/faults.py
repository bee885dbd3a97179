"""`Fault`, and the faults of a version's files: those that are missing, cut, changed, or hold other keys and deletions."""

from collections.abc import Callable, Iterator
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
            yield from _read_fault(chunk.deleted.name, lambda name: deletes.from_bytes(storage.read(name), name))
    if manifest.keys is not None and not fast:
        yield from _read_fault(manifest.keys["name"], lambda name: keys.KeyIndex(storage.read(name), name))


def _file_fault(file: Chunk | ColumnFile, storage: Storage, *, fast: bool) -> str | None:
    try:
        size = storage.size(file.name)
        if size != file.bytes:
            return f"has {size:,} bytes where the manifest says {file.bytes:,}"
        digest = file.digest if fast else digest128(storage.read(file.name))
    except LeydenError as error:
        return str(error)
    return None if digest == file.digest else f"has the digest {digest} where the manifest says {file.digest}"


def _read_fault(name: str, read: Callable[[str], object]) -> Iterator[Fault]:
    try:
        read(name)
    except LeydenError as error:
        yield Fault(name, None, None, str(error))
