"""The end of a job: all done records become one version of a dataset. Any driver may do it, several may do it at once."""

import dataclasses
import platform
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from leyden import __version__
from leyden.core.errors import ConfigError
from leyden.core.failpoints import failpoint
from leyden.core.storage import Storage
from leyden.data.errors import IncompleteJobError
from leyden.data.format import keys as keys_format
from leyden.data.format.chunk import ChunkEntry
from leyden.data.format.filling import FillSettings
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.schema import Schema, unify_all
from leyden.data.format.versions import commit, exists_error, list_versions, named_by_versions, open_manifest
from leyden.data.write.journal import Journal
from leyden.data.write.packing import packs_of
from leyden.data.write.plan import Plan

_EMPTY_TREE: Mapping[str, Any] = {"kind": "dict", "keys": [], "children": []}


class Report(NamedTuple):
    """What a job did.

    Args:
        job: Its id.
        version: The version of the dataset that it made; `None` for `map`.
        num_rows: Rows that it wrote.
        num_chunks: Chunk files, or files of `map`.
        num_bytes: Bytes of all files.
        skipped: Inputs that were left out because they failed.
        quarantined: Inputs that were left out and described below `_leyden/quarantine/`.
        seconds: That this call took.

    Example:
        >>> Report("a1", 1, 10, 1, 2048, 0, 0, 0.5).num_rows
        10
    """

    job: str
    version: int | None
    num_rows: int
    num_chunks: int
    num_bytes: int
    skipped: int
    quarantined: int
    seconds: float


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """What the version says beside its rows.

    Args:
        work: From `work_digest`.
        mode: `None`, `append` or `overwrite`.
        base: The newest version when the job began; 0 if there was none.
        settings: How it was filled.
        cipher: How it is encrypted.
        on_error: The policy.
        about: Function, arguments and inputs, for people.
    """

    work: str
    mode: str | None
    base: int
    settings: FillSettings
    cipher: Mapping[str, Any] | None
    on_error: str
    about: Mapping[str, Any]


class _Committed(Exception):  # noqa: N818 - a way out of `commit`, no fault
    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        self.manifest = manifest


def finalise(journal: Journal, plan: Plan, ending: Ending) -> Manifest:
    """Commit the version of a job whose units are all done; return it, also where another driver was faster.

    Raises:
        IncompleteJobError: Units are missing.
        SchemaError: Their rows do not go together.
        DatasetExistsError: Another job was faster, and no mode says what to do.
    """
    records = records_of(journal, plan)
    packed = packed_records(journal, records, ending.settings)
    schemas = [Schema.from_json(record["schema"]) for record in records if record["schema"] is not None]
    schema = unify_all(schemas) if schemas else None
    chunks = tuple(Chunk.of(ChunkEntry(**entry)) for record in packed for entry in record["chunks"])
    lineage = lineage_of(plan, ending, records)
    storage = journal.storage

    def make(newest: Manifest | None) -> Manifest:
        found = version_of_job(storage, journal.job, ending.base)
        if found is not None:
            raise _Committed(found)
        if newest is not None and ending.mode is None:
            raise exists_error(storage.url)
        version = (newest.version if newest else 0) + 1
        before = newest if ending.mode == "append" else None
        if before is not None:
            refuse_mixture(before, storage.url, is_tokens=ending.settings.token_dtype is not None)
        first_row = before.num_stored_rows if before else 0
        return Manifest(
            version=version,
            schema=_shared_schema(before, schema),
            chunks=(*before.chunks, *chunks) if before else chunks,
            settings=ending.settings.to_json(),
            operation=ending.mode or "create",
            parent=newest.version if newest else None,
            cipher=ending.cipher,
            keys=_keys(storage, before, records, first_row, version),
            lineage=lineage,
        )

    failpoint("data.finalise.before")
    try:
        manifest = commit(storage, make)
    except _Committed as already:
        manifest = already.manifest
    clean(journal, {chunk.name for chunk in chunks})
    return manifest


def refuse_mixture(before: Manifest, url: str, *, is_tokens: bool) -> None:
    """Refuse to append tokens to rows, or rows to tokens.

    Raises:
        ConfigError: They would be mixed.
    """
    if not before.chunks or (before.table.tokens is not None) == is_tokens:
        return
    told = "holds rows, and item_loader=TokensLoader() appends tokens" if is_tokens else "holds tokens, and rows are appended"
    fix = "Leave item_loader out" if is_tokens else "Pass item_loader=TokensLoader() as before"
    raise ConfigError(f"the dataset at {url} {told}: the two cannot be mixed. {fix}, or write elsewhere.")


def _shared_schema(before: Manifest | None, schema: Schema | None) -> Schema:
    if before is None or before.says_nothing:
        return schema or Schema(_EMPTY_TREE)
    return before.schema if schema is None else unify_all([before.schema, schema])


def version_of_job(storage: Storage, job: str, base: int) -> Manifest | None:
    """Return the version that a job has made since version `base`."""
    for version in reversed(list_versions(storage)):
        if version.version <= base:
            return None
        manifest = open_manifest(storage, version.version)
        if manifest.lineage.get("job") == job:
            return manifest
    return None


def report_of(manifest: Manifest, seconds: float) -> Report:
    """Return the report of a job by the version that it made."""
    said = manifest.lineage
    mine = [chunk for chunk in manifest.chunks if chunk.name.startswith(f"chunk-{said['job']}-")]
    return Report(
        job=str(said["job"]),
        version=manifest.version,
        num_rows=int(said["rows"]),
        num_chunks=len(mine),
        num_bytes=sum(chunk.bytes for chunk in mine),
        skipped=int(said["skipped"]),
        quarantined=int(said["quarantined"]),
        seconds=seconds,
    )


def records_of(journal: Journal, plan: Plan) -> list[Mapping[str, Any]]:
    """Return the records of all units.

    Raises:
        IncompleteJobError: Units are missing.
    """
    done = journal.progress().done
    missing = [unit for unit in range(plan.units) if unit not in done]
    if missing:
        raise IncompleteJobError(
            f"job {journal.job}: {len(missing)} of {plan.units} units are not done, the first is {missing[0]}. Run the same command again."
        )
    records = [journal.record(unit) for unit in range(plan.units)]
    if sum(record["inputs"] for record in records) != plan.inputs:
        raise IncompleteJobError(f"job {journal.job}: its units hold {sum(r['inputs'] for r in records):,} of {plan.inputs:,} inputs.")
    return records


def packed_records(
    journal: Journal, records: Sequence[Mapping[str, Any]], settings: FillSettings, *, must_pack: bool = False
) -> Sequence[Mapping[str, Any]]:
    """Return the records whose chunks become the dataset: those of the second phase, if there was one.

    Raises:
        IncompleteJobError: Packs are missing.
    """
    packs = packs_of(records, settings, must_pack=must_pack)
    if not packs:
        return records
    second = journal.packing()
    missing = [pack for pack in range(len(packs)) if pack not in second.progress().done]
    if missing:
        raise IncompleteJobError(f"job {journal.job}: {len(missing)} of {len(packs)} packs are not done. Run the same command again.")
    found = [second.record(pack) for pack in range(len(packs))]
    rows, before = (sum(record["rows"] for record in each) for each in (found, records))
    if rows != before:
        raise IncompleteJobError(f"job {journal.job}: packing has {rows:,} of {before:,} rows. Run the same command with resume=False.")
    return found


def lineage_of(plan: Plan, ending: Ending, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a version says of where it comes from."""
    failures = sum(len(record["failures"]) for record in records)
    return {
        "job": plan.job,
        "work": ending.work,
        "created_at": time.time(),
        "leyden": __version__,
        "python": platform.python_version(),
        "units": plan.units,
        "inputs_read": plan.inputs,
        "rows": sum(record["rows"] for record in records),
        "skipped": failures if ending.on_error == "skip" else 0,
        "quarantined": failures if ending.on_error == "quarantine" else 0,
        **ending.about,
    }


def _keys(
    storage: Storage, before: Manifest | None, records: Sequence[Mapping[str, Any]], first_row: int, version: int
) -> dict[str, Any] | None:
    """Write the index of row keys, those of the version before included; `None` if no rows have any."""
    found: list[tuple[str | int, int]] = []
    if before is not None and before.keys is not None:
        name = str(before.keys["name"])
        found += keys_format.KeyIndex(storage.read(name), name).items()
    row = first_row
    for record in records:
        found += [(key, row + index) for index, key in enumerate(record.get("keys") or ())]
        row += record["rows"]
    if not found:
        return None
    data = keys_format.to_bytes([key for key, _ in found], np.array([row for _, row in found], np.int64))
    name = keys_format.name_of(version, data)  # writers that race for a version never share a file
    storage.write(name, data)
    return {"name": name, "rows": len(found)}


def clean_up_after(storage: Storage, manifest: Manifest) -> None:
    """Remove what the job of a version has left, if it was killed between the commit and the end."""
    journal = Journal(storage, str(manifest.lineage["job"]))
    if journal.exists():
        clean(journal, {chunk.name for chunk in manifest.chunks})


def clean(journal: Journal, named: set[str]) -> None:
    """Remove the job's files that no record and no version names: of drivers that died, or came too late."""
    mine = re.compile(rf"(\.chunk-{journal.job}-.*\.tmp|chunk-{journal.job}-.*\.ldc)")
    left = [entry.key for entry in journal.storage.list() if mine.fullmatch(entry.key) and entry.key not in named]
    kept = named_by_versions(journal.storage) if left else frozenset()
    for key in left:
        if key not in kept:
            journal.storage.delete(key)
