"""Files and directories that appear complete or not at all, whatever is killed in the middle.

The recipe: write beside the target, `fsync`, rename over the target, `fsync` the directory. A reader, and the next
process after `kill -9` or a power cut, finds the old or the new content, never a part. What a killed writer leaves is
a name `<target>.tmp-<id>` or `<target>.old-<id>`; `recover` puts a directory back, `sweep` deletes the rest.

A directory cannot be renamed over another, so `publish` moves the old one aside first. Between its two renames the
target is missing for microseconds; after a kill right there `recover` finishes the job.

Every step has a failpoint (`files.…`, `publish.…`): tests kill a real process at each.
"""

import contextlib
import errno
import os
import shutil
import time
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any, Literal

from leyden.core.errors import StorageError
from leyden.core.failpoints import failpoint
from leyden.core.ids import new_id

LEFTOVER_SECONDS = 3600.0
_ATTEMPTS = 5  # at a rename that other processes undo
_NAME_BYTES = 200  # of 255: room for the suffix of the temporary name
_DISK_ERRORS = {errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_atomic(path: str | os.PathLike[str], data: bytes | str, *, permissions: int | None = None, durable: bool = True) -> None:
    """Put `data` at `path`, replacing what is there; text is written as UTF-8, line ends as they are.

    Args:
        path: The file. Missing parent directories are made. A symlink is replaced, not followed.
        data: The whole content.
        permissions: Mode bits, such as 0o600; by default those of the file being replaced, else the process's usual ones.
        durable: Whether it must survive a power cut. False spares the `fsync`s; a killed process still loses nothing.

    Raises:
        StorageError: The disk is full, or the place cannot be written; the message holds bytes needed and free.
    """
    content = data.encode() if isinstance(data, str) else data
    with atomic_file(path, permissions=permissions, durable=durable, needed_bytes=len(content)) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_file(
    path: str | os.PathLike[str],
    mode: Literal["wb", "w"] = "wb",
    *,
    permissions: int | None = None,
    durable: bool = True,
    needed_bytes: int | None = None,
) -> Generator[IO[Any], None, None]:
    """Yield an open file that takes the place of `path` when the block ends well, and vanishes when it raises.

    Args:
        path: As for `write_atomic`.
        mode: `"wb"`, or `"w"` for UTF-8 text whose line ends are kept as written.
        permissions: As for `write_atomic`.
        durable: As for `write_atomic`.
        needed_bytes: The final size if known, for the message when the disk is full.

    Raises:
        StorageError: As for `write_atomic`. An `OSError` of the block that is about something else passes unchanged.

    Example:
        >>> import json, tempfile
        >>> target = Path(tempfile.mkdtemp()) / "state.json"
        >>> with atomic_file(target, "w") as file:
        ...     json.dump({"step": 3}, file)
        >>> target.read_text()
        '{"step": 3}'
    """
    target = Path(path)
    temporary = temporary_beside(target)
    size = 0
    try:
        make_directory(target.parent, durable=durable)
        failpoint("files.before_write")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        encoding, newline = (None, None) if mode == "wb" else ("utf-8", "")
        with open(descriptor, mode, encoding=encoding, newline=newline) as file:  # noqa: PTH123 - a descriptor
            _set_permissions(file.fileno(), target, permissions)
            yield file
            file.flush()
            size = os.fstat(file.fileno()).st_size
            failpoint("files.after_write")
            if durable:
                os.fsync(file.fileno())
            failpoint("files.after_sync")
        os.replace(temporary, target)  # noqa: PTH105 - the operation that is meant, by its name
        failpoint("files.after_rename")
        if durable:
            sync_directory(target.parent)
        failpoint("files.after_directory_sync")
    except BaseException as error:
        size = max(size, _size_of(temporary))
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _concerns(error, target, temporary):
            raise storage_error(error, target, needed_bytes or size) from error
        raise


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str], *, durable: bool = True) -> Generator[Path, None, None]:
    """Yield an empty directory that takes the place of `path` when the block ends well, and vanishes when it raises.

    Args:
        path: The directory; what is there is replaced. After a kill, `recover` it before reading.
        durable: As for `write_atomic`; every file below is synced.

    Raises:
        StorageError: As for `write_atomic`.
    """
    target = Path(path)
    temporary = temporary_beside(target)
    try:
        make_directory(temporary, durable=durable)
        yield temporary
        publish(temporary, target, durable=durable)
    except BaseException as error:
        size = _size_of(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and _concerns(error, target, temporary):
            raise storage_error(error, target, size) from error
        raise


def publish(temporary: Path, target: Path, *, durable: bool = True, is_synced: bool = False) -> None:
    """Put a finished file or directory in the place of `target`, whatever is there; both must lie in the same parent.

    Other processes may `recover` the target between the two renames of a directory: the old content that they put back
    is moved aside again, the new content that they publish counts as published.

    Args:
        temporary: What is finished, best named by `temporary_beside(target)` so that `recover` finds it.
        target: Where it goes. If a rename fails, the old content is moved back.
        durable: Whether to sync every file below and the directories, so that it survives a power cut.
        is_synced: Whether what is finished has been synced, so that only the new name is left to do.

    Raises:
        OSError: A rename or sync failed; `storage_error` makes a message of it.
    """
    if durable and not is_synced:
        sync_tree(temporary)
    failpoint("publish.written")
    aside = _replace(temporary, target)
    failpoint("publish.renamed")
    if durable:
        sync_directory(target.parent)
    failpoint("publish.synced")
    if aside is not None:
        discard(aside)


def recover(
    path: str | os.PathLike[str],
    is_complete: Callable[[Path], bool],
    *,
    leftover_seconds: float = LEFTOVER_SECONDS,
    now: Callable[[], float] = time.time,
) -> bool:
    """Mend what a killed `publish` or `atomic_directory` left at `path`; call it before reading. Several processes may.

    If the target is missing, the newest complete leftover (a finished new one before the old one) is renamed to it.
    Then leftovers are swept.

    Args:
        path: The file or directory that was being replaced.
        is_complete: Whether a leftover directory holds everything, such as a marker file that is written last. A file
            is only complete once it has been at `path`.
        leftover_seconds: As for `sweep`.
        now: As for `sweep`.

    Returns:
        Whether something was renamed to `path`.
    """
    target = Path(path)
    restored = False
    if not target.exists():
        finished = [leftover for leftover in _leftovers(target, "tmp") if is_complete(leftover)]
        published = [leftover for leftover in _leftovers(target, "old") if leftover.is_file() or is_complete(leftover)]
        for leftover in [*finished, *published][:1]:
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                leftover.rename(target)
                sync_directory(target.parent)
                restored = True
    sweep(target, leftover_seconds=leftover_seconds, now=now)
    return restored


def sweep(path: str | os.PathLike[str], *, leftover_seconds: float = LEFTOVER_SECONDS, now: Callable[[], float] = time.time) -> None:
    """Delete what killed writers of this file or directory left, once nobody has written to it for `leftover_seconds`.

    Args:
        path: The target of those writers.
        leftover_seconds: The age; a younger leftover may belong to a writer at work.
        now: Returns seconds since 1970.
    """
    target = Path(path)
    for leftover in (*_leftovers(target, "tmp"), *_leftovers(target, "old")):
        with contextlib.suppress(OSError):
            if now() - max(each.lstat().st_mtime for each in (leftover, *leftover.rglob("*"))) > leftover_seconds:
                discard(leftover)


def temporary_beside(target: Path) -> Path:
    """Return a new name `<target>.tmp-<id>` for what will take the place of `target`; nothing is created."""
    return _beside(target, "tmp")


def is_leftover(name: str) -> bool:
    """Return whether a file name is one that an unfinished write leaves.

    Example:
        >>> is_leftover(temporary_beside(Path("a.txt")).name), is_leftover("a.txt")
        (True, False)
    """
    _, dot, suffix = name.rpartition(".")
    kind, _, digits = suffix.partition("-")
    return bool(dot) and kind in {"tmp", "old"} and len(digits) == len(new_id("x")) - 2 and digits.isalnum()


def discard(path: Path) -> None:
    """Delete a file or directory, as far as that is possible; nothing is raised."""
    if _is_directory(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def make_directory(path: str | os.PathLike[str], *, durable: bool = True) -> None:
    """Make a directory and its missing parents, so that they survive a power cut."""
    directory = Path(path)
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    if durable:
        for each in missing:
            sync_directory(each.parent)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory survive a power cut. Where directories cannot be opened (Windows), nothing happens."""
    if os.name != "nt":
        _sync(path)


def sync_tree(path: str | os.PathLike[str]) -> None:
    """Make a file, or every file and directory below `path` and `path` itself, survive a power cut."""
    root = Path(path)
    if root.is_file() and not root.is_symlink():
        _sync(root)
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            if not Path(directory, name).is_symlink():
                _sync(Path(directory, name))
        sync_directory(directory)


def storage_error(cause: OSError, path: str | os.PathLike[str], needed_bytes: int | None = None, *, action: str = "write") -> StorageError:
    """Return a `StorageError` that says what `cause` hid: the path, the bytes needed and free, and the way out."""
    message = f"cannot {action} {os.fspath(path)!r}: {cause.strerror or cause}."
    if action == "write":
        needed = "unknown" if needed_bytes is None else f"{needed_bytes:,}"
        message += f" Bytes needed: {needed}, free: {_free_bytes(Path(path))}."
        message += " Free space, or choose a directory that this user may write to."
    error = StorageError(message)
    error.errno, error.filename = cause.errno, os.fspath(path)
    return error


def _sync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f"{_stem(target)}.{new_id(kind)}")


def _stem(target: Path) -> str:
    name = os.fsencode(target.name)
    return target.name if len(name) <= _NAME_BYTES else f"{zlib.crc32(name):08x}"  # a name may have 255 bytes


def _leftovers(target: Path, kind: str) -> list[Path]:
    start = f"{_stem(target)}.{kind}-"
    try:
        names = [name for name in os.listdir(target.parent) if name.startswith(start) and is_leftover(name)]  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return []
    return [target.with_name(name) for name in sorted(names, reverse=True)]  # ids sort by time: the newest first


def _replace(temporary: Path, target: Path) -> Path | None:
    """Rename `temporary` to `target` and return where the old one went; files are replaced in one step."""
    if not _is_directory(temporary) and not _is_directory(target):
        os.replace(temporary, target)  # noqa: PTH105 - the operation that is meant, by its name
        return None
    ours = temporary.lstat()
    for _ in range(_ATTEMPTS):
        aside = _move_aside(target)
        failpoint("publish.aside")
        try:
            temporary.rename(target)
        except FileNotFoundError:
            if target.exists() and os.path.samestat(target.lstat(), ours):
                return aside  # another process's `recover` published it for us
            _move_back(aside, target)
            raise
        except OSError:
            if target.exists():
                continue  # another process's `recover` put the old one back
            _move_back(aside, target)
            raise
        return aside
    raise StorageError(f"{target} was put back {_ATTEMPTS} times by other processes while it was being replaced; write to another path.")


def _move_aside(target: Path) -> Path | None:
    if not target.exists() and not target.is_symlink():
        return None
    aside = _beside(target, "old")
    with contextlib.suppress(FileNotFoundError):
        target.rename(aside)
        return aside
    return None


def _move_back(aside: Path | None, target: Path) -> None:
    if aside is not None:
        with contextlib.suppress(OSError):
            aside.rename(target)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _concerns(error: OSError, target: Path, temporary: Path) -> bool:
    """Return whether an error is about our file and not about something that the caller's block did."""
    if isinstance(error, StorageError):
        return False
    if error.filename is None:
        return error.errno in _DISK_ERRORS  # from write, flush or fsync
    paths = {os.fspath(path) for path in (target, temporary, *target.parents)}
    return error.filename in paths or str(error.filename).startswith(os.fspath(temporary) + os.sep)


def _set_permissions(descriptor: int, target: Path, permissions: int | None) -> None:
    if permissions is None:
        try:
            permissions = target.stat().st_mode & 0o7777
        except OSError:
            return
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, permissions)


def _size_of(path: Path) -> int:
    files = [Path(directory, name) for directory, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


def _free_bytes(path: Path) -> str:
    try:
        existing = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
        return f"{shutil.disk_usage(existing).free:,}"
    except OSError:
        return "unknown"
