"""Where the files of `map` go: a folder, into which they are renamed, or an object store, where they are copied on the spot."""

import contextlib
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

from leyden.core.errors import ConflictError, NotFoundError
from leyden.core.failpoints import failpoint
from leyden.core.storage import Storage, local_path, open_storage
from leyden.data.errors import IncompleteJobError

TEMPORARY = "_leyden/tmp"


class UnitFolder(ABC):
    """What a unit writes into.

    Args:
        path: The folder.
        key: Its name below the output, once it is published.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    @abstractmethod
    def publish(self, names: Sequence[str]) -> None:
        """See to it that files are below the output."""


class FilesPlace(ABC):
    """Where files belong."""

    @abstractmethod
    def unit_folder(self, job: str, unit: int) -> contextlib.AbstractContextManager[UnitFolder]:
        """Give a unit a private folder; it goes if the unit fails."""

    @abstractmethod
    def move_all(self, moves: Sequence[tuple[str, str]]) -> None:
        """Move files from private folders to their places; those that have moved stay.

        Raises:
            IncompleteJobError: A file is neither here nor there.
        """

    @abstractmethod
    def remove_temporary(self, job: str) -> None:
        """Remove what is left of a job's private folders."""

    @abstractmethod
    def holds_files(self) -> bool:
        """Return whether anything is there, journals left out."""


def files_place(output: str, options: Mapping[str, Any], transfers: int) -> FilesPlace:
    """Return where files go.

    Args:
        output: A path or URL.
        options: Of the storage.
        transfers: How many are in flight.
    """
    local = local_path(output)
    return StoredFiles(open_storage(output, options), transfers) if local is None else LocalFiles(Path(local))


@final
class _LocalFolder(UnitFolder):
    def publish(self, names: Sequence[str]) -> None:
        pass  # it is below the output


@final
class LocalFiles(FilesPlace):
    """A folder.

    Args:
        output: The folder.
    """

    def __init__(self, output: Path) -> None:
        self._output = output

    @contextlib.contextmanager
    def unit_folder(self, job: str, unit: int) -> Generator[UnitFolder, None, None]:
        key = _key_of(job, unit)
        path = self._output / key
        try:
            yield _LocalFolder(path, key)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def move_all(self, moves: Sequence[tuple[str, str]]) -> None:
        for source, target in moves:
            failpoint("data.map.move")
            self._move(self._output / source, self._output / target)

    def _move(self, source: Path, target: Path) -> None:
        if source.exists():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another driver moves too
                    source.replace(target)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise ConflictError(
                    f"{target} cannot be written: what lies there already is a folder, or a file in place of one. Move it away and run the "
                    "same call again: nothing is lost."
                ) from error
        if not target.exists():
            raise _gone(str(target))

    def remove_temporary(self, job: str) -> None:
        shutil.rmtree(self._output / TEMPORARY / job, ignore_errors=True)

    def holds_files(self) -> bool:
        return self._output.is_dir() and any(path.name != "_leyden" for path in self._output.iterdir())


@final
class _StoredFolder(UnitFolder):
    def __init__(self, path: Path, key: str, place: "StoredFiles") -> None:
        super().__init__(path, key)
        self._place = place

    def publish(self, names: Sequence[str]) -> None:
        self._place.upload(self.path, self.key, names)


@final
class StoredFiles(FilesPlace):
    """An object store.

    Args:
        storage: The output.
        transfers: How many are in flight.
    """

    def __init__(self, storage: Storage, transfers: int) -> None:
        self._storage, self._transfers = storage, transfers

    @contextlib.contextmanager
    def unit_folder(self, job: str, unit: int) -> Generator[UnitFolder, None, None]:
        with tempfile.TemporaryDirectory(prefix="leyden-map-") as folder:
            yield _StoredFolder(Path(folder), _key_of(job, unit), self)

    def upload(self, folder: Path, key: str, names: Sequence[str]) -> None:
        """Copy the files of a unit to the store."""
        with ThreadPoolExecutor(self._transfers, "leyden-upload") as threads:
            for sent in [threads.submit(self._storage.upload_file, folder / name, f"{key}/{name}") for name in names]:
                sent.result()

    def move_all(self, moves: Sequence[tuple[str, str]]) -> None:
        with ThreadPoolExecutor(self._transfers, "leyden-move") as threads:
            for moved in [threads.submit(self._copy, source, target) for source, target in moves]:
                moved.result()

    def _copy(self, source: str, target: str) -> None:
        failpoint("data.map.move")
        try:
            self._storage.copy(source, target)  # the source stays until all are there
        except NotFoundError:
            if not self._storage.exists(target):
                raise _gone(target) from None

    def remove_temporary(self, job: str) -> None:
        for entry in list(self._storage.list(f"{TEMPORARY}/{job}")):
            self._storage.delete(entry.key)

    def holds_files(self) -> bool:
        return any(not entry.key.startswith("_leyden/") for entry in self._storage.list())


def _key_of(job: str, unit: int) -> str:
    return f"{TEMPORARY}/{job}/{unit}-{time.time_ns()}"


def _gone(path: str) -> IncompleteJobError:
    return IncompleteJobError(f"{path} was written by the job, and is gone. Run the call with resume=False.")
