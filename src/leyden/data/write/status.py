"""What jobs there are at an output, and how far each is: read from their journals, which anybody may look at any time."""

import re
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from leyden.core.errors import ConflictError, NotFoundError, closest
from leyden.core.storage import Entry, Storage, open_storage
from leyden.data.config import Dir
from leyden.data.format.versions import list_versions, open_manifest
from leyden.data.write.arguments import output_of
from leyden.data.write.driver import DEAD_SECONDS
from leyden.data.write.journal import ENDED, JOBS, Journal
from leyden.data.write.places import TEMPORARY

KEPT_SECONDS = 7 * 86400.0
_READERS = 16
_DONE = re.compile(r"done-(\d{8})\.json")
_BEAT = re.compile(r"beat-(.+)\.json")


class JobStatus(NamedTuple):
    """How far a job is.

    Args:
        job: Its id.
        function: What it calls.
        operation: `create`, `append`, `overwrite`, `map` or `add_columns`.
        state: `running`, `unfinished` or `finished`.
        units: How many it has; `None` while its inputs still come.
        units_done: How many of them are done.
        inputs: How many it has; `None` while they still come.
        inputs_done: How many of them are done.
        rows: That they gave.
        failures: Inputs that failed.
        drivers: That work on it.
        began: When, in seconds since 1970.

    Example:
        >>> JobStatus("a1", "m.f", "create", "finished", 4, 4, 9, 9, 9, 0, 0, 0.0).is_unfinished
        False
    """

    job: str
    function: str
    operation: str
    state: str
    units: int | None
    units_done: int
    inputs: int | None
    inputs_done: int
    rows: int
    failures: int
    drivers: int
    began: float

    @property
    def is_unfinished(self) -> bool:
        """Whether nobody works on it, and it has not ended."""
        return self.state == "unfinished"


def status(output_dir: "str | Dir", storage_options: Mapping[str, Any] | None = None) -> list[JobStatus]:
    """Return the jobs at an output, the newest first; those that ended more than a week ago may be gone.

    Args:
        output_dir: A folder or URL.
        storage_options: Of its storage.

    Example:
        >>> import tempfile
        >>> from leyden.data import optimize
        >>> folder = tempfile.mkdtemp()
        >>> _ = optimize(float, inputs=[1, 2, 3], output_dir=folder, num_workers=0)
        >>> status(folder)[0].state
        'finished'
    """
    storage = open_storage(output_of(output_dir, is_alone=True), storage_options)
    made = jobs_of_versions(storage)
    found = [_status_of(storage, job, entries, is_made=job in made) for job, entries in journals_at(storage).items()]
    return sorted((each for each in found if each is not None), key=lambda each: -each.began)


def drop_job(output_dir: "str | Dir", job: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """Remove the journal of a job and what it wrote for no version, and return what was removed.

    Args:
        output_dir: A folder or URL.
        job: Its id, as `status` gives it.
        storage_options: Of its storage.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: Somebody works on it.
    """
    storage = open_storage(output_of(output_dir, is_alone=True), storage_options)
    journals = journals_at(storage)
    if job not in journals:
        raise NotFoundError(f"there is no job {job!r} at {storage.url}.{closest(job, journals)}")
    if drivers_of_job(storage, job, journals[job]):
        raise ConflictError(f"job {job} at {storage.url} is being worked on: end its drivers first.")
    named = {chunk.name for version in list_versions(storage) for chunk in open_manifest(storage, version.version).chunks}
    mine = re.compile(rf"(\.?chunk-{job}-.*|{TEMPORARY}/{job}/.*)")
    gone = [entry.key for entry in storage.list() if mine.fullmatch(entry.key) and entry.key not in named]
    gone += [entry.key for entry in journals[job]]
    for key in gone:
        storage.delete(key)
    return gone


def tell_of_others(journal: Journal, about: Mapping[str, Any]) -> None:
    """Remove journals that ended a week ago, and warn of jobs at the same output that nobody works on and that have not ended.

    Args:
        journal: Of the job that begins.
        about: What its plan says.
    """
    storage, made = journal.storage, None
    for job, entries in journals_at(storage).items():
        names = {entry.key.rpartition("/")[2]: entry for entry in entries}
        if "ended.json" in names:
            if time.time() - names["ended.json"].modified > KEPT_SECONDS:
                Journal(storage, job).drop()
        elif job != journal.job and "plan.json" in names and not drivers_of_job(storage, job, entries):
            made = jobs_of_versions(storage) if made is None else made
            if job not in made:
                _tell(storage, job, entries, about)


def _tell(storage: Storage, job: str, entries: Sequence[Entry], about: Mapping[str, Any]) -> None:
    plan = Journal(storage, job).plan()
    done = sum(_DONE.fullmatch(entry.key.rpartition("/")[2]) is not None for entry in entries)
    differing = differences(plan.get("about", {}), about)
    warnings.warn(
        f"job {job} of {_function_of(plan)} is unfinished at {storage.url}: {done} of {plan['units'] or 'its'} units are done. This call "
        f"is another job: it differs in {', '.join(differing) or 'what was there when it began'}. The other one is left alone: run its own "
        f"command to go on with it, or `leyden data jobs {storage.url} --drop {job}`.",
        UserWarning,
        stacklevel=6,
    )


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Return where two trees of JSON differ.

    Example:
        >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3, "d": 4}})
        ['b.c (2, here 3)', 'b.d (None, here 4)']
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other})
        return [text for key in keys for text in differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)]
    return [] if one == other else [f"{path} ({one!r:.40}, here {other!r:.40})"]


def journals_at(storage: Storage) -> dict[str, list[Entry]]:
    """Return what each job's journal consists of."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in storage.list(JOBS):
        job, slash, _ = entry.key.removeprefix(f"{JOBS}/").partition("/")
        if slash:
            found[job].append(entry)
    return found


def jobs_of_versions(storage: Storage) -> set[str]:
    """Return the jobs that have made versions."""
    return {str(open_manifest(storage, version.version).lineage.get("job")) for version in list_versions(storage)}


def drivers_of_job(storage: Storage, job: str, entries: Sequence[Entry]) -> int:
    """Return how many drivers of a job have said within the last minute that they live."""
    journal, border = Journal(storage, job), time.time() - DEAD_SECONDS
    beats = [match[1] for entry in entries if entry.modified > border and (match := _BEAT.fullmatch(entry.key.rpartition("/")[2]))]
    return sum(journal.beat_of(driver) != ENDED for driver in beats)


def _status_of(storage: Storage, job: str, entries: Sequence[Entry], *, is_made: bool) -> JobStatus | None:
    names = {entry.key.rpartition("/")[2]: entry for entry in entries}
    if "plan.json" not in names:
        return None
    journal = Journal(storage, job)
    plan = journal.plan()
    units = [int(match[1]) for name in names if (match := _DONE.fullmatch(name))]
    with ThreadPoolExecutor(_READERS, "leyden-status") as threads:
        records = list(threads.map(journal.record, units))
    drivers = drivers_of_job(storage, job, entries)
    is_finished = is_made or "ended.json" in names
    about = plan.get("about", {})
    return JobStatus(
        job=job,
        function=_function_of(plan),
        operation=str(about.get("operation", "create")),
        state="finished" if is_finished else "running" if drivers else "unfinished",
        units=plan["units"] or (len(units) if is_finished else None),
        units_done=len(units),
        inputs=plan["inputs"] or (sum(record["inputs"] for record in records) if is_finished else None),
        inputs_done=sum(record["inputs"] for record in records),
        rows=sum(record["rows"] for record in records),
        failures=sum(len(record["failures"]) for record in records),
        drivers=drivers,
        began=names["plan.json"].modified,
    )


def _function_of(plan: Mapping[str, Any]) -> str:
    function = plan.get("about", {}).get("function", {})
    return f"{function.get('module', '?')}.{function.get('qualname', '?')}"
