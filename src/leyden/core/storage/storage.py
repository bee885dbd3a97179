"""`Storage`: a root and the objects below it, whatever keeps them.

A write is atomic: readers see the old object or the whole new one. `create` fails if the object exists, so one of
several writers wins. Keys are relative, with `/` between parts.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError


class Entry(NamedTuple):
    """One object of a listing.

    Args:
        key: Its key below the storage's root.
        size: Its length in bytes.
        modified: When it was written, in seconds since 1970.
    """

    key: str
    size: int
    modified: float


class Storage(ABC):
    """A root and the objects below it. Get one from `open_storage`.

    Keys with `..`, empty parts or a leading `/` raise `ConfigError`. Every method raises `NotFoundError` for an object
    that is not there, unless it says otherwise, and `StorageError` when disk, network or credentials fail.
    """

    url: str

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Return the whole object."""

    @abstractmethod
    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`.

        Raises:
            CorruptDataError: The object is shorter, or the server did not honour the range.
        """

    def read_ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> "list[bytes]":
        """Return several parts of an object, with requests at once where the service takes them.

        Args:
            key: The object.
            spans: Start and length of each part. What lies between two that are close may be transferred too.

        Raises:
            CorruptDataError: As `read_range`.
        """
        return [self.read_range(key, start, length) for start, length in spans]

    @abstractmethod
    def write(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Put an object there, replacing what is there."""

    @abstractmethod
    def create(self, key: str, data: bytes | bytearray | memoryview, *, durable: bool = True) -> None:
        """Put an object where none is.

        Args:
            key: Its name.
            data: The whole content.
            durable: Whether it must survive a power cut; of local files only, as services keep what they have taken.

        Raises:
            ConflictError: There is one already.
        """

    @abstractmethod
    def list(self, folder: str = "") -> Iterator[Entry]:
        """Yield every object below a folder (`"a"` means `a/…`, not `ab`) at any depth, in any order; none if it is absent."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Return the object's length in bytes."""

    @abstractmethod
    def upload_file(self, path: str | os.PathLike[str], key: str) -> None:
        """Copy a local file there, in parts if it is large."""

    @abstractmethod
    def download_file(self, key: str, path: str | os.PathLike[str]) -> None:
        """Copy an object to a local file, which appears complete or not at all."""

    def copy(self, key: str, to: str) -> None:
        """Put the same object at another key too, replacing what is there; where the service can, nothing is transferred."""
        with tempfile.TemporaryDirectory(prefix="leyden-copy-") as folder:
            local = os.path.join(folder, "object")  # noqa: PTH118 - what both calls take
            self.download_file(key, local)
            self.upload_file(local, to)

    def exists(self, key: str) -> bool:
        """Return whether there is such an object."""
        try:
            self.size(key)
        except NotFoundError:
            return False
        return True


def checked_key(key: str) -> str:
    """Return the key, or raise `ConfigError` if it could lead out of the root or would be spelt differently elsewhere."""
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise ConfigError(f"key={key!r} is not accepted: it takes names with '/' between them, such as 'runs/meta.json'.")
    return key


def checked_range(start: int, length: int) -> None:
    """Raise `ConfigError` if this is no range."""
    if start < 0 or length < 0:
        raise ConfigError(f"start={start}, length={length} is not accepted: both take a number ≥ 0.")


def whole(data: bytes, length: int, where: str, start: int) -> bytes:
    """Return the data, or raise `CorruptDataError` if it is not as long as it was asked to be."""
    if len(data) != length:
        raise CorruptDataError(
            f"{where}: {length:,} bytes from {start:,} were asked for, {len(data):,} came: the object is shorter or damaged."
        )
    return data
