"""Checkpoints at URLs (`s3://…`): written in a local directory first, uploaded in parallel, `meta.json` last.

An object store has no rename. A single file is one object, so it is replaced atomically. Of a directory, `meta.json` is
the mark of completeness: it is deleted before the first new file goes up and written after the last one. So a killed
save over an *existing* URL leaves no checkpoint there; `CheckpointFolder` gives every step a name of its own.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from leyden.core.errors import ConfigError, NotFoundError
from leyden.core.failpoints import failpoint
from leyden.core.storage import is_url, open_storage, split_url
from leyden.fabric.checkpoint.layout import INDEX, META, RANKS, SHARDS, TRAIN

_PARALLEL = 8
_OUR_FILES = (META, INDEX, TRAIN)
_OUR_FOLDERS = (SHARDS, RANKS, "deepspeed")


def is_remote(place: str) -> bool:
    """Return whether a path is a URL that is not a local file's."""
    return is_url(place) and not place.startswith("file://")


def upload_file(local: Path, url: str, options: Any = None) -> None:
    """Put a single file at a URL, replacing what is there."""
    root, name = split_url(url)
    failpoint("checkpoint.before_upload")
    open_storage(root, options).upload_file(local, name)


def begin_directory(url: str, options: Any = None) -> None:
    """Take the mark of completeness off the checkpoint at a URL, and delete the rest of it.

    Raises:
        ConfigError: Something else than a checkpoint's files lies there; nothing is deleted then.
    """
    storage = open_storage(url, options)
    keys = [entry.key for entry in storage.list()]
    foreign = [key for key in keys if not _is_ours(key)]
    if foreign:
        raise ConfigError(
            f"save({url!r}): what lies there is no checkpoint of Leyden (it holds {', '.join(sorted(foreign)[:5])}), and a save replaces "
            f"everything below its path. Name a place of its own: {url.rstrip('/') + '/checkpoint/'!r}."
        )
    storage.delete(META)
    for key in keys:
        storage.delete(key)


def _is_ours(key: str) -> bool:
    """Return whether a checkpoint may hold a file of this name; leftovers of a killed save have no `meta.json`."""
    folder, slash, _ = key.partition("/")
    return folder in _OUR_FOLDERS if slash else key in _OUR_FILES or key.endswith(".safetensors")


def upload_files(directory: Path, names: Iterable[str], url: str, options: Any = None) -> None:
    """Put files of a local directory below a URL, several at once; the first error is raised."""
    storage = open_storage(url, options)
    failpoint("checkpoint.before_upload")
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for done in [pool.submit(storage.upload_file, directory / name, name) for name in names]:
            done.result()


def download(url: str, into: Path, options: Any = None) -> Path:
    """Fetch the checkpoint at a URL, a file or everything below it, and return its local path.

    Raises:
        NotFoundError: There is neither.
    """
    root, name = split_url(url.rstrip("/"))
    parent = open_storage(root, options)
    target = into / name
    if name == "latest" and parent.exists(name):
        newest = parent.read(name).decode().strip()
        return download(f"{root}/{newest}", into, options)
    if not url.endswith("/") and parent.exists(name):
        parent.download_file(name, target)
        return target
    storage = open_storage(url.rstrip("/"), options)
    keys = [entry.key for entry in storage.list()]
    if not keys:
        raise NotFoundError(f"there is no checkpoint at {url}: no object of that name and none below it.")
    for folder in {(target / key).parent for key in keys}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for done in [pool.submit(storage.download_file, key, target / key) for key in keys]:
            done.result()
    return target


def remove(url: str, options: Any = None) -> None:
    """Delete the checkpoint at a URL, of a directory its mark of completeness first."""
    root, name = split_url(url.rstrip("/"))
    open_storage(root, options).delete(name)
    begin_directory(url.rstrip("/"), options)
