"""`repair`: makes a dataset of ours openable again, from what is left of it.

The newest manifest restores `index.json`. If all manifests are lost, a new one is made of the chunks' footers: those of one
finished job, in the order of its units. Its journal says that it has finished and which chunks are its own; where that is gone,
names decide. Deletions, keys, added columns and lineage are in none of them: they are lost.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyden.core.errors import ConflictError, CorruptDataError, NotFoundError
from leyden.core.storage import Storage, open_storage
from leyden.data.format.chunk import SUFFIX, ChunkEntry, read_footer, read_header
from leyden.data.format.hashing import digest128
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.schema import Schema, unify_all
from leyden.data.format.versions import commit, find_manifest, repair_index
from leyden.data.tools.convert_parts import FACTS
from leyden.data.write.journal import JOBS, Journal

_CHUNK = re.compile(rf"chunk-[^/]*{re.escape(SUFFIX)}")  # files of added columns are called otherwise


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What `repair` did, or would do.

    Args:
        url: The place.
        steps: What was done, in order; empty if nothing was needed.
        assumed: What could not be known.
        is_dry_run: Whether it was only said.
    """

    url: str
    steps: tuple[str, ...]
    assumed: tuple[str, ...]
    is_dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"url": self.url, "steps": list(self.steps), "assumed": list(self.assumed), "dry_run": self.is_dry_run}


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A chunk and its footer."""

    entry: ChunkEntry
    is_encrypted: bool
    footer: Mapping[str, Any]


def repair(url: str, *, job: str | None = None, dry_run: bool = False, storage_options: Mapping[str, Any] | None = None) -> Repaired:
    """Restore what can be restored of a dataset's index and manifest; chunks are never touched.

    Args:
        url: The folder or URL.
        job: Whose chunks make the dataset, if those of several jobs lie there and no manifest says so.
        dry_run: Say what would be done.
        storage_options: Of the storage.

    Raises:
        NotFoundError: There is neither a manifest nor a chunk.
        ConflictError: Chunks of several jobs lie there, and `job` does not say which; or the job has not finished.
        CorruptDataError: A chunk has no readable footer, or is gone.
    """
    storage = open_storage(url, dict(storage_options or {}))
    if _has_manifest(storage):
        steps = ("copy the newest manifest to index.json",) if _is_index_stale(storage) else ()
        if steps and not dry_run:
            repair_index(storage)
        return Repaired(url=url, steps=steps, assumed=(), is_dry_run=dry_run)
    chunks = _finished(storage, _of_one_job([_read(storage, name) for name in _chunk_names(storage)], job, url), url)
    manifest = _rebuilt(chunks)
    steps = (f"write version 1 of {len(chunks):,} chunks with {manifest.num_rows:,} rows, of job {chunks[0].footer['job']}",)
    assumed = (
        "the job was finished: no chunk is missing",
        "rows are in the order of its units",
        "no row was deleted, no key index and no lineage is kept",
    )
    if not dry_run:
        commit(storage, lambda _: manifest)
    return Repaired(url=url, steps=steps, assumed=assumed, is_dry_run=dry_run)


def _has_manifest(storage: Storage) -> bool:
    return any(entry.key.rpartition("/")[2].startswith("manifest-") for entry in storage.list("_leyden"))


def _is_index_stale(storage: Storage) -> bool:
    newest = find_manifest(storage)
    try:
        return newest is None or storage.read("index.json") != newest.to_bytes()
    except NotFoundError:
        return True


def _chunk_names(storage: Storage) -> list[str]:
    return sorted(entry.key for entry in storage.list() if _CHUNK.fullmatch(entry.key))


def _read(storage: Storage, name: str) -> _Found:
    data = storage.read(name)
    footer = read_footer(data, name)
    blocks = [(rows, stored) for rows, _, stored, _ in footer["blocks"]]
    entry = ChunkEntry(name, len(data), footer["rows"], digest128(data), blocks, footer["tokens"], footer.get("key"))
    return _Found(entry=entry, is_encrypted=read_header(data, name).is_encrypted, footer=footer)


def _of_one_job(found: Sequence[_Found], job: str | None, url: str) -> list[_Found]:
    jobs: dict[str, list[_Found]] = defaultdict(list)
    for each in found:
        jobs[each.footer["job"]].append(each)
    if not jobs:
        raise NotFoundError(f"{url} holds no manifest and no chunks: there is nothing to repair.")
    if job is None and len(jobs) > 1:
        counts = ", ".join(f"{name} ({len(chunks)})" for name, chunks in jobs.items())
        raise ConflictError(f"{url} holds chunks of several jobs: {counts}. Say whose make the dataset with job='{next(iter(jobs))}'.")
    wanted = next(iter(jobs)) if job is None else job
    if wanted not in jobs:
        raise NotFoundError(f"{url} holds no chunks of job {wanted!r}; there are {', '.join(jobs)}.")
    return jobs[wanted]


def _finished(storage: Storage, found: Sequence[_Found], url: str) -> list[_Found]:
    """Return the chunks that a finished job has made its dataset of, in order: no sources of packed ones, nothing twice.

    Raises:
        ConflictError: It has not finished, or nothing says which of its chunks are the dataset's.
        CorruptDataError: A chunk that its journal names is gone.
    """
    job = str(found[0].footer["job"])
    _refuse_unfinished(storage, job, url)
    names = _recorded(Journal(storage, job))
    there = {each.entry.name: each for each in found}
    if not names:
        return _by_names(found, job, url)
    missing = [name for name in names if name not in there]
    if missing:
        raise CorruptDataError(f"{url}: {len(missing)} of {len(names)} chunks of job {job} are gone, the first is {missing[0]}.")
    return [there[name] for name in names]


def _refuse_unfinished(storage: Storage, job: str, url: str) -> None:
    begun = {entry.key.split("/")[2] for entry in storage.list(JOBS) if entry.key.endswith("/plan.json")}
    for each in sorted(begun):
        journal = Journal(storage, each)
        if journal.ended() is None and (each == job or journal.plan().get("about", {}).get("operation") == "convert"):
            raise ConflictError(
                f"job {each} at {url} has not finished: what it has written so far is no dataset. Run the same command again, it goes "
                f"on; or remove it: `leyden data jobs {url} --drop {each}`."
            )
    if next(iter(storage.list(FACTS)), None) is not None:
        raise ConflictError(f"a conversion into {url} has not finished. Run the same convert(…) again: it goes on.")


def _recorded(journal: Journal) -> list[str]:
    """Return the chunks that the records of a job name, of its second phase if there was one; none if the journal is gone."""
    for phase in (journal.packing(), journal):
        done = sorted(phase.progress().done)
        if done:
            return [chunk["name"] for unit in done for chunk in phase.record(unit)["chunks"]]
    return []


def _by_names(found: Sequence[_Found], job: str, url: str) -> list[_Found]:
    """Return chunks in the order of units, by what their footers say."""
    packed = [each for each in found if str(each.footer["unit"]).startswith("p")]
    chosen = packed or list(found)
    places = [_place_of(each) for each in chosen]
    if len(packed) not in {0, len(found)} or len(set(places)) < len(places):
        raise ConflictError(
            f"{url}: {len(found)} chunks of job {job} hold rows twice: it was killed before it had finished, and its journal is gone. "
            "Run its command again in a new folder."
        )
    return sorted(chosen, key=_place_of)


def _place_of(found: _Found) -> tuple[int, int]:
    return int(str(found.footer["unit"]).removeprefix("p")), int(found.footer["sequence"])


def _rebuilt(chunks: Sequence[_Found]) -> Manifest:
    if any(each.is_encrypted for each in chunks):
        raise CorruptDataError("the chunks are encrypted, and how was in the manifest alone: it cannot be rebuilt.")
    schema = unify_all([Schema.from_json(each.footer["schema"]) for each in chunks])
    entries = tuple(Chunk.of(each.entry) for each in chunks)
    return Manifest(version=1, schema=schema, chunks=entries, settings={}, operation="repair", lineage={"job": chunks[0].footer["job"]})
