"""`map`: a function that writes files, for each input, in a job that can be killed and goes on; and `walk`."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from leyden.core.errors import ConfigError, ConflictError
from leyden.core.storage import is_url, open_storage
from leyden.data.config import Dir
from leyden.data.format.filling import FillSettings
from leyden.data.format.leaves import LeafRules
from leyden.data.write.arguments import (
    TOLD_CHARACTERS,
    TOLD_INPUTS,
    check_job,
    check_reader,
    checked_flags,
    checked_functions,
    checked_weights,
    listed_inputs,
    output_of,
    refuse_machines,
    warn_without_effect,
)
from leyden.data.write.described import describe
from leyden.data.write.engines.choose import DoUnits, engine_named
from leyden.data.write.engines.ranks import drivers_of
from leyden.data.write.engines.ray import RayEngine
from leyden.data.write.feeding import SpooledInputs
from leyden.data.write.fetching import checked_transfers, fetching_of, options_of
from leyden.data.write.files import move, refuse_overwriting
from leyden.data.write.finalise import Report
from leyden.data.write.job import check_several
from leyden.data.write.journal import Journal
from leyden.data.write.places import FilesPlace, files_place
from leyden.data.write.plan import Plan, cut_into_units, digest_of_inputs, job_id, work_digest
from leyden.data.write.readers import identity_of
from leyden.data.write.running import Running
from leyden.data.write.status import tell_of_others
from leyden.data.write.streams import Grouping, InputStream, job_inputs
from leyden.data.write.unit import Task


def map(
    fn: Callable[..., Any],
    inputs: Any,
    output_dir: "str | Dir",
    input_dir: "str | Dir | None" = None,
    weights: Sequence[float] | None = None,
    num_workers: int | None = None,
    fast_dev_run: bool | int = False,
    num_nodes: int | None = None,
    machine: Any = None,
    num_downloaders: int | None = None,
    num_uploaders: int | None = None,
    reorder_files: bool = True,
    error_when_not_empty: bool = False,
    reader: Any = None,
    batch_size: int | None = None,
    start_method: str | None = None,
    optimize_dns: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    keep_data_ordered: bool | None = None,
    broadcast_paths: bool = False,
    *,
    engine: "str | RayEngine" = "auto",
    on_error: str = "raise",
    retries: int = 2,
    timeout: float | None = None,
    memory_limit: int | str | None = None,
    resume: bool = True,
    progress: "bool | Callable[[int, int, int, int], None] | None" = None,
) -> Report:
    """Call a function that writes files for each input.

    `fn(input, output_dir)` writes below a private folder; what it wrote moves to the output when all inputs are done.

    Args:
        fn: Writes files; also gets `device` (of this worker, such as `cuda:1`) and `is_last` (of its unit) if it names them.
        inputs: A sequence, or anything that can be iterated.
        output_dir: A folder or URL.
        input_dir: A URL: strings of inputs below it are fetched, and `fn` gets local paths. By default so are URLs of object
            stores, if the first input holds one.
        weights: What each input costs.
        num_workers: Worker processes; all usable cores by default, 0: in this process.
        fast_dev_run: Only the first 10 inputs, or that many.
        num_nodes: Refused; start the script several times.
        machine: Refused.
        num_downloaders: Downloads in flight, in each process; 8 by default.
        num_uploaders: Uploads in flight, in each process; 8 by default.
        reorder_files: Without effect.
        error_when_not_empty: Whether an output that holds files is refused.
        reader: Makes of an input what `fn` gets.
        batch_size: Groups inputs into lists.
        start_method: `forkserver`, `spawn` or `fork`.
        optimize_dns: Without effect.
        storage_options: For the output's storage.
        keep_data_ordered: Without effect.
        broadcast_paths: Without effect.
        engine: `"auto"`, `"local"`, `"ranks"`, `"ray"` or `RayEngine(num_actors)`.
        on_error: `"raise"`, `"skip"` or `"quarantine"`.
        retries: How often an input may end its worker before it counts as failed.
        timeout: Seconds an input may take.
        memory_limit: Bytes a worker may hold.
        resume: False starts anew.
        progress: `None` or True: a line on a terminal; False: none; a function is called with inputs done, rows, bytes and failures.

    Raises:
        ConfigError: An argument is not accepted.
        ConflictError: Two inputs wrote one path, a file would take the place of an input, or the output holds files and may not.
        UnitFailedError: An input failed, and `on_error` is `"raise"`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> def write(number, output_dir):
        ...     _ = Path(output_dir, f"{number}.txt").write_text("x")
        >>> map(write, [1, 2], tempfile.mkdtemp(), num_workers=0).num_chunks
        2
    """
    start = time.monotonic()
    check_job(on_error=on_error, start_method=start_method, progress=progress)
    checked_flags(error_when_not_empty=error_when_not_empty, resume=resume)
    checked_functions(fn=fn)
    check_reader(reader)
    do_units = engine_named(engine)
    refuse_machines(num_nodes, machine)
    warn_without_effect(optimize_dns=optimize_dns, broadcast_paths=broadcast_paths)
    is_alone = drivers_of(engine) == 1
    output = output_of(output_dir, is_alone=is_alone)
    weights = checked_weights(weights, fast_dev_run)
    grouping = Grouping(reader=reader, batch_size=batch_size, fast_dev_run=fast_dev_run, weights=weights)
    found = job_inputs(inputs, None, grouping, may_stream=is_alone)
    if isinstance(found, InputStream):
        found = listed_inputs(SpooledInputs(found))  # what the job is depends on all of them
    fetching = fetching_of(input_dir, found[0] if reader is None else None, storage_options, num_downloaders)
    task = Task(
        job="", function=fn, output=output, options=options_of(output, storage_options, fetching), settings=FillSettings(),
        rules=LeafRules(), on_error=on_error, reader=reader, writes_files=True, fetching=fetching,
        uploads=checked_transfers("num_uploaders", num_uploaders),
    )  # fmt: skip
    running = Running(
        num_workers=num_workers, start_method=start_method, retries=retries, timeout=timeout, memory_limit=memory_limit, progress=progress
    )
    job = FilesJob(task=task, inputs=found, running=running, do_units=do_units, weights=weights, is_alone=is_alone)
    place = files_place(output, task.options, task.uploads)
    if error_when_not_empty and job.journal.ended() is None and not job.journal.exists() and place.holds_files():
        raise ConflictError(f"{output} is not empty. Choose another output_dir, or leave error_when_not_empty out.")
    try:
        report = job.run(resume=resume)
    finally:
        if isinstance(found, SpooledInputs):
            found.close()
    return report._replace(seconds=time.monotonic() - start)


def files_task(function: Callable[..., Any], output: str, options: Mapping[str, Any]) -> Task:
    """Return the task of a function that writes files, whose inputs are not fetched."""
    return Task(job="", function=function, output=output, options=options, settings=FillSettings(), rules=LeafRules(), writes_files=True)


@final
class FilesJob:
    """A job whose function writes files: what it is follows from the function, the inputs and the policy.

    Args:
        task: What all units have in common.
        inputs: All of them.
        running: How units are done.
        do_units: Who does them.
        weights: What each input costs.
        is_alone: Whether this is the only driver.
        operation: What the job is called.
    """

    def __init__(
        self,
        *,
        task: Task,
        inputs: Sequence[Any],
        running: Running,
        do_units: DoUnits,
        weights: Sequence[float] | None = None,
        is_alone: bool = True,
        operation: str = "map",
    ) -> None:
        digest = digest_of_inputs(inputs)
        policy = {"on_error": task.on_error, "weights": None if weights is None else list(weights), "reader": identity_of(task.reader)}
        function = describe(task.function)
        self._work = work_digest(operation, function, digest, policy)
        self._plan = Plan(job_id(self._work, 0), len(inputs), digest, cut_into_units(len(inputs), weights))
        self._task = dataclasses.replace(task, job=self._plan.job)
        self._inputs, self._running, self._do_units, self._is_alone = inputs, running, do_units, is_alone
        told = {"count": len(inputs), "digest": digest, "first": [f"{item!r}"[:TOLD_CHARACTERS] for item in inputs[:TOLD_INPUTS]]}
        self._about = {"function": function, "operation": operation, "inputs": told}
        self.journal = Journal(open_storage(task.output, task.options), self._plan.job)

    def run(self, *, resume: bool) -> Report:
        """Do what is left to do, and return what was done.

        Args:
            resume: False starts anew.
        """
        journal, plan, task = self.journal, self._plan, self._task
        if not self._is_alone:
            check_several(journal.storage, resume=resume)
        if not resume:
            journal.drop()
        ended = journal.ended()
        if ended is not None:
            return Report(**ended)
        tell_of_others(journal, self._about)
        journal.begin(plan, {"about": self._about, "work": self._work})
        self._do_units(journal, plan, self._inputs, task, self._running)
        refuse_overwriting(task.output, [journal.record(unit) for unit in range(plan.units)], self._inputs)
        return _finish(journal, plan, files_place(task.output, task.options, task.uploads), task.on_error)


def _finish(journal: Journal, plan: Plan, place: FilesPlace, on_error: str) -> Report:
    records = [journal.record(unit) for unit in range(plan.units)]
    files = move(place, records)
    failures = sum(len(record["failures"]) for record in records)
    report = Report(
        job=plan.job,
        version=None,
        num_rows=sum(record["rows"] for record in records),
        num_chunks=files,
        num_bytes=sum(record["bytes"] for record in records),
        skipped=failures if on_error == "skip" else 0,
        quarantined=failures if on_error == "quarantine" else 0,
        seconds=0.0,
    )
    journal.end(report._asdict())
    place.remove_temporary(plan.job)
    return report


def walk(
    folder: str | os.PathLike[str], max_workers: int | None = None, storage_options: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each folder below one, with the names of its folders and files, all in sorted order; of a bucket too.

    Args:
        folder: Where to begin: a folder, or a URL.
        max_workers: Without effect: a bucket is listed with one request per thousand names.
        storage_options: Of the URL.

    Raises:
        ConfigError: There is no such folder here.

    Example:
        >>> import tempfile
        >>> [files for _, _, files in walk(tempfile.mkdtemp())]
        [[]]
    """
    del max_workers
    if is_url(str(folder)):
        yield from _walk_storage(str(folder), storage_options)
        return
    if not Path(folder).is_dir():
        raise ConfigError(f"walk({str(folder)!r}): there is no such folder here.")
    for path, folders, files in os.walk(folder):
        folders.sort()
        yield path, list(folders), sorted(files)


def _walk_storage(url: str, options: Mapping[str, Any] | None) -> Iterator[tuple[str, list[str], list[str]]]:
    folders: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
    for entry in open_storage(url, options).list():
        *parents, name = entry.key.split("/")
        for depth, parent in enumerate(parents):
            above = "/".join(parents[:depth])
            folders.setdefault(above, (set(), []))[0].add(parent)
            folders.setdefault("/".join(parents[: depth + 1]), (set(), []))
        folders["/".join(parents)][1].append(name)
    for place in sorted(folders):
        inner, files = folders[place]
        yield f"{url.rstrip('/')}/{place}" if place else url, sorted(inner), sorted(files)
