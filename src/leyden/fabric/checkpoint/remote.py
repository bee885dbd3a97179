"""Checkpoints at URLs (`s3://…`): written in a local directory first, uploaded in parallel, `meta.json` last.

An object store has no rename, but a write replaces one object at once. A single file is one object. Of a directory,
`meta.json` is the mark of completeness, written after the last other file. A save over a complete checkpoint fills a
folder of its own, and the new `meta.json` names it:

```
first save            meta.json  train.pt  ranks/…
second, under way     meta.json  train.pt  ranks/…   save-<id>/train.pt  save-<id>/ranks/…      readers see the first
second, done          meta.json (folder: save-<id>)  save-<id>/meta.json  save-<id>/train.pt  save-<id>/ranks/…
```

So a killed save leaves the checkpoint before it; what it had uploaded is deleted by the next save.
"""

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from leyden.core.errors import ConfigError, NotFoundError, StorageError
from leyden.core.failpoints import failpoint
from leyden.core.ids import new_id
from leyden.core.storage import Storage, is_url, open_storage, split_url
from leyden.fabric.checkpoint import layout
from leyden.fabric.checkpoint.layout import INDEX, META, RANKS, SHARDS, TRAIN

_PARALLEL = 8
_ATTEMPTS = 3  # to read a checkpoint that is being replaced meanwhile
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


def begin_directory(url: str, options: Any = None) -> str:
    """Return the URL that the files of a new checkpoint go to, and delete what killed saves left at `url`.

    That is `url` itself, or a folder below it where a complete checkpoint lies there. Call `publish` at the end.

    Raises:
        ConfigError: Something else than a checkpoint's files lies there; nothing is deleted then.
    """
    storage = open_storage(url, options)
    keys = _checked_keys(storage, f"save({url!r})")
    folder = _folder(storage)
    _delete_all_but(storage, keys, folder)
    return url if folder is None else f"{url}/{new_id(layout.FOLDER)}"


def publish(directory: Path, place: str, url: str, options: Any = None) -> None:
    """Make the files at `place`, which `begin_directory` named, the checkpoint at `url`, and delete the one before it.

    Args:
        directory: The local directory with the finished `meta.json`.
        place: Where all other files have been uploaded to.
        url: The checkpoint's URL.
        options: As for the upload.
    """
    storage = open_storage(url, options)
    keys = [entry.key for entry in storage.list()]
    folder = place[len(url) + 1 :]
    document = json.loads((directory / META).read_text(encoding="utf-8"))
    if folder:
        upload_files(directory, [META], place, options)
        document["folder"] = folder
    failpoint("checkpoint.before_switch")
    storage.write(META, json.dumps(document, indent=1).encode())
    failpoint("checkpoint.switched")
    _delete_all_but(storage, [key for key in keys if key != META], folder)
    root, name = split_url(url)
    open_storage(root, options).delete(name)  # a single file that was saved here before: loading would prefer it


def _checked_keys(storage: Storage, action: str) -> list[str]:
    """Return what lies at a URL, which must be a checkpoint's files: the action deletes all of it."""
    keys = [entry.key for entry in storage.list()]
    foreign = [key for key in keys if not _is_ours(key)]
    if foreign:
        raise ConfigError(
            f"{action}: what lies there is no checkpoint of Leyden (it holds {', '.join(sorted(foreign)[:5])}), and everything below this "
            f"URL would be deleted. Name a place of its own: {storage.url + '/checkpoint/'!r}."
        )
    return keys


def _folder(storage: Storage) -> str | None:
    """Return where the files of the complete checkpoint are: `""` for beside `meta.json`; `None` if there is none."""
    try:
        document = storage.read(META)
    except NotFoundError:
        return None
    return layout.folder_in(document, f"{storage.url}/{META}")


def _delete_all_but(storage: Storage, keys: Iterable[str], folder: str | None) -> None:
    """Delete the keys that do not belong to the checkpoint in `folder`."""
    for key in keys:
        if folder is None or (key != META and _folder_of(key) != folder):
            storage.delete(key)


def _folder_of(key: str) -> str:
    first = key.partition("/")[0]
    return first if layout.is_folder(first) else ""


def _is_ours(key: str) -> bool:
    """Return whether a checkpoint may hold a file of this name; leftovers of a killed save have no `meta.json`."""
    folder, slash, rest = key.partition("/")
    if slash and layout.is_folder(folder):
        return _is_ours(rest)
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
        StorageError: Saves replaced it again and again meanwhile.
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
    for _ in range(_ATTEMPTS):
        folder = _folder(storage)
        try:
            _download_folder(storage, folder, target)
        except NotFoundError:
            if _folder(storage) == folder:
                raise
        else:
            if _folder(storage) == folder:
                return target
        shutil.rmtree(target, ignore_errors=True)  # a save replaced the checkpoint while it was read
    raise StorageError(f"the checkpoint at {url} was replaced {_ATTEMPTS} times while it was read. Load it when nobody saves there.")


def _download_folder(storage: Storage, folder: str | None, target: Path) -> None:
    """Fetch the files of the checkpoint in `folder`; everything if no `meta.json` says what that is."""
    keys = [entry.key for entry in storage.list()]
    if not keys:
        raise NotFoundError(f"there is no checkpoint at {storage.url}: no object of that name and none below it.")
    start = f"{folder}/" if folder else ""
    wanted = {key.removeprefix(start): key for key in keys if folder is None or _folder_of(key) == folder}
    for parent in {(target / name).parent for name in wanted}:
        parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for done in [pool.submit(storage.download_file, key, target / name) for name, key in wanted.items()]:
            done.result()


def remove(url: str, options: Any = None) -> None:
    """Delete the checkpoint at a URL, of a directory its mark of completeness first."""
    place = url.rstrip("/")
    root, name = split_url(place)
    open_storage(root, options).delete(name)
    storage = open_storage(place, options)
    keys = _checked_keys(storage, f"remove({url!r})")
    storage.delete(META)
    _delete_all_but(storage, keys, None)


def copy(url: str, to: str, options: Any = None) -> None:
    """Put the checkpoint at a URL at a second one beside it, of a directory `meta.json` last.

    Raises:
        NotFoundError: There is none.
    """
    root, name = split_url(url.rstrip("/"))
    _, other = split_url(to.rstrip("/"))
    storage = open_storage(root, options)
    if storage.exists(name):
        storage.copy(name, other)
        return
    keys = sorted((entry.key for entry in storage.list(name)), key=lambda key: key == f"{name}/{META}")
    if not keys:
        raise NotFoundError(f"there is no checkpoint at {url}: no object of that name and none below it.")
    begin_directory(to.rstrip("/"), options)
    for key in keys:
        storage.copy(key, other + key.removeprefix(name))
