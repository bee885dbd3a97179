"""Progress and the job's checkpoint: when they are due, and what is reported."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from leyden.core.job import current_job
from leyden.trainer.engine.clock import Clock
from leyden.trainer.engine.stop import KEEP
from leyden.trainer.loops.job_record import JobRecord, progress
from tests.support.fake_clock import FakeClock
from tests.support.jobs import job_environ


def run_of(tmp_path: Path, *, max_epochs: int = 2, max_steps: int = -1, length: float = 10, fn: str = "fit") -> Any:
    """Return as much of a run as is looked at."""
    return SimpleNamespace(
        job=current_job(job_environ(tmp_path)),
        job_checkpoint=tmp_path / "last.ckpt",
        clock=Clock(),
        config=SimpleNamespace(limits=SimpleNamespace(max_epochs=max_epochs, max_steps=max_steps)),
        train=SimpleNamespace(num_batches=[length]),
        val=SimpleNamespace(num_batches=[4, 4]),
        state=SimpleNamespace(fn=fn, eval=None),
    )


def lines(tmp_path: Path) -> list[float]:
    path = tmp_path / "attempts" / "1" / "metrics.jsonl"
    return [json.loads(line)["value"] for line in path.read_text().splitlines()] if path.exists() else []


def test_progress_is_reported_once_a_second_where_it_changed(tmp_path: Path) -> None:
    run, clock = run_of(tmp_path), FakeClock()
    record = JobRecord(run, clock=clock)
    for batch in (0, 5, 5, 10):
        run.clock.batch = batch
        record()
        record()
        clock.advance(1.0)
    assert lines(tmp_path) == [0.0, 0.25, 0.5]


def test_the_checkpoint_is_asked_for_once_each_period_counted_from_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_TRAINER_JOB_CHECKPOINT_SECONDS", "100")
    clock = FakeClock()
    record = JobRecord(run_of(tmp_path), clock=clock)
    assert record() is None
    clock.advance(100)
    wanted = record()
    assert wanted is not None
    assert wanted.kind == KEEP
    clock.advance(500)
    assert record() is None  # the first one is not written yet
    record.saved()
    clock.advance(99)
    assert record() is None
    clock.advance(1)
    assert record() == wanted


@pytest.mark.parametrize("keeps", [True, False])
def test_no_checkpoint_is_asked_for_with_0_seconds_or_outside_of_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool) -> None:
    monkeypatch.setenv("LEYDEN_TRAINER_JOB_CHECKPOINT_SECONDS", "0" if keeps else "1")
    run, clock = run_of(tmp_path), FakeClock()
    run.job_checkpoint = run.job_checkpoint if keeps else None
    record = JobRecord(run, clock=clock)
    clock.advance(10_000)
    assert record() is None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 0.25),
        ({"max_steps": 10, "max_epochs": -1}, 0.5),
        ({"max_steps": 100}, 0.25),
        ({"max_epochs": -1}, None),
        ({"length": float("inf")}, 0.0),
    ],
)
def test_progress_is_the_part_of_whichever_limit_comes_first(tmp_path: Path, limits: dict[str, Any], expected: float | None) -> None:
    run = run_of(tmp_path, **limits)
    run.clock.batch = run.clock.step = 5
    assert progress(run) == expected


def test_an_evaluation_counts_the_batches_of_all_loaders(tmp_path: Path) -> None:
    run = run_of(tmp_path, fn="validate")
    assert progress(run) is None
    run.state.eval = SimpleNamespace(loader=1, batch=2)
    assert progress(run) == 0.75


def test_a_full_disk_ends_reports_and_no_run(tmp_path: Path) -> None:
    run, clock = run_of(tmp_path), FakeClock()
    run.job.metrics_file.mkdir()
    record = JobRecord(run, clock=clock)
    record()
    run.job.metrics_file.rmdir()
    run.clock.batch = 5
    clock.advance(10)
    record()
    assert lines(tmp_path) == []
