"""Where requests come from, and what they ask for: signals and a job's stop file."""

import json
import signal
from pathlib import Path

import pytest

from leyden.core.job import Job, current_job
from leyden.fabric.launch.agreement import Decision
from leyden.fabric.launch.signals import SignalFlags
from leyden.trainer.engine.stop import PREEMPT, REQUEUE, STOP, TERMINATE, Interrupted, LocalBoundary, SIGTERMException, Sources
from tests.support.jobs import job_environ


@pytest.fixture
def job(tmp_path: Path) -> Job:
    found = current_job(job_environ(tmp_path))
    assert found is not None
    return found


def told(job: Job, reason: str) -> None:
    (job.attempt_dir / "stop.json").write_text(json.dumps({"format": 1, "reason": reason}))


def received(number: int, job: Job | None = None, requeue_signal: int | None = None) -> Sources:
    flags = SignalFlags(())
    flags.received = number
    return Sources(flags, job, requeue_signal)


def test_sigterm_outside_of_jobs_terminates_once() -> None:
    sources = received(signal.SIGTERM)
    assert sources.from_signal() == Decision(TERMINATE, "SIGTERM")
    assert sources.received_sigterm
    assert sources.from_signal() is None


def test_a_bare_sigterm_in_a_job_preempts(job: Job) -> None:
    assert received(signal.SIGTERM, job).from_signal() == Decision(PREEMPT, "SIGTERM")


@pytest.mark.parametrize(
    ("reason", "kind"), [("preempted", PREEMPT), ("timeout", PREEMPT), ("peer_failed", PREEMPT), ("pruned", STOP), ("user", STOP)]
)
def test_the_reason_in_the_file_decides_and_file_and_signal_are_one_request(job: Job, reason: str, kind: str) -> None:
    told(job, reason)
    by_file = received(signal.SIGTERM, job)
    by_file._flags.received = None
    assert by_file.from_job() == Decision(kind, reason)
    assert by_file.from_job() is None
    by_signal = received(signal.SIGTERM, job)
    assert by_signal.from_signal() == Decision(kind, reason)
    assert by_signal.from_job() is None


def test_half_a_file_is_no_request(job: Job) -> None:
    (job.attempt_dir / "stop.json").write_text('{"format": 1, "rea')
    assert Sources(SignalFlags(()), job, None).from_job() is None


def test_where_slurm_queues_again_its_signal_asks_and_sigterm_does_not() -> None:
    assert received(signal.SIGUSR1, requeue_signal=signal.SIGUSR1).from_signal() == Decision(REQUEUE)
    assert received(signal.SIGTERM, requeue_signal=signal.SIGUSR1).from_signal() is None


def test_one_rank_acts_at_the_next_boundary_and_on_the_same_wish_once() -> None:
    boundary = LocalBoundary(())
    boundary.request("stop", "enough")
    boundary.request("stop", "enough")
    assert [boundary(), boundary()] == [Decision("stop", "enough"), None]
    boundary.close()


def test_exceptions_carry_the_status_of_the_process() -> None:
    assert SIGTERMException().code == 143
    assert Interrupted().code == 130
    assert isinstance(Interrupted(), KeyboardInterrupt)
