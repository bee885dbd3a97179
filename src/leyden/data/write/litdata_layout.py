"""A job's version in LitData's layout: numbered files, and an `index.json` that names them.

LitData knows no versions, and its index has no place for what a job is. So a commit creates `_leyden/litdata-<version>.json`,
which only one of several writers can, with the whole index and the job's lineage, and then copies the index to its place. An
index that another program has written since counts as what is there. Names of files are reserved in the same way, so that
two jobs never write one file.
"""

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, final

from leyden.core.errors import ConfigError, ConflictError, NotFoundError
from leyden.core.failpoints import failpoint
from leyden.core.storage import Storage
from leyden.data.errors import SchemaError
from leyden.data.format import canonical
from leyden.data.format.cipher import AesGcm, DatasetCiphers
from leyden.data.format.filling import FillSettings
from leyden.data.format.hashing import digest128
from leyden.data.format.versions import INDEX, exists_error
from leyden.data.interop.litdata_index import DEFAULT_FRAME_ROWS
from leyden.data.interop.litdata_write import LitdataSettings
from leyden.data.write.finalise import Ending, Report, clean, lineage_of, packed_records, records_of
from leyden.data.write.journal import Journal
from leyden.data.write.layouts import LITDATA_MARK, Layout, end_journal, is_key_of, warn_of_append
from leyden.data.write.plan import Plan

_RANK = re.compile(r"chunk-(\d+)-\d+(\..+)?\.bin")
_RESERVED = "_leyden/litdata-ranks-"
_ALIKE = ("data_format", "data_spec", "compression", "compression_level", "encryption", "item_loader")
_ATTEMPTS = 20


@final
class LitdataLayout(Layout):
    """LitData's layout."""

    def newest(self) -> int:
        marks = self._marks()
        return marks[-1] if marks else int(self._index() is not None)

    def made_already(self, work: str, mode: str | None) -> Report | None:
        start = time.monotonic()
        marks = self._marks()
        if not marks or self._is_foreign(marks):
            return None
        found = self._made_already([self._mark(version) for version in reversed(marks)], work, mode)
        if found is None:
            return None
        self._write_index(self._mark(marks[-1])["index"])
        journal = Journal(self.storage, str(found["lineage"]["job"]))
        if journal.exists():
            clean(journal, set())
        report = _report_of(found, time.monotonic() - start)
        end_journal(self.storage, report)
        return report

    def _made_already(self, newest_first: Sequence[Mapping[str, Any]], work: str, mode: str | None) -> Mapping[str, Any] | None:
        for mark in newest_first:
            if mark["lineage"]["work"] == work:
                if mode == "append":
                    warn_of_append(mark["version"])
                return mark
            if mode == "overwrite" or mark["operation"] != "append":
                return None
        return None

    def times_made(self, work: str) -> int:
        return sum(self._mark(version)["lineage"]["work"] == work for version in self._marks())

    def cipher(self, encryption: Any, mode: str | None) -> Mapping[str, Any] | None:
        if isinstance(encryption, AesGcm):
            raise ConfigError("encryption=AesGcm(…) is not known to LitData's layout: it takes FernetEncryption or RSAEncryption.")
        known = self._cipher() if mode == "append" else None  # levels are compared when it commits
        return None if encryption is None else DatasetCiphers(encryption, known).entry

    def has_key(self, encryption: Any) -> bool:
        return is_key_of(encryption, self._cipher())

    def _cipher(self) -> Mapping[str, Any] | None:
        """Return what checks the key of the newest version; `None` of one that LitData, or nobody, has encrypted."""
        marks = self._marks()
        found: Mapping[str, Any] | None = self._mark(marks[-1]).get("cipher") if marks and not self._is_foreign(marks) else None
        return found

    def finish(self, journal: Journal, plan: Plan, ending: Ending) -> Report:
        records = records_of(journal, plan)
        parts = [record["litdata"] for record in packed_records(journal, records, ending.settings, must_pack=True)]
        failpoint("data.finalise.before")
        mark = self._commit(plan, ending, parts, lineage_of(plan, ending, records))
        clean(journal, set())
        return _report_of(mark, 0.0)

    def _commit(self, plan: Plan, ending: Ending, parts: Sequence[Mapping[str, Any]], lineage: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_ATTEMPTS):
            marks = self._marks()
            done = self._done_by(plan.job, [version for version in marks if version > ending.base])
            if done is not None:
                self._write_index(self._mark(marks[-1])["index"])
                return done
            mark = self._next(marks, ending, parts, lineage)
            failpoint("data.commit.before")
            with contextlib.suppress(ConflictError):
                self.storage.create(_name_of(mark["version"]), canonical.dumps(mark))
                failpoint("data.commit.between")
                self._write_index(mark["index"])
                failpoint("data.commit.after")
                return mark
        raise ConflictError(f"{self.storage.url}: other writers committed {_ATTEMPTS} times while this one tried. Run it again.")

    def _next(
        self, marks: Sequence[int], ending: Ending, parts: Sequence[Mapping[str, Any]], lineage: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        before = self._content(marks)
        if before is not None and ending.mode is None:
            raise exists_error(self.storage.url)
        base = before if ending.mode == "append" else None
        mine = [entry for part in parts for entry in part["chunks"]]
        kept = base["chunks"] if base is not None else []
        return {
            "version": max(marks[-1] if marks else 0, int(before is not None)) + 1,
            "operation": ending.mode or "create",
            "lineage": dict(lineage),
            "before": None if before is None else digest128(canonical.dumps(before)),
            "chunks": mine,
            "cipher": ending.cipher,
            "index": {"chunks": [*kept, *mine], "config": _config(parts, base), "updated_at": str(time.time())},
        }

    # -- what is there ---------------------------------------------------------------------------------------------

    def _marks(self) -> list[int]:
        name = re.compile(re.escape(LITDATA_MARK) + r"(\d{8})\.json")
        return sorted(int(match[1]) for entry in self.storage.list("_leyden") if (match := name.fullmatch(entry.key)))

    def _mark(self, version: int) -> Mapping[str, Any]:
        return _read(self.storage, _name_of(version))

    def _done_by(self, job: str, versions: Sequence[int]) -> Mapping[str, Any] | None:
        return next((mark for mark in map(self._mark, versions) if mark["lineage"]["job"] == job), None)

    def _index(self) -> Mapping[str, Any] | None:
        with contextlib.suppress(NotFoundError):
            return _read(self.storage, INDEX)
        return None

    def _content(self, marks: Sequence[int]) -> Mapping[str, Any] | None:
        """Return the index that the next version stands on."""
        if not marks or self._is_foreign(marks):
            return self._index()
        index: Mapping[str, Any] = self._mark(marks[-1])["index"]
        return index

    def _is_foreign(self, marks: Sequence[int]) -> bool:
        """Return whether another program has written the index since our last commit."""
        index, last = self._index(), self._mark(marks[-1])
        if index is None or index == last["index"]:
            return False
        return digest128(canonical.dumps(index)) != last["before"]  # a writer killed before it wrote the index left this one

    def _write_index(self, index: Mapping[str, Any]) -> None:
        if self._index() != index:
            self.storage.write(INDEX, canonical.dumps(index))


def litdata_settings(filling: FillSettings, level: Any, frame_rows: Any, encryption: Any, *, allow_pickle: bool) -> LitdataSettings:
    """Return how LitData's chunks are filled.

    Raises:
        ConfigError: LitData's layout does not take an argument.
    """
    if level not in (None, "batch", "sample", "chunk"):
        raise ConfigError(f"compression_level={level!r} is not accepted: it takes 'batch', 'sample' or 'chunk'.")
    if frame_rows is not None and (isinstance(frame_rows, bool) or not isinstance(frame_rows, int) or frame_rows < 1):
        raise ConfigError(f"compression_batch_size={frame_rows!r} is not accepted: it takes a whole number ≥ 1.")
    is_tokens = filling.token_dtype is not None
    return LitdataSettings(
        chunk_bytes=filling.chunk_bytes,
        chunk_size=filling.chunk_size,
        compression="zstd:1" if filling.compression == "auto" else filling.compression,
        level=level or ("chunk" if is_tokens or encryption is not None else "batch"),
        frame_rows=frame_rows or DEFAULT_FRAME_ROWS,
        encryption=encryption,
        is_tokens=is_tokens,
        allow_pickle=allow_pickle,
    )


def reserve_ranks(journal: Journal, packs: int) -> int:
    """Return the first of the ranks that a job's packs name their files with; no other job has them, or had them.

    Args:
        journal: The job's.
        packs: How many ranks it needs.
    """
    storage = journal.storage
    while True:
        taken = sorted(entry.key for entry in storage.list("_leyden") if entry.key.startswith(_RESERVED))
        reserved = [_read(storage, key) for key in taken]
        for entry in reserved:
            if entry["job"] == journal.job and entry["packs"] == packs:
                return int(entry["first"])
        first = max([entry["first"] + entry["packs"] for entry in reserved] + [_free_rank(storage)])
        with contextlib.suppress(ConflictError):
            entry = {"job": journal.job, "first": first, "packs": packs}
            storage.create(f"{_RESERVED}{len(taken):08d}.json", canonical.dumps(entry))
            return first


def _free_rank(storage: Storage) -> int:
    """Return the first rank that no file of the index has."""
    try:
        names = [str(entry["filename"]) for entry in _read(storage, INDEX)["chunks"]]
    except NotFoundError:
        return 0
    return max((int(match[1]) + 1 for name in names if (match := _RANK.fullmatch(name))), default=0)


def _config(parts: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what the index says of all chunks.

    Raises:
        SchemaError: The rows are not built like those that they are appended to.
        ConfigError: There are no rows at all.
    """
    if not parts:
        if base is None:
            raise ConfigError("no input gave a row, and LitData's layout holds no dataset without rows.")
        return dict(base["config"])
    config: Mapping[str, Any] = parts[0]["config"]
    for other in [part["config"] for part in parts] + ([] if base is None else [base["config"]]):
        for field in _ALIKE:
            if other.get(field) != config.get(field):
                raise SchemaError(
                    f"rows with {field}={config.get(field)!r} cannot join rows with {other.get(field)!r} in LitData's layout: "
                    "write both with the same structure and the same arguments."
                )
    return config


def _report_of(mark: Mapping[str, Any], seconds: float) -> Report:
    said, mine = mark["lineage"], mark["chunks"]
    return Report(
        job=str(said["job"]),
        version=int(mark["version"]),
        num_rows=int(said["rows"]),
        num_chunks=len(mine),
        num_bytes=sum(entry["chunk_bytes"] for entry in mine),
        skipped=int(said["skipped"]),
        quarantined=int(said["quarantined"]),
        seconds=seconds,
    )


def _name_of(version: int) -> str:
    return f"{LITDATA_MARK}{version:08d}.json"


def _read(storage: Storage, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = canonical.loads(storage.read(name), f"{storage.url}/{name}")
    return found
