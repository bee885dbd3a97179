"""Appending to a file that must never hold a part of what was appended."""

from pathlib import Path


def append_or_undo(path: Path, data: bytes) -> int:
    """Append `data` to a file, all or nothing, and return the size it had before.

    Raises:
        OSError: It cannot be written; the file is as it was before.
    """
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        except OSError:
            file.truncate(size)
            raise
    return size
