"""`versions`, `rollback` and `gc`: which versions there are, going back to one, and removing old ones."""

import datetime
import functools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from leyden.core.errors import ConfigError, NotFoundError
from leyden.core.storage import Entry, Storage
from leyden.data.format import versions as stored
from leyden.data.format.manifest import Manifest
from leyden.data.write.changes.target import Place, open_target
from leyden.data.write.driver import DEAD_SECONDS
from leyden.data.write.journal import JOBS, Journal

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)\s*")
_BEAT = re.compile(r"/beat-(.+)\.json$")
_AT_ONCE = 16


class DatasetVersion(NamedTuple):
    """What a version is.

    Args:
        version: Its number.
        operation: What made it: `create append overwrite delete update columns keys merge rollback …`.
        created_at: When, in UTC; `None` if it does not say.
        num_rows: Rows that are not deleted.
        num_chunks: Its chunks.
        num_bytes: Of their files.
        parent: The version that it changed.
        digest: Two versions with one digest are equal.

    Example:
        >>> DatasetVersion(2, "append", None, 10, 1, 2048, 1, "0a1b").num_rows
        10
    """

    version: int
    operation: str
    created_at: datetime.datetime | None
    num_rows: int
    num_chunks: int
    num_bytes: int
    parent: int | None
    digest: str


def versions(input_dir: Place, *, storage_options: Mapping[str, Any] | None = None) -> list[DatasetVersion]:
    """Return the versions of a dataset, oldest first; `StreamingDataset(…, version=n)` opens one.

    Args:
        input_dir: A folder or URL.
        storage_options: Of its storage.

    Raises:
        NotFoundError: There is no dataset.

    Example:
        >>> import tempfile
        >>> from leyden.data import optimize
        >>> folder = tempfile.mkdtemp()
        >>> _ = optimize(float, [1, 2, 3], folder, num_workers=0)
        >>> [(found.version, found.operation, found.num_rows) for found in versions(folder)]
        [(1, 'create', 3)]
    """
    storage = open_target(input_dir, storage_options).storage
    numbers = [found.version for found in stored.list_versions(storage)]
    with ThreadPoolExecutor(_AT_ONCE, "leyden-versions") as pool:
        found = list(pool.map(functools.partial(_read, storage), numbers))
    return [facts_of(manifest) for manifest in found if manifest is not None]


def _read(storage: Storage, number: int) -> Manifest | None:
    try:
        return stored.open_manifest(storage, number)
    except NotFoundError:
        return None  # swept since it was listed


def facts_of(manifest: Manifest) -> DatasetVersion:
    """Return what a manifest says."""
    seconds = manifest.lineage.get("created_at")
    return DatasetVersion(
        version=manifest.version,
        operation=manifest.operation,
        created_at=None if seconds is None else datetime.datetime.fromtimestamp(float(seconds), datetime.UTC),
        num_rows=manifest.num_rows,
        num_chunks=len(manifest.chunks),
        num_bytes=sum(file.bytes for chunk in manifest.chunks for file in (chunk, *chunk.files)),
        parent=manifest.parent,
        digest=manifest.digest,
    )


def rollback(input_dir: Place, version: int, *, storage_options: Mapping[str, Any] | None = None) -> DatasetVersion:
    """Make an older version the newest again: its content is committed as a new one, so that nothing is lost.

    Args:
        input_dir: A folder or URL.
        version: The version to go back to.
        storage_options: Of its storage.

    Returns:
        The new version.

    Raises:
        NotFoundError: There is no dataset, or not this version.
        ConfigError: `version` is no number.

    Example:
        >>> import tempfile
        >>> from leyden.data import delete_rows, optimize
        >>> folder = tempfile.mkdtemp()
        >>> _ = optimize(float, [1, 2, 3], folder, num_workers=0)
        >>> delete_rows(folder, [0]).num_rows, rollback(folder, 1).num_rows
        (2, 3)
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ConfigError(f"version={version!r} is not accepted: it takes the number of a version, as versions({str(input_dir)!r}) lists.")
    storage = open_target(input_dir, storage_options).storage
    return facts_of(stored.rollback(storage, version))


def gc(
    input_dir: Place,
    keep: int = 2,
    older_than: "str | float | datetime.timedelta" = "7d",
    *,
    storage_options: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Remove old versions, the files that no kept one names, and journals of jobs.

    That includes what changes and jobs left that were never finished. A job that somebody works on is spared. Readers that have
    an old version open fail when its files go.

    Args:
        input_dir: A folder or URL.
        keep: How many of the newest versions stay, at least one.
        older_than: What is younger stays, versions and files: `"7d"`, `"12h"`, `"30m"`, seconds, or a `timedelta`.
        storage_options: Of its storage.
        dry_run: Whether nothing is removed.

    Returns:
        What was removed, or would be.

    Raises:
        NotFoundError: There is no dataset.
        ConfigError: `keep` or `older_than` is not accepted.

    Example:
        >>> import tempfile
        >>> from leyden.data import delete_rows, optimize
        >>> folder = tempfile.mkdtemp()
        >>> _ = optimize(float, [1, 2, 3], folder, num_workers=0), delete_rows(folder, [0])
        >>> gc(folder, keep=1, older_than=0)[-1]
        '_leyden/manifest-00000001.json'
    """
    if not isinstance(keep, int) or isinstance(keep, bool):
        raise ConfigError(f"keep={keep!r} is not accepted: it takes a whole number of versions ≥ 1.")
    storage, seconds = open_target(input_dir, storage_options).storage, seconds_of(older_than)
    journals = {job: entries for job, entries in _journals(storage).items() if not _is_worked_on(storage, job, entries, seconds)}
    spared = [job for job in _journals(storage) if job not in journals]
    gone = [entry.key for entries in journals.values() for entry in entries]
    for key in () if dry_run else gone:  # before the chunks that it says are done
        storage.delete(key)

    def is_spared(key: str) -> bool:
        return any(f"-{job}-" in key for job in spared)

    return gone + stored.sweep(storage, keep=keep, older_than_seconds=seconds, spare=is_spared, dry_run=dry_run)


def seconds_of(age: "str | float | datetime.timedelta") -> float:
    """Return an age in seconds.

    Raises:
        ConfigError: It is none.

    Example:
        >>> seconds_of("7d"), seconds_of("1.5h"), seconds_of(30)
        (604800.0, 5400.0, 30.0)
    """
    if isinstance(age, datetime.timedelta):
        return age.total_seconds()
    if isinstance(age, (int, float)) and not isinstance(age, bool) and age >= 0:
        return float(age)
    match = _AGE.fullmatch(age) if isinstance(age, str) else None
    if match is None:
        raise ConfigError(
            f"older_than={age!r} is not accepted: it takes '7d', '12h', '30m', '90s', a number of seconds ≥ 0 or a timedelta."
        )
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _journals(storage: Storage) -> dict[str, list[Entry]]:
    """Return what each job's journal consists of, its plan last: a journal without records is one of a job that begins."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(storage.list(JOBS), key=lambda each: (each.key.endswith("/plan.json"), each.key)):
        found[entry.key.removeprefix(f"{JOBS}/").partition("/")[0]].append(entry)
    return found


def _is_worked_on(storage: Storage, job: str, entries: Sequence[Entry], seconds: float) -> bool:
    """Return whether a driver of a job lives, or one did within the time, so that the job may be gone on with."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    for entry in entries:
        beat, age = _BEAT.search(entry.key), now - entry.modified
        if age < seconds or (beat is not None and age < DEAD_SECONDS and Journal(storage, job).beat_of(beat[1]) >= 0):
            return True
    return False
