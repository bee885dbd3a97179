"""`versions`, `rollback` and `gc`: which versions there are, going back to one, and removing old ones."""

import datetime
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from leyden.core.errors import ConfigError, NotFoundError
from leyden.core.storage import Storage
from leyden.data.format import versions as stored
from leyden.data.format.manifest import Manifest
from leyden.data.write.changes.target import Place, open_target
from leyden.data.write.driver import DEAD_SECONDS
from leyden.data.write.journal import JOBS, Journal

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)\s*")
_JOURNAL, _BEAT = re.compile(rf"{JOBS}/([^/]+)/(.+)"), re.compile(r"beat-(.+)\.json")
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
    """Remove old versions, and the files that no kept one names: of old versions, of changes and jobs that were never finished.

    Readers that have an old version open fail when its files go. Files of a job that still works are spared.

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
        >>> gc(folder, keep=1, older_than=0)
        ['_leyden/manifest-00000001.json']
    """
    if not isinstance(keep, int) or isinstance(keep, bool):
        raise ConfigError(f"keep={keep!r} is not accepted: it takes a whole number of versions ≥ 1.")
    storage, seconds = open_target(input_dir, storage_options).storage, seconds_of(older_than)
    return stored.sweep(storage, keep=keep, older_than_seconds=seconds, spare=_of_unfinished_jobs(storage, seconds), dry_run=dry_run)


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


def _of_unfinished_jobs(storage: Storage, seconds: float) -> Callable[[str], bool]:
    """Return what tells files of jobs that work now, or that were worked on within the time: those may be gone on with."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    spared = set[str]()
    for entry in storage.list(JOBS):
        match = _JOURNAL.fullmatch(entry.key)
        if match is not None and (entry.modified > now - seconds or _is_alive(storage, match[1], match[2], now - entry.modified)):
            spared.add(match[1])
    return lambda key: any(f"-{job}-" in key for job in spared)


def _is_alive(storage: Storage, job: str, name: str, age: float) -> bool:
    beat = _BEAT.fullmatch(name)
    return beat is not None and age < DEAD_SECONDS and Journal(storage, job).beat_of(beat[1]) >= 0


def past_of(storage: Storage) -> Iterator[Manifest]:
    """Yield the versions that the newest stands on, itself first; what a rollback has undone is left out."""
    number = max((found.version for found in stored.list_versions(storage)), default=None)
    while number is not None:
        manifest = _read(storage, number)
        if manifest is None:
            return
        yield manifest
        restored = manifest.lineage.get("restored")
        number = int(restored) if manifest.operation == "rollback" and restored is not None else manifest.parent
