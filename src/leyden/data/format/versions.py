"""Versions of a dataset: opening the newest, committing the next, going back, sweeping up.

A commit creates `_leyden/manifest-<version>.json`, which only one of several writers can, and then copies it to `index.json`.
Whoever opens a dataset asks for the index and for the list of manifests at once and takes the newer: a writer that died
between the two steps has still committed.
"""

import contextlib
import dataclasses
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from leyden.core.errors import ConfigError, ConflictError, CorruptDataError, NotFoundError, StorageError, UnsupportedError
from leyden.core.failpoints import failpoint
from leyden.core.ids import new_id
from leyden.core.storage import Storage
from leyden.data.errors import DatasetExistsError
from leyden.data.format.manifest import Manifest

INDEX, FOLDER = "index.json", "_leyden"
_NAME = re.compile(rf"{FOLDER}/manifest-(\d{{8}})\.json")
_ATTEMPTS = 20


class Version(NamedTuple):
    """A version that is there.

    Args:
        version: Its number.
        modified: When it was written, in seconds since 1970.
        key: Its manifest's key.
    """

    version: int
    modified: float
    key: str


def key_of(version: int) -> str:
    """Return the key of a version's manifest.

    Example:
        >>> key_of(3)
        '_leyden/manifest-00000003.json'
    """
    return f"{FOLDER}/manifest-{version:08d}.json"


def list_versions(storage: Storage) -> list[Version]:
    """Return the versions that are there, oldest first."""
    found = [(match, entry) for entry in storage.list(FOLDER) if (match := _NAME.fullmatch(entry.key))]
    return sorted(Version(int(match[1]), entry.modified, entry.key) for match, entry in found)


def open_manifest(storage: Storage, version: int | None = None) -> Manifest:
    """Return a version's manifest.

    Args:
        storage: The dataset's folder.
        version: Its number; the newest if omitted.

    Raises:
        NotFoundError: There is no dataset, or no such version.
        CorruptDataError: The manifest is damaged.
        ConfigError: A newer Leyden wrote it.
    """
    if version is not None:
        return _read_version(storage, version)
    with ThreadPoolExecutor(2, "leyden-open") as pool:  # two round trips at once
        index, listed = pool.submit(storage.read, INDEX), pool.submit(_newest, storage)
        newest = listed.result()
        with contextlib.suppress(NotFoundError):
            return _newer_of(storage, index.result(), newest)
    if newest is None:
        raise NotFoundError(f"there is no dataset at {storage.url}: neither {INDEX} nor a manifest below {FOLDER}/ is there.")
    return _read_version(storage, newest)


def _newer_of(storage: Storage, index: bytes, newest: int | None) -> Manifest:
    try:
        found = Manifest.from_bytes(index, f"{storage.url}/{INDEX}")
    except CorruptDataError:
        if newest is None:
            raise
        return _read_version(storage, newest)  # a torn copy: the manifest that it copies decides
    return found if newest is None or newest <= found.version else _read_version(storage, newest)


def _newest(storage: Storage) -> int | None:
    try:
        return max((each.version for each in list_versions(storage)), default=None)
    except (StorageError, UnsupportedError):
        return None  # plain HTTP cannot list: the index is all there is


def _read_version(storage: Storage, version: int) -> Manifest:
    try:
        data = storage.read(key_of(version))
    except NotFoundError:
        there = "those that the server does not list"
        with contextlib.suppress(UnsupportedError):
            there = ", ".join(str(each.version) for each in list_versions(storage)) or "none"
        raise NotFoundError(f"version {version} of {storage.url} is not there. There are: {there}.") from None
    return Manifest.from_bytes(data, f"{storage.url}/{key_of(version)}")


def find_manifest(storage: Storage) -> Manifest | None:
    """Return the newest manifest, or `None` where there is no dataset."""
    try:
        return open_manifest(storage)
    except NotFoundError:
        return None


def commit(storage: Storage, make: Callable[[Manifest | None], Manifest], *, must_be_new: bool = False) -> Manifest:
    """Make the next version, and return its manifest.

    Args:
        storage: The dataset's folder; all files that the manifest names are there already.
        make: Called with the newest manifest, again each time another writer was faster; returns the next, with the next number.
            It raises `ConflictError` where the two changes do not go together.
        must_be_new: Whether there may be no dataset yet.

    Raises:
        DatasetExistsError: There is one.
        ConflictError: `make` says so, or others were faster twenty times.
    """
    for _ in range(_ATTEMPTS):
        newest = find_manifest(storage)
        if must_be_new and newest is not None:
            raise exists_error(storage.url)
        manifest = make(newest)
        data = manifest.to_bytes()
        failpoint("data.commit.before")
        if not _is_created(storage, key_of(manifest.version), data):
            continue
        failpoint("data.commit.between")
        _write_index(storage, data, manifest.version)
        failpoint("data.commit.after")
        return manifest
    raise ConflictError(f"{storage.url}: other writers committed {_ATTEMPTS} times while this one tried. Run it again when they are done.")


def _write_index(storage: Storage, data: bytes, version: int) -> None:
    try:
        storage.write(INDEX, data)
    except StorageError as error:  # the version is there: whoever took this for a failure would make the same change twice
        text = f"version {version} of {storage.url} is committed, but {INDEX} could not be written: {error} The next writer writes it."
        warnings.warn(text, UserWarning, stacklevel=2)


def _is_created(storage: Storage, key: str, data: bytes) -> bool:
    try:
        storage.create(key, data)
    except ConflictError:
        # A client that tries a lost answer again meets its own object: taking it for another's would apply the change twice.
        with contextlib.suppress(NotFoundError):
            return storage.read(key) == data
        return False
    return True


def exists_error(url: str) -> DatasetExistsError:
    """Return the error for a dataset that is there already."""
    return DatasetExistsError(
        f"there is a dataset at {url} already. HINT: If you want to append/overwrite to the existing dataset, "
        "use mode='append' or mode='overwrite'."
    )


def repair_index(storage: Storage) -> bool:
    """Copy the newest manifest to `index.json` if that is missing, torn or older; return whether it was."""
    newest = _newest(storage)
    if newest is None:
        return False
    data = storage.read(key_of(newest))
    with contextlib.suppress(NotFoundError):
        if storage.read(INDEX) == data:
            return False
    storage.write(INDEX, data)
    return True


def past_of(storage: Storage) -> Iterator[Manifest]:
    """Yield the versions that the newest stands on, itself first; what a rollback has undone is left out, and so is what is gone."""
    numbers = [each.version for each in list_versions(storage)]
    while numbers:
        manifest = _read_version(storage, numbers.pop())
        yield manifest
        last = manifest.lineage.get("restored") if manifest.operation == "rollback" else None
        numbers = [number for number in numbers if last is None or number <= int(last)]


def rollback(storage: Storage, version: int) -> Manifest:
    """Commit the content of an older version as a new one, and return its manifest.

    What the lineage says of the content is kept; `restored` is the version that it was taken from.

    Args:
        storage: The dataset's folder.
        version: The version to go back to.

    Raises:
        NotFoundError: It is not there.
    """
    old = open_manifest(storage, version)

    def make(newest: Manifest | None) -> Manifest:
        number = (newest.version if newest else 0) + 1
        lineage = {**old.lineage, "created_at": time.time(), "restored": version}
        return dataclasses.replace(old, version=number, parent=newest.version if newest else None, operation="rollback", lineage=lineage)

    return commit(storage, make)


def sweep(
    storage: Storage,
    *,
    keep: int = 2,
    older_than_seconds: float = 7 * 86400.0,
    now: float | None = None,
    spare: Callable[[str], bool] = lambda _: False,
    dry_run: bool = False,
) -> list[str]:
    """Remove old manifests and the files that no kept one names; return what was removed.

    Manifests go first, oldest first, then files: whoever is killed in between leaves files that the next sweep removes, never a
    version without its files. What was committed meanwhile is kept: files are chosen when the manifests are gone.

    Args:
        storage: The dataset's folder.
        keep: How many of the newest versions stay, at least one.
        older_than_seconds: What is younger stays: a job may be about to name it.
        now: The time, in seconds since 1970.
        spare: Says which other files stay.
        dry_run: Whether nothing is removed.

    Raises:
        ConfigError: `keep` is less than one.
    """
    if keep < 1:
        raise ConfigError(f"keep={keep!r} would remove the dataset itself. Pass keep=1 or more.")
    found, border = list_versions(storage), (time.time() if now is None else now) - older_than_seconds
    old = [each.key for each in found[: max(0, len(found) - keep)] if each.modified <= border]
    for key in () if dry_run else old:
        storage.delete(key)
        failpoint("data.sweep.manifest")
    kept = [each for each in list_versions(storage) if each.key not in old]
    named = {INDEX, *old, *(each.key for each in kept)}
    for each in kept:
        named |= set(files_of(_read_version(storage, each.version)))
    orphans = [entry.key for entry in storage.list() if entry.key not in named and entry.modified <= border and _is_ours(entry.key)]
    orphans = [key for key in orphans if not spare(key)]
    for key in () if dry_run else orphans:
        storage.delete(key)
        failpoint("data.sweep.file")
    return old + orphans


def files_of(manifest: Manifest) -> Iterable[str]:
    """Yield every file that a manifest names."""
    for chunk in manifest.chunks:
        yield chunk.name
        yield from (file.name for file in chunk.files)
        if chunk.deleted is not None:
            yield chunk.deleted.name
    if manifest.keys is not None:
        yield str(manifest.keys["name"])


def named_by_versions(storage: Storage) -> frozenset[str]:
    """Return every file that a version names, whichever it is."""
    return frozenset(name for each in list_versions(storage) for name in files_of(_read_version(storage, each.version)))


def _is_ours(key: str) -> bool:
    is_data = "/" not in key and (key.endswith(".ldc") or (key.startswith(".chunk-") and key.endswith(".tmp")))
    return is_data or key.startswith((f"{FOLDER}/deletes-", f"{FOLDER}/keys-", f"{FOLDER}/probe-"))


def honours_conditions(storage: Storage) -> bool:
    """Return whether `create` of the store fails where an object is: several writers need it."""
    key = f"{FOLDER}/probe-{new_id('probe')}"
    try:
        storage.create(key, b"1")
        try:
            storage.create(key, b"2")
        except ConflictError:
            return True
        return False
    finally:
        storage.delete(key)
