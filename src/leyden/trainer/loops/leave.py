"""Leaving a machine in good order: save, flush, and tell whoever starts the job again."""

import time
from pathlib import Path
from typing import NoReturn

from leyden.core.failpoints import failpoint
from leyden.core.job import EXIT_PREEMPTED
from leyden.fabric.rank_zero import rank_zero_info
from leyden.trainer.checkpoint import content, paths
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.stop import SIGTERMException

REQUEUE_PATIENCE_SECONDS = 600.0


def job_checkpoint(run: Run) -> Path:
    """Return where a job's own checkpoint lies: all its attempts see it."""
    return run.job.step_dir / "trainer" / "last.ckpt"


def leave_job(run: Run, reason: str) -> NoReturn:
    """Save the job's checkpoint and exit with the status that asks to be started again.

    Raises:
        SystemExit: Always; status 75.
    """
    if run.state.fn == "fit":
        failpoint("stop.before_save")
        content.save(run, job_checkpoint(run))
    flush(run)
    rank_zero_info("Left the job (%s); its checkpoint is %s.", reason, job_checkpoint(run))
    raise SystemExit(EXIT_PREEMPTED)


def requeue(run: Run) -> None:
    """Save Slurm's checkpoint, ask for the job to be queued again, and wait for Slurm to end this process.

    Raises:
        SIGTERMException: Slurm took longer than ten minutes.
    """
    path = paths.next_hpc(run.root_dir)
    if run.state.fn == "fit":
        failpoint("stop.before_save")
        content.save(run, path)
    flush(run)
    environment = run.strategy.cluster_environment
    is_queued = run.strategy.global_rank != 0 or environment.requeue()
    rank_zero_info("Saved %s; %s.", path, "the job is queued again" if is_queued else "the job could not be queued again")
    if not is_queued:
        return
    deadline = time.monotonic() + REQUEUE_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
    raise SIGTERMException


def flush(run: Run) -> None:
    """Bring loggers' rows to disk."""
    for logger in run.trainer.loggers:
        logger.save()
