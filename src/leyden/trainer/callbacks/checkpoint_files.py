"""Files of checkpoints that exist: second names for them, and removal, on rank 0 and behind the saves under way.

`last.ckpt` is a second name of the newest file. Locally that is a hard link, which costs nothing and survives the removal
of the other name; a file system without them gets a copy, a directory a symlink. At a URL the service copies.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leyden.core import files
from leyden.core.failpoints import failpoint
from leyden.core.storage import open_storage, split_url
from leyden.fabric.checkpoint import link, publish, remove, wait_for_saves
from leyden.fabric.checkpoint.plugin import AsyncCheckpointIO, TorchCheckpointIO
from leyden.fabric.checkpoint.remote import copy, is_remote
from leyden.fabric.checkpoint.writer import process_writer


def exists(path: str) -> bool:
    """Return whether a checkpoint, a file or a directory, is at a path or URL."""
    if not is_remote(path):
        return Path(path).exists()
    root, name = split_url(path)
    storage = open_storage(root)
    return storage.exists(name) or next(storage.list(name), None) is not None


def is_empty(directory: str) -> bool:
    """Return whether a directory is absent, or holds nothing."""
    if is_remote(directory):
        return next(open_storage(directory).list(), None) is None
    return not Path(directory).is_dir() or next(Path(directory).iterdir(), None) is None


def names_in(directory: str) -> list[str]:
    """Return the names in a directory, after mending what a killed save left there; none if it is absent."""
    if is_remote(directory):
        return sorted({entry.key.partition("/")[0] for entry in open_storage(directory).list()})
    folder = Path(directory)
    if not folder.is_dir():
        return []
    for entry in list(folder.iterdir()):
        if files.is_leftover(entry.name):
            publish.recover(entry.with_name(entry.name.rpartition(".")[0]))
    return sorted(entry.name for entry in folder.iterdir())


def has_own_store(plugin: Any) -> bool:
    """Return whether a `CheckpointIO` stores where only it can find: then nothing can be linked there."""
    inner = plugin.inner if isinstance(plugin, AsyncCheckpointIO) else plugin
    return inner is not None and type(inner) is not TorchCheckpointIO  # a subclass may do anything


def after_saves(function: Callable[[], None]) -> None:
    """Run a function once what is being saved is complete; at once where saves block. Dropped if the save fails."""
    process_writer().then(function)


def finish_saves() -> None:
    """Wait until everything is saved.

    Raises:
        StorageError: The last save failed.
    """
    wait_for_saves()


def add_name(target: str, name: str, *, is_link: bool) -> None:
    """Make `name` stand for the checkpoint `target` too, replacing what is there in one step.

    Args:
        target: A complete checkpoint.
        name: The other name, beside it.
        is_link: Whether it must be a symlink.

    Raises:
        StorageError: It cannot be made; the one before is still there.
    """
    if target == name:
        return
    if is_remote(target):
        copy(target, name)
    elif is_link or Path(target).is_dir():
        link(target, name)
    else:
        _hard_link(Path(target), Path(name))


def delete(path: str, plugin: Any) -> None:
    """Delete a checkpoint of ours, whatever its kind.

    Raises:
        StorageError: It cannot be deleted.
    """
    failpoint("checkpoint.before_remove")
    if has_own_store(plugin):
        plugin.remove_checkpoint(path)
    else:
        remove(path)


def _hard_link(target: Path, name: Path) -> None:
    temporary = files.temporary_beside(name)
    try:
        try:
            temporary.hardlink_to(target)
            is_synced = True
        except OSError:  # a file system without hard links
            shutil.copyfile(target, temporary)
            is_synced = False
        files.publish(temporary, name, is_synced=is_synced)
    except OSError as error:
        raise files.storage_error(error, name, target.stat().st_size if target.exists() else None) from error
    finally:
        files.discard(temporary)  # still there if both names were one file already: then rename does nothing


def same_place(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether two paths lead to one checkpoint, by symlinks too."""
    first, second = os.fspath(path), os.fspath(other)
    if first == second:
        return True
    return not (is_remote(first) or is_remote(second)) and os.path.realpath(first) == os.path.realpath(second)
