"""`LocalStorage`: a directory with the calls of an object store."""

import contextlib
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import final

from leyden.core.errors import ConflictError, NotFoundError, StorageError
from leyden.core.files import atomic_file, is_leftover, storage_error, sync_directory, temporary_beside, write_atomic
from leyden.core.storage.storage import Entry, Storage, checked_key, checked_range, whole

_COPY_BYTES = 8 * 2**20


@final
class LocalStorage(Storage):
    """A directory. What unfinished writes leave (`*.tmp-<id>`) is not listed."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root).expanduser().absolute()
        self.url = self._root.as_uri()

    def read(self, key: str) -> bytes:
        """Return the whole object."""
        with self._translated("read", key) as path:
            return path.read_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`."""
        checked_range(start, length)
        with self._translated("read", key) as path, path.open("rb") as file:
            file.seek(start)
            return whole(file.read(length), length, f"{self.url}/{key}", start)

    def write(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Put an object there, replacing what is there."""
        with self._translated("write", key) as path:
            write_atomic(path, bytes(data))

    def create(self, key: str, data: bytes | bytearray | memoryview, *, durable: bool = True) -> None:
        """Put an object where none is."""
        with self._translated("write", key) as path:
            finished = temporary_beside(path)
            try:
                _write_new(finished, data, durable=durable)
                path.hardlink_to(finished)  # unlike a rename, this fails if the name is taken
            except FileExistsError as error:
                raise ConflictError(f"{self.url}/{key} exists already. Use write() to replace it.") from error
            finally:
                finished.unlink(missing_ok=True)
            if durable:
                sync_directory(path.parent)

    def list(self, folder: str = "") -> Iterator[Entry]:
        """Yield every object below a folder."""
        root = os.fspath(self._root)  # text: with paths it takes five times as long, and journals list thousands of names
        for directory, _, names in os.walk(self._root / checked_key(folder) if folder else self._root):
            parents = directory[len(root) :].strip(os.sep).replace(os.sep, "/")
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    if not is_leftover(name):
                        status = os.stat(f"{directory}{os.sep}{name}")  # noqa: PTH116 - as above
                        yield Entry(f"{parents}/{name}" if parents else name, status.st_size, status.st_mtime)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        with contextlib.suppress(NotFoundError), self._translated("delete", key) as path:
            path.unlink(missing_ok=True)

    def size(self, key: str) -> int:
        """Return the object's length in bytes."""
        with self._translated("read", key) as path:
            if path.is_dir():
                raise IsADirectoryError
            return path.stat().st_size

    def upload_file(self, path: str | os.PathLike[str], key: str) -> None:
        """Copy a local file there."""
        source = existing_file(path)
        with self._translated("write", key) as target:
            _copy(source, target)

    def download_file(self, key: str, path: str | os.PathLike[str]) -> None:
        """Copy an object to a local file."""
        with self._translated("read", key) as source:
            _copy(source, Path(path))

    @contextlib.contextmanager
    def _translated(self, action: str, key: str) -> Generator[Path, None, None]:
        path = self._root / checked_key(key)
        try:
            yield path
        except StorageError:
            raise
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFoundError(f"there is no object {key!r} in {self.url}.") from error
        except OSError as error:
            raise storage_error(error, path, action=action) from error


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a local file, or raise `NotFoundError`."""
    file = Path(path)
    if not file.is_file():
        raise NotFoundError(f"there is no file {os.fspath(path)!r} to upload.")
    return file


def _write_new(path: Path, data: bytes | bytearray | memoryview, *, durable: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(error, path, len(data)) from error


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, atomic_file(target, needed_bytes=source.stat().st_size) as writer:
        shutil.copyfileobj(reader, writer, _COPY_BYTES)
