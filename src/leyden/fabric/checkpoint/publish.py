"""How a checkpoint takes the place of the one before it, so that `kill -9` anywhere leaves a complete one.

```
begin     <path>.tmp-<id>          everything is written there and synced, meta.json last
commit    <path> → <path>.old-<id>, <path>.tmp-<id> → <path>, parent synced, old deleted       (files: one rename)
recover   target missing: a complete .tmp-* or .old-* is renamed back; leftovers older than an hour are deleted
```

The renames are `core.files`'; here is what is a checkpoint's own: what a complete one is, what may be replaced, links.
`recover` runs before each load and save, also in other processes than the writer.
"""

import contextlib
import os
import shutil
from pathlib import Path

from leyden.core import files
from leyden.core.errors import ConfigError, StorageError
from leyden.core.failpoints import failpoint
from leyden.core.files import discard
from leyden.fabric.checkpoint.layout import META, is_complete


def recover(path: Path) -> None:
    """Finish what a killed save left at `path`, and sweep what is old. Safe to run in several processes at once."""
    with contextlib.suppress(OSError):  # a place that cannot be written can still be read
        files.recover(path, is_complete)


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
    """Put what is complete and synced at `temporary` in the place of `path`.

    Raises:
        StorageError: A rename failed; what was at `path` is still there.
    """
    try:
        files.publish(temporary, path, is_synced=True)
    except OSError as error:
        raise error if isinstance(error, StorageError) else files.storage_error(error, path) from error


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
