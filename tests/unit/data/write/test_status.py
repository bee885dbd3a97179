"""What is told of jobs: how far they are, which of them differ from the one that begins, and when their journals go."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from leyden import data as ld
from leyden.core.errors import ConflictError, NotFoundError
from leyden.core.failpoints import InjectedError, armed
from leyden.data.write.status import KEPT_SECONDS, differences


def row(number: int) -> dict[str, int]:
    return {"id": number}


def sometimes(number: int) -> dict[str, int]:
    if number % 10 == 3:
        raise ValueError("three")
    return {"id": number}


def copy(number: int, output_dir: str) -> None:
    Path(output_dir, f"{number}.txt").touch()


def optimize(folder: Path, inputs: Any = range(100), function: Any = row, **options: Any) -> ld.Report:
    return ld.optimize(function, inputs, str(folder), **{"num_workers": 0, "fsync": False, **options})


def stop(folder: Path, step: str, **options: Any) -> None:
    with armed(f"{step}=raise"), pytest.raises((InjectedError, RuntimeError)):
        optimize(folder, **options)


def age(folder: Path, seconds: float) -> None:
    for path in (folder / "_leyden/jobs").rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_jobs_are_told_the_newest_first(tmp_path: Path) -> None:
    assert ld.status(tmp_path) == []
    stop(tmp_path, "data.unit.written:31", function=sometimes, on_error="skip")
    age(tmp_path, 100)
    (found,) = ld.status(tmp_path)
    assert (found.state, found.operation, found.units, found.units_done, found.inputs) == ("unfinished", "create", 64, 30, 100)
    assert found.function == f"{__name__}.sometimes"
    assert found.rows + found.failures == found.inputs_done
    assert found.failures == 5
    with pytest.warns(UserWarning, match=f"job {found.job} of .*sometimes is unfinished at .*: 30 of 64 units are done"):
        optimize(tmp_path)
    first, second = ld.status(tmp_path)
    assert (first.state, first.units_done, first.rows) == ("finished", 64, 100)
    assert second.job == found.job


def test_what_differs_is_named(tmp_path: Path) -> None:
    stop(tmp_path, "data.unit.written:31", chunk_size=10)
    with pytest.warns(
        UserWarning, match=r"it differs in arguments\.settings\.chunk_bytes .*arguments\.settings\.chunk_size \(10, here None\)"
    ):
        optimize(tmp_path)
    assert differences({"a": [1]}, {"a": [1]}) == []


def test_a_job_that_somebody_works_on_is_no_news(tmp_path: Path) -> None:
    stop(tmp_path, "data.unit.written:31", chunk_size=10)
    (found,) = ld.status(tmp_path)
    assert not found.drivers, "its driver has said that it leaves"
    (tmp_path / f"_leyden/jobs/{found.job}/beat-driver-x.json").write_text('{"count":3}\n')
    assert ld.status(tmp_path)[0].state == "running"
    with pytest.raises(ConflictError, match="is being worked on"):
        ld.drop_job(tmp_path, found.job)
    optimize(tmp_path)


def test_jobs_of_files_and_streams(tmp_path: Path) -> None:
    ld.map(copy, range(5), str(tmp_path / "a"), num_workers=0)
    assert [(each.operation, each.state, each.inputs) for each in ld.status(tmp_path / "a")] == [("map", "finished", 5)]
    stop(tmp_path / "b", "data.inputs.kept:2", inputs=iter(range(1000)))
    (found,) = ld.status(tmp_path / "b")
    assert (found.units, found.inputs, found.inputs_done, found.state) == (None, None, 512, "unfinished")
    optimize(tmp_path / "b", iter(range(1000)))
    assert [(each.units, each.inputs, each.state) for each in ld.status(tmp_path / "b")] == [(2, 1000, "finished")]


def test_a_dropped_job_leaves_nothing_and_versions_stay(tmp_path: Path) -> None:
    optimize(tmp_path)
    stop(tmp_path, "data.unit.written:9", inputs=range(50), mode="append")
    job = next(each.job for each in ld.status(tmp_path) if each.is_unfinished)
    with pytest.raises(NotFoundError, match=f"did you mean '{job}'|no job"):
        ld.drop_job(tmp_path, job[:-1])
    assert ld.drop_job(tmp_path, job)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and job in str(path.relative_to(tmp_path))]
    assert len(ld.StreamingDataset(str(tmp_path))) == 100
    assert ld.drop_job(tmp_path, ld.status(tmp_path)[0].job), "the journal of a finished job goes alone"
    assert len(ld.StreamingDataset(str(tmp_path))[:]) == 100


def test_journals_go_a_week_after_the_end(tmp_path: Path) -> None:
    optimize(tmp_path)
    folder = tmp_path / "_leyden/jobs" / ld.status(tmp_path)[0].job
    kept = sorted({path.name.partition("-")[0] for path in folder.iterdir()})
    assert kept == ["done", "ended.json", "pack", "plan.json", "schema.json"], "leases, beats and inputs go at the end"
    age(tmp_path, KEPT_SECONDS - 60)
    optimize(tmp_path, range(3), mode="append")
    assert list(folder.iterdir())
    age(tmp_path, KEPT_SECONDS + 60)
    optimize(tmp_path, range(4), mode="append")
    assert not list(folder.iterdir())
    assert len(ld.StreamingDataset(str(tmp_path))) == 107


def test_a_job_killed_after_its_commit_ends_when_it_is_run_again(tmp_path: Path) -> None:
    stop(tmp_path, "data.commit.between")
    assert ld.status(tmp_path)[0].state == "finished"
    optimize(tmp_path)
    assert (tmp_path / "_leyden/jobs" / ld.status(tmp_path)[0].job / "ended.json").exists()
