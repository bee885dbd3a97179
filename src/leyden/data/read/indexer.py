"""`FileIndexer`: which files a folder or bucket holds, listed once and remembered.

The index is one JSON file in the cache; beside the data it is written only if that is asked for. Subclass `BaseIndexer`
to find files in another way.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from leyden.core.errors import NotFoundError, StorageError
from leyden.core.files import write_atomic
from leyden.core.storage import open_storage

INDEX_NAME = "_leyden-files.json"
_OF_JOBS = "_leyden/"  # what `map` and `convert` keep beside their files


@final
@dataclass(frozen=True)
class FileMetadata:
    """A file of a raw dataset.

    Args:
        path: Its name below the dataset's root.
        size: Its length in bytes.
    """

    path: str
    size: int


class BaseIndexer(ABC):
    """What finds the files of a raw dataset."""

    @abstractmethod
    def discover_files(self, input_dir: str, storage_options: Mapping[str, Any] | None) -> list[FileMetadata]:
        """Return all files, in the order of the dataset."""

    def build_or_load_index(
        self,
        input_dir: str,
        cache_dir: str | os.PathLike[str],
        storage_options: Mapping[str, Any] | None = None,
        *,
        recompute_index: bool = False,
        share_index: bool = False,
    ) -> list[FileMetadata]:
        """Return the files: from the index in the cache or beside the data, else by looking.

        Args:
            input_dir: The dataset's root.
            cache_dir: Where its index is remembered.
            storage_options: Of the storage.
            recompute_index: Whether to look anew in any case.
            share_index: Whether to write the index beside the data too, for other nodes.

        Raises:
            NotFoundError: There are no files.
        """
        local = Path(cache_dir) / INDEX_NAME
        if not recompute_index:
            found = _read_local(local)
            if found is None:
                found = _read_shared(input_dir, storage_options)
            if found is not None:
                return found
        found = self.discover_files(input_dir, storage_options)
        if not found:
            raise NotFoundError(f"there are no files in {input_dir!r} that {type(self).__name__} takes.")
        data = json.dumps([asdict(file) for file in found]).encode()
        write_atomic(local, data, durable=False)
        if share_index:
            open_storage(input_dir, storage_options).write(INDEX_NAME, data)
        return found


@final
class FileIndexer(BaseIndexer):
    """Lists all files below the root, ordered by name.

    Args:
        max_depth: How many folders deep to look.
        extensions: Which files are taken, such as `[".jpg"]`; all by default.
    """

    def __init__(self, max_depth: int = 5, extensions: Sequence[str] | None = None) -> None:
        self.max_depth = max_depth
        self.extensions = None if extensions is None else tuple(extension.lower() for extension in extensions)

    def discover_files(self, input_dir: str, storage_options: Mapping[str, Any] | None) -> list[FileMetadata]:
        found = [FileMetadata(entry.key, entry.size) for entry in open_storage(input_dir, storage_options).list() if self._takes(entry.key)]
        return sorted(found, key=lambda file: file.path)

    def _takes(self, key: str) -> bool:
        if key == INDEX_NAME or key.startswith(_OF_JOBS) or key.count("/") > self.max_depth:
            return False
        return self.extensions is None or key.lower().endswith(self.extensions)


def _read_local(path: Path) -> list[FileMetadata] | None:
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return None


def _read_shared(input_dir: str, storage_options: Mapping[str, Any] | None) -> list[FileMetadata] | None:
    try:
        return _parsed(open_storage(input_dir, storage_options).read(INDEX_NAME))
    except (NotFoundError, StorageError):
        return None  # whoever may not read this may not read the files either, and is told then


def _parsed(data: bytes) -> list[FileMetadata] | None:
    try:
        return [FileMetadata(**each) for each in json.loads(data)]
    except (ValueError, TypeError):
        return None
