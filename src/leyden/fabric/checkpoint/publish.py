"""How a checkpoint takes the place of the one before it, so that `kill -9` anywhere leaves a complete one.

```
begin     <path>.tmp-<id>          everything is written there and synced, meta.json last
commit    <path> → <path>.old-<id>, <path>.tmp-<id> → <path>, parent synced, old deleted       (files: one rename)
recover   target missing: a complete .tmp-* or .old-* is renamed back; leftovers older than an hour are deleted
```

`recover` runs before each load and save, also in other processes than the writer; a reader that renames the old
checkpoint back just between the writer's two renames is the reason for the loop in `commit`.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

from leyden.core import files
from leyden.core.errors import ConfigError, StorageError
from leyden.core.failpoints import failpoint
from leyden.fabric.checkpoint.layout import META, is_complete

_ATTEMPTS = 5


def recover(path: Path) -> None:
    """Finish what a killed save left at `path`, and sweep what is old. Safe to run in several processes at once."""
    with contextlib.suppress(OSError):  # a place that cannot be written can still be read
        if not path.exists():
            _rename_back(path)
        _sweep(path)


def check_target(path: Path) -> None:
    """Refuse to replace a directory that is no checkpoint: a save deletes what it replaces.

    Raises:
        ConfigError: `path` is a directory with other things in it.
    """
    if path.is_dir() and not is_complete(path) and any(path.iterdir()):
        names = ", ".join(sorted(entry.name for entry in path.iterdir())[:5])
        raise ConfigError(
            f"save({str(path)!r}): this directory exists and is no checkpoint of Leyden (it holds {names}). "
            f"Name a path of its own inside it: {str(path / 'checkpoint')!r}."
        )


def begin(path: Path) -> Path:
    """Return the temporary name for what will be at `path`; its parent is made.

    Raises:
        StorageError: The parent cannot be made.
    """
    try:
        files.make_directory(path.parent)
    except OSError as error:
        raise files.storage_error(error, path.parent) from error
    return files.temporary_beside(path)


def commit(temporary: Path, path: Path) -> None:
    """Put what is complete at `temporary` in the place of `path`.

    Raises:
        StorageError: A rename failed; what was at `path` is still there.
    """
    failpoint("checkpoint.before_rename")
    try:
        aside = _swap(temporary, path)
        failpoint("checkpoint.renamed")
        files.sync_directory(path.parent)
    except OSError as error:
        raise files.storage_error(error, path) from error
    if aside is not None:
        failpoint("checkpoint.before_remove")
        discard(aside)


def is_published(written: bytes, path: Path) -> bool:
    """Return whether the directory whose `meta.json` is `written` is at `path`."""
    return bool(written) and is_complete(path) and (path / META).read_bytes() == written


def discard(path: Path) -> None:
    """Delete a file or directory, if it is there; nothing is raised."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def remove(path: str | os.PathLike[str]) -> None:
    """Delete a checkpoint: of a directory `meta.json` first, so that a killed removal leaves no half checkpoint.

    Raises:
        StorageError: It cannot be deleted.
    """
    target = Path(path)
    try:
        if target.is_symlink() or not target.is_dir():
            target.unlink(missing_ok=True)
            return
        (target / META).unlink(missing_ok=True)
        failpoint("checkpoint.in_remove")
        shutil.rmtree(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise files.storage_error(error, target, action="remove") from error


def link(target: str | os.PathLike[str], name: str | os.PathLike[str]) -> None:
    """Make `name` stand for the checkpoint `target`: a relative symlink, replaced atomically; else a copy.

    Raises:
        StorageError: Neither could be made.
    """
    source, link_path = Path(target), Path(name)
    temporary = begin(link_path)
    try:
        _point(source, temporary)
        if link_path.is_dir() and not link_path.is_symlink():
            commit(temporary, link_path)  # an earlier copy, or a checkpoint that stood there
        else:
            os.replace(temporary, link_path)  # noqa: PTH105 - atomic, by its name
            files.sync_directory(link_path.parent)
    except OSError as error:
        discard(temporary)
        raise error if isinstance(error, StorageError) else files.storage_error(error, link_path) from error


def _point(source: Path, temporary: Path) -> None:
    try:
        temporary.symlink_to(os.path.relpath(source, temporary.parent), target_is_directory=source.is_dir())
    except OSError:  # a file system without links
        if source.is_dir():
            shutil.copytree(source, temporary)
        else:
            shutil.copy2(source, temporary)


def _swap(temporary: Path, path: Path) -> Path | None:
    """Rename `temporary` to `path` and return where the old one went; files are replaced in one step."""
    is_directory = temporary.is_dir() and not temporary.is_symlink()
    if not is_directory and (path.is_symlink() or not path.is_dir()):
        os.replace(temporary, path)  # noqa: PTH105 - atomic, by its name
        return None
    written = (temporary / META).read_bytes() if is_complete(temporary) else b""
    for _ in range(_ATTEMPTS):
        aside = _move_aside(path)
        failpoint("checkpoint.between_renames")
        try:
            temporary.rename(path)
        except FileNotFoundError:
            if is_published(written, path):
                return aside  # another process recovered it for us
            _move_back(aside, path)
            raise
        except OSError:
            if path.exists():
                continue  # another process renamed the old one back: move it aside again
            _move_back(aside, path)
            raise
        return aside
    raise StorageError(f"{path} was put back {_ATTEMPTS} times by other processes while it was being replaced; save to another path.")


def _move_aside(path: Path) -> Path | None:
    if not path.exists() and not path.is_symlink():
        return None
    stem, _, unique = files.temporary_beside(path).name.rpartition(".tmp-")
    aside = path.with_name(f"{stem}.old-{unique}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        return aside
    return None


def _move_back(aside: Path | None, path: Path) -> None:
    if aside is not None:
        with contextlib.suppress(OSError):
            aside.rename(path)


def _leftovers(path: Path, kind: str) -> list[Path]:
    """Return what killed saves left beside `path`, the newest first."""
    stem = files.temporary_beside(path).name.rpartition(".tmp-")[0]  # a long name is cut
    start = f"{stem}.{kind}-"
    names = [entry.name for entry in path.parent.iterdir() if entry.name.startswith(start) and files.is_leftover(entry.name)]
    return [path.with_name(name) for name in sorted(names, reverse=True)]


def _rename_back(path: Path) -> None:
    finished = [leftover for leftover in _leftovers(path, "tmp") if is_complete(leftover)]  # a file is only complete once renamed
    for leftover in (*finished, *_leftovers(path, "old")):
        if is_complete(leftover) or leftover.is_file():
            with contextlib.suppress(FileNotFoundError):
                leftover.rename(path)
                files.sync_directory(path.parent)
            return


def _sweep(path: Path) -> None:
    for leftover in (*_leftovers(path, "tmp"), *_leftovers(path, "old")):
        if time.time() - _touched(leftover) > files.LEFTOVER_SECONDS:
            discard(leftover)


def _touched(path: Path) -> float:
    """Return when anything in a leftover last changed: a slow save of a large model is no leftover."""
    newest = path.lstat().st_mtime
    if path.is_dir() and not path.is_symlink():
        for directory, _, names in os.walk(path):
            newest = max(newest, *(Path(directory, name).lstat().st_mtime for name in names), Path(directory).stat().st_mtime)
    return newest
