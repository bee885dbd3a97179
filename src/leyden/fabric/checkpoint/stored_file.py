"""`StoredFile`: a file that counts and checksums what is written to it, and is on the disk when it is closed."""

import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from leyden.core.failpoints import failpoint
from leyden.core.files import storage_error
from leyden.fabric.checkpoint.layout import FileRecord

_PIECE_BYTES = 1 << 22  # checksummed and written while still in the cache; 4 MiB measured as good as 64


class StoredFile:
    """A new file, written once from front to back.

    An error of the disk is kept and raised on leaving the block: torch's zip writer, which calls `write` from C++, would
    bury it under an error of its own.

    Args:
        path: The file; it is made.
        needed_bytes: About how long it will be, for the message when the disk is full.

    Raises:
        StorageError: On leaving the block, when the disk refused something.
    """

    def __init__(self, path: Path, needed_bytes: int | None = None) -> None:
        self.path = path
        self.bytes = 0
        self.crc32 = 0
        self._needed_bytes = needed_bytes
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise storage_error(error, self.path, self._needed_bytes) from error
        return self

    def write(self, data: Any) -> int:
        """Write bytes; returns how many."""
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                self._write(view)
            except OSError as error:
                self._error = error
        return len(view)

    def _write(self, view: memoryview) -> None:
        failpoint("checkpoint.in_file")
        for start in range(0, len(view), _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            self.crc32 = zlib.crc32(piece, self.crc32)
            while piece:
                written = self._file.write(piece)
                piece = piece[written:]
        self.bytes += len(view)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    @property
    def record(self) -> FileRecord:
        """Size and checksum of what was written."""
        return FileRecord(bytes=self.bytes, crc32=f"{self.crc32:08x}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._file:
            cause = self._error
            if cause is None and error is None:
                try:
                    failpoint("checkpoint.file_written")
                    os.fsync(self._file.fileno())
                except OSError as failure:
                    cause = failure
        if cause is None and isinstance(error, OSError):
            cause = error
        if cause is not None:
            needed = max(self._needed_bytes or 0, self.bytes) or None
            raise storage_error(cause, self.path, needed) from cause


def crc32_of(path: Path) -> str:
    """Return a file's checksum as records hold it."""
    crc = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            crc = zlib.crc32(piece, crc)
    return f"{crc:08x}"
