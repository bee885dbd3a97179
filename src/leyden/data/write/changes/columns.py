"""`add_columns`: new columns for all rows, in a job that can be killed and goes on; chunks are not touched.

Each chunk gets a file beside it, with the same rows in the same blocks. A leaf of the schema says which of a chunk's files
it is in; a chunk that has no such file, because its rows came or were written anew later, holds the leaf itself.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

from leyden.core.errors import ConfigError, ConflictError
from leyden.core.failpoints import failpoint
from leyden.core.storage import Storage
from leyden.data.format.chunk import ChunkEntry
from leyden.data.format.filling import FillSettings
from leyden.data.format.leaves import LeafRules, Serializer
from leyden.data.format.manifest import Chunk, ColumnFile, Manifest
from leyden.data.format.schema import Schema, unify_all
from leyden.data.format.versions import commit, files_of, honours_conditions, list_versions, named_by_versions, open_manifest, past_of
from leyden.data.write.arguments import check_job
from leyden.data.write.changes.column_work import PREFIX, ColumnWork, run_column_unit, write_dead_file
from leyden.data.write.changes.history import DatasetVersion, facts_of
from leyden.data.write.changes.target import Place, Target, next_of, open_target
from leyden.data.write.described import describe
from leyden.data.write.engines.choose import DoUnits, engine_named
from leyden.data.write.engines.ranks import drivers_of
from leyden.data.write.journal import Journal
from leyden.data.write.plan import MOST_UNITS, Plan, digest_of_inputs, job_id, work_digest
from leyden.data.write.running import Running
from leyden.data.write.unit import Task

OPERATION, _ATTEMPTS = "columns", 20


def add_columns(  # noqa: PLR0913 - what is read, how it is run and where, flat as in `optimize`
    input_dir: Place,
    fn: Callable[[Any], Mapping[str, Any]],
    *,
    columns: Sequence[str] | None = None,
    output: Literal["torch", "numpy"] = "torch",
    num_workers: int | None = None,
    encryption: Any = None,
    serializers: Mapping[str, Serializer] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    engine: Any = "auto",
    start_method: str | None = None,
    retries: int = 2,
    timeout: float | None = None,
    memory_limit: int | str | None = None,
    resume: bool = True,
    fsync: bool = True,
    allow_pickle: bool = False,
    progress: Callable[[int, int, int, int], None] | None = None,
) -> DatasetVersion:
    """Give every row new columns: commit a version that has them. What is there is neither read in whole nor written again.

    The same call, run again, goes on where it was killed, or returns the version that it has made. Rows that are appended
    meanwhile get the columns too; later ones must bring them.

    Args:
        input_dir: A folder or URL; its samples are dicts.
        fn: Returns a dict of new columns of a sample, the same keys each time.
        columns: Which leaves `fn` gets, by name: reading less is faster.
        output: Whether arrays are torch tensors or numpy arrays to `fn`.
        num_workers: Worker processes, a chunk each at a time; all usable cores by default, 0: in this process.
        encryption: What decrypts and encrypts, of an encrypted dataset.
        serializers: The user's own kinds of leaves.
        storage_options: Of the storage.
        engine: `"auto"`, `"local"`, `"ranks"`, `"ray"` or a `RayEngine`.
        start_method: `forkserver`, `spawn` or `fork`.
        retries: How often a chunk may end its worker before that counts as a failure.
        timeout: Seconds a chunk may take.
        memory_limit: Bytes a worker may hold.
        resume: False starts anew.
        fsync: Whether files are on the disk before a chunk counts as done.
        allow_pickle: Whether objects of no known kind are pickled, and those that are there are loaded.
        progress: Called with chunks done, rows, bytes and failures.

    Returns:
        The new version.

    Raises:
        NotFoundError: There is no dataset.
        ConfigError: Its samples are no dicts, or an argument is not accepted.
        SchemaError: `fn` returned no dict, columns that are there already, or other ones for other rows.
        UnitFailedError: `fn` failed.

    Example:
        >>> import tempfile
        >>> from leyden.data import StreamingDataset, optimize
        >>> folder = tempfile.mkdtemp()
        >>> _ = optimize(lambda text: {"text": text}, ["a", "bcd"], folder, num_workers=0)
        >>> add_columns(folder, lambda sample: {"length": len(sample["text"])}, num_workers=0).operation
        'columns'
        >>> StreamingDataset(folder)[1]
        {'text': 'bcd', 'length': 3}
    """
    check_job(on_error="raise", start_method=start_method)
    target = open_target(input_dir, storage_options)
    _check_tree(target.manifest.schema, target.url)
    bytes_matter = {"columns": None if columns is None else list(columns), "output": output, "allow_pickle": allow_pickle}
    work = work_digest(OPERATION, describe(fn), "", bytes_matter)
    if resume and (done := _found(past_of(target.storage), work)) is not None:
        return facts_of(done)
    if drivers_of(engine) > 1:
        _check_several(target.storage, resume=resume)
    running = Running(
        num_workers=num_workers, start_method=start_method, retries=retries, timeout=timeout, memory_limit=memory_limit, progress=progress
    )
    task = Task(
        job="",
        function=fn,
        output=target.url,
        options=target.options,
        settings=FillSettings(),
        rules=LeafRules(allow_pickle=allow_pickle, serializers=dict(serializers or {})),
        encryption=encryption,
        durable=fsync,
        run=run_column_unit,
    )
    reading = {"columns": columns, "output": output, "trust": allow_pickle, "serializers": task.rules.serializers}
    return facts_of(_Adding(target, task, running, reading, engine_named(engine), work, resume=resume).run())


class _Behind(Exception):  # noqa: N818 - a way out of `commit`, no fault
    """There are rows without the new columns."""


class _Done(Exception):  # noqa: N818 - the same
    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        self.manifest = manifest


@final
class _Adding:
    """Jobs until every chunk of the newest version has its file, and the commit.

    Args:
        target: The dataset as it was found.
        task: What all units have in common.
        running: How they are done.
        reading: What of a sample the function gets.
        do_units: Who does them.
        work: What is done.
        resume: Whether an unfinished job is gone on with.
    """

    def __init__(
        self, target: Target, task: Task, running: Running, reading: Mapping[str, Any], do_units: DoUnits, work: str, *, resume: bool
    ) -> None:
        self._target, self._task, self._running, self._reading = target, task, running, reading
        self._do_units, self._work, self._resume, self._base = do_units, work, resume, target.manifest.version
        self._files: dict[str, ColumnFile] = {}  # by the chunk's name
        self._schema: Schema | None = None
        self._jobs: list[str] = []

    def run(self) -> Manifest:
        """Return the manifest with the new columns, of this driver or another.

        Raises:
            ConflictError: Others were faster too often.
        """
        for _ in range(_ATTEMPTS):
            missing = [number for number, chunk in enumerate(self._target.manifest.chunks) if chunk.name not in self._files]
            if missing:
                self._make(missing)
            failpoint("data.columns.made")
            try:
                manifest = commit(self._target.storage, self._next)
            except _Done as done:
                manifest = done.manifest
            except _Behind:
                self._target = open_target(self._target.url, self._target.options)
                continue
            self._clean(manifest)
            return manifest
        raise ConflictError(
            f"{self._target.url}: rows were added {_ATTEMPTS} times while columns were made. Run it again when that is over."
        )

    def _make(self, missing: Sequence[int]) -> None:
        """Make the files of some chunks in a job."""
        target = self._target
        manifest, storage = target.manifest, target.storage
        digest = digest_of_inputs([manifest.chunks[number].name for number in missing])
        older = sum(open_manifest(storage, found.version).lineage.get("work") == self._work for found in list_versions(storage))
        plan = Plan(job_id(f"{self._work}-{digest}", older), len(missing), digest, _borders(len(missing)))
        journal = Journal(storage, plan.job)
        if not self._resume:
            journal.drop()
        about = {"function": describe(self._task.function), "operation": OPERATION}
        journal.begin(plan, {"about": about, "work": self._work, "base": manifest.version})
        function = ColumnWork(self._task.function, target.url, target.options, manifest.version, self._reading)
        task = dataclasses.replace(self._task, job=plan.job, function=function, cipher=manifest.cipher)
        self._jobs.append(plan.job)
        self._do_units(journal, plan, list(missing), task, self._running)
        self._take([journal.record(unit) for unit in range(plan.units)], task, manifest)

    def _take(self, records: Sequence[Mapping[str, Any]], task: Task, manifest: Manifest) -> None:
        """Take what units have made: their files, and the schema of all."""
        schemas = [Schema.from_json(record["schema"]) for record in records if record["schema"] is not None]
        known = schemas if self._schema is None else [self._schema, *schemas]
        self._schema = unify_all(known, lambda index: f"unit {index}") if known else None
        dead = list[int]()
        for record in records:
            for number, entry in record["files"].items():
                if entry is None:
                    dead.append(int(number))
                else:
                    self._files[manifest.chunks[int(number)].name] = _column_file(ChunkEntry(**entry))
        if dead and self._schema is None:
            raise ConfigError(f"{self._target.url} has no rows that are left, so nothing says what fn returns.")
        for number in dead:
            entry = write_dead_file(task, manifest, number, len(self._schema.leaves) if self._schema else 0, self._schema)
            self._files[manifest.chunks[number].name] = _column_file(entry)

    def _next(self, newest: Manifest | None) -> Manifest:
        """Return the next version.

        Raises:
            _Done: Another driver has committed it.
            _Behind: There are rows without the new columns.
            ConflictError: Another writer has added columns of the same names.
        """
        if newest is None:
            raise ConflictError(f"the dataset at {self._target.url} is gone.")
        done = _found((each for each in past_of(self._target.storage) if each.version > self._base), self._work)
        if done is not None:
            raise _Done(done)
        if any(chunk.name not in self._files for chunk in newest.chunks):
            raise _Behind
        if self._schema is None:
            raise ConfigError(f"{self._target.url} has no rows, so nothing says what fn returns.")
        number = 1 + max((leaf.file for leaf in newest.schema.leaves if leaf.file is not None), default=-1)
        schema = _with_columns(newest.schema, self._schema, number)
        chunks = tuple(dataclasses.replace(chunk, columns=_placed(chunk, number, self._files[chunk.name])) for chunk in newest.chunks)
        about = {
            "work": self._work,
            "function": describe(self._task.function),
            "columns": [leaf.name for leaf in self._schema.leaves],
            "parents": [{"version": newest.version, "digest": newest.digest}],
        }
        return next_of(newest, OPERATION, about, schema=schema, chunks=chunks)

    def _clean(self, manifest: Manifest) -> None:
        """Remove what drivers that died, or came too late, have left."""
        storage, named = self._target.storage, set(files_of(manifest))
        for job in self._jobs:
            Journal(storage, job).end({"version": manifest.version})
        mine = re.compile(rf"(\.chunk|{PREFIX})-({'|'.join(self._jobs) or 'none'})-.*")
        left = [entry.key for entry in storage.list() if mine.fullmatch(entry.key) and entry.key not in named]
        kept = named_by_versions(storage) if left else frozenset()  # an older version may be of a job of the same id
        for key in left:
            if key not in kept:
                storage.delete(key)


def _found(manifests: Any, work: str) -> Manifest | None:
    """Return the version that the same call has made, unless others took the place of all rows since."""
    for manifest in manifests:
        if manifest.lineage.get("work") == work:
            found: Manifest = manifest
            return found
        if manifest.operation in {"create", "overwrite", "merge"}:
            return None
    return None


def _check_tree(schema: Schema, url: str) -> None:
    kind = schema.tree["kind"]
    if kind != "dict":
        raise ConfigError(
            f"samples of {url} are {'single values' if kind == 'leaf' else f'of kind {kind}'}: columns are added to dicts only. "
            "Write the dataset anew with optimize, and return a dict."
        )


def _check_several(storage: Storage, *, resume: bool) -> None:
    if not honours_conditions(storage):
        raise ConfigError(f"{storage.url}: this store ignores conditional writes: run one driver with engine='local'.")
    if not resume:
        raise ConfigError("resume=False is for one driver: the others would drop what it does. Leave it out.")


def _borders(count: int) -> tuple[int, ...]:
    """Return where units begin, and the end: a chunk each, unless there are too many."""
    units = min(count, MOST_UNITS)
    return tuple(index * count // units for index in range(units + 1)) if units else (0,)


def _column_file(entry: ChunkEntry) -> ColumnFile:
    chunk = Chunk.of(entry)
    return ColumnFile(chunk.name, chunk.bytes, chunk.digest, chunk.blocks, chunk.key)


def _placed(chunk: Chunk, number: int, file: ColumnFile) -> tuple[ColumnFile | None, ...]:
    return (*chunk.columns, *[None] * (number - len(chunk.columns)), file)


def _with_columns(schema: Schema, added: Schema, number: int) -> Schema:
    """Return the schema of rows with the new columns, which are in file `number`.

    Raises:
        ConflictError: A name is there already.
    """
    new = added.with_leaves(lambda leaf: dataclasses.replace(leaf, file=number)).tree
    there = set(map(str, schema.tree["keys"])) & set(map(str, new["keys"]))
    if there:
        raise ConflictError(f"another writer has added a column {min(there)!r} meanwhile. Nothing was committed: return another name.")
    return Schema({**schema.tree, "keys": [*schema.tree["keys"], *new["keys"]], "children": [*schema.tree["children"], *new["children"]]})
