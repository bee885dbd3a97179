"""What the n-th fit and the n-th default logger of an attempt find of the attempt before."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from leyden.core.job import Job, current_job
from leyden.trainer.trainer.jobs import KeptVersion, next_checkpoint
from tests.support.jobs import job_environ


@pytest.fixture
def job(tmp_path: Path) -> Job:
    found = current_job(job_environ(tmp_path))
    assert found is not None
    return found


def test_the_nth_fit_of_each_attempt_has_the_same_checkpoint(job: Job) -> None:
    names = ["last.ckpt", "last-1.ckpt", "last-2.ckpt"]
    for attempt in (1, 2):
        assert [next_checkpoint(replace(job, attempt=attempt)).name for _ in names] == names
    assert next_checkpoint(job).parent == job.step_dir / "trainer"


def test_a_default_logger_keeps_its_version_over_attempts(job: Job) -> None:
    first, second = KeptVersion(job), KeptVersion(job)
    assert first.take() is None
    first.keep([SimpleNamespace(version=3)])
    assert second.take() is None
    second.keep([SimpleNamespace(version=4)])
    later = replace(job, attempt=2)
    assert [KeptVersion(later).take() for _ in range(3)] == [3, 4, None]


def test_nothing_is_kept_of_other_loggers_and_outside_of_jobs(job: Job) -> None:
    own = KeptVersion(job)
    own.keep([SimpleNamespace(version=3)])  # no default logger was made
    assert KeptVersion(None).take() is None
    assert not (job.step_dir / "trainer").exists()


def test_a_damaged_note_is_no_version(job: Job) -> None:
    (job.step_dir / "trainer").mkdir()
    (job.step_dir / "trainer" / "version.json").write_text("{")
    assert KeptVersion(job).take() is None
