"""`commit_replacing`: some chunks of a dataset are replaced, whatever others have committed meanwhile to the rest of it.

Files whose names hold a version are made anew for each attempt and end in a digest of their content: two writers that try for
the same version never write the same file.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConflictError, LeydenError, NotFoundError
from leyden.core.failpoints import failpoint
from leyden.core.storage import Storage
from leyden.data.format import keys as keys_format
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.versions import commit, files_of, list_versions, open_manifest
from leyden.data.write.changes.target import Target


@final
class Files:
    """Files that a change has written; those that no version came to name are removed again.

    Args:
        storage: The dataset's.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._names: list[str] = []

    def write(self, name: str, data: bytes) -> str:
        """Write a small file, and return its name."""
        self.storage.write(name, data)
        self.add(name)
        return name

    def add(self, name: str) -> None:
        """Take note of a file that was written."""
        self._names.append(name)
        failpoint("data.change.file")

    def are_left(self, named: Iterable[str]) -> bool:
        """Return whether there are files that are not named."""
        return bool(set(self._names) - set(named))

    def keep_only(self, kept: Iterable[str]) -> None:
        """Remove those that are not among the kept ones."""
        for name in set(self._names) - set(kept):
            self.storage.delete(name)
        self._names = []


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Replacing:
    """What takes the place of some chunks.

    Args:
        base: The version that it was made for.
        touched: The numbers of the chunks there.
        made_for: Returns what of a chunk must not have changed since.
        replace: Returns the chunks that take the place of one, by its number in the base and as it is in the newest version,
            whose number comes last.
    """

    base: Manifest
    touched: Sequence[int]
    made_for: Callable[[Chunk], Any]
    replace: Callable[[int, Chunk, int], Sequence[Chunk]]

    def apply(self, newest: Manifest, url: str) -> tuple[Chunk, ...]:
        """Return the chunks of the next version.

        Raises:
            ConflictError: A touched chunk was changed meanwhile.
        """
        numbers = {self.base.chunks[number].name: number for number in self.touched}
        there = {chunk.name: chunk for chunk in newest.chunks}
        for name, number in numbers.items():
            if name not in there or self.made_for(there[name]) != self.made_for(self.base.chunks[number]):
                raise ConflictError(
                    f"{url}: version {newest.version} ({newest.operation}) changed rows of {name} while this change, made for version "
                    f"{self.base.version}, was under way. Nothing was committed: look at the newest version and run it again."
                )
        found: list[Chunk] = []
        for chunk in newest.chunks:
            number = numbers.get(chunk.name)
            found += [chunk] if number is None else self.replace(number, chunk, newest.version + 1)
        return tuple(found)


def commit_change(target: Target, files: Files, make: Callable[[Manifest], Manifest]) -> Manifest:
    """Commit a version, and return its manifest; files of failed attempts are removed.

    Args:
        target: What is changed.
        files: Notes what is written.
        make: Called with the newest manifest, again each time another writer was faster.

    Raises:
        NotFoundError: The dataset is gone.
        ConflictError: `make` says so.
    """

    def next_of_newest(newest: Manifest | None) -> Manifest:
        if newest is None:
            raise NotFoundError(f"the dataset at {target.url} is gone.")
        return make(newest)

    try:
        manifest = commit(target.storage, next_of_newest)
    except Exception:
        _remove_unnamed(target, files)
        raise
    if files.are_left(files_of(manifest)):
        _remove_unnamed(target, files)
    return manifest


def _remove_unnamed(target: Target, files: Files) -> None:
    """Remove what no version names: the change may have been committed before what failed, and names of equal content are equal."""
    with contextlib.suppress(LeydenError):  # then nothing is removed here, and `gc` does it
        newer = [found.version for found in list_versions(target.storage) if found.version > target.manifest.version]
        files.keep_only([name for version in newer for name in files_of(open_manifest(target.storage, version))])


def first_rows(chunks: Sequence[Chunk]) -> NDArray[np.int64]:
    """Return int64 (chunks,), the first stored row of each."""
    rows = np.array([chunk.rows for chunk in chunks], np.int64)
    return np.cumsum(rows) - rows


def write_keys(files: Files, version: int, keys: Sequence[str | int], rows: NDArray[np.int64]) -> Mapping[str, Any] | None:
    """Write an index of keys, and return what a manifest says of it; `None` if there are none."""
    if not keys:
        return None
    data = keys_format.to_bytes(keys, rows)
    return {"name": files.write(keys_format.name_of(version, data), data), "rows": len(keys)}


def read_keys(storage: Storage, manifest: Manifest) -> tuple[list[str | int], NDArray[np.int64]]:
    """Return all keys of a version and their stored rows."""
    if manifest.keys is None:
        return [], np.zeros(0, np.int64)
    name = str(manifest.keys["name"])
    items = keys_format.KeyIndex(storage.read(name), name).items()
    return [key for key, _ in items], np.array([row for _, row in items], np.int64)
