"""`repair` makes a dataset of what a finished job has written, never of parts."""

from pathlib import Path
from typing import Any

import pytest

import leyden.data as ld
from leyden.core.errors import ConflictError, CorruptDataError
from leyden.data.errors import UnitFailedError
from leyden.data.format.filling import Filler


def write(folder: Path, fn: Any = lambda number: {"v": number}, **settings: Any) -> ld.Report:
    return ld.optimize(fn, range(20), str(folder), num_workers=0, fsync=False, chunk_bytes=1200, **settings)


def lose_manifests(folder: Path) -> None:
    for file in (*folder.glob("_leyden/manifest-*"), folder / "index.json"):
        file.unlink(missing_ok=True)


def chunks_of(folder: Path, unit: str, rows: range) -> None:
    filler = Filler(folder, job="a", unit=unit)
    for row in rows:
        filler.append({"v": row})
    filler.finish()


def test_an_unfinished_job_is_no_dataset(tmp_path: Path) -> None:
    def fails(number: int) -> Any:
        return {"v": 1 // (19 - number)}

    with pytest.raises(UnitFailedError):
        write(tmp_path, fails)
    with pytest.raises(ConflictError, match="has not finished"):
        ld.repair(str(tmp_path))
    assert not (tmp_path / "index.json").exists()


def test_a_finished_job_is_what_its_journal_names(tmp_path: Path) -> None:
    write(tmp_path)
    lose_manifests(tmp_path)
    job = next(tmp_path.glob("chunk-*.ldc")).name.split("-")[1]
    left = Filler(tmp_path, job=job, unit="3")  # of a driver that came too late
    left.append({"v": -1})
    left.finish()
    ld.repair(str(tmp_path))
    assert [row["v"] for row in ld.StreamingDataset(str(tmp_path))[:]] == list(range(20))


def test_a_chunk_that_the_journal_names_must_be_there(tmp_path: Path) -> None:
    write(tmp_path)
    lose_manifests(tmp_path)
    min(tmp_path.glob("chunk-*.ldc")).unlink()
    with pytest.raises(CorruptDataError, match=r"of job .* are gone"):
        ld.repair(str(tmp_path))


def test_without_a_journal_rows_are_never_taken_twice(tmp_path: Path) -> None:
    chunks_of(tmp_path, "10", range(5, 9))
    chunks_of(tmp_path, "2", range(5))
    assert ld.repair(str(tmp_path), dry_run=True).steps == ("write version 1 of 2 chunks with 9 rows, of job a",)
    chunks_of(tmp_path, "p0", range(9))  # packed, and killed before the sources went
    with pytest.raises(ConflictError, match="hold rows twice"):
        ld.repair(str(tmp_path))


def test_two_attempts_of_a_unit_are_rows_twice(tmp_path: Path) -> None:
    chunks_of(tmp_path, "0", range(3))
    chunks_of(tmp_path, "0", range(4))
    with pytest.raises(ConflictError, match="hold rows twice"):
        ld.repair(str(tmp_path))
