"""Leaving a machine in good order: save, flush, and tell whoever starts the job again."""

import time
from typing import NoReturn

from leyden.core.job import EXIT_PREEMPTED
from leyden.fabric.checkpoint import wait_for_saves
from leyden.fabric.rank_zero import rank_zero_info
from leyden.trainer.checkpoint import content, paths
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.stop import SIGTERMException

REQUEUE_PATIENCE_SECONDS = 600.0


def keep_for_job(run: Run) -> None:
    """Save what the job's next attempt goes on from."""
    if run.job_checkpoint is not None:
        content.save(run, run.job_checkpoint)
        run.job_record.saved()


def leave_job(run: Run, reason: str) -> NoReturn:
    """Save the job's checkpoint and exit with the status that asks to be started again.

    Raises:
        SystemExit: Always; status 75.
    """
    if run.job_checkpoint is not None:
        content.save(run, run.job_checkpoint)
        wait_for_saves()
        rank_zero_info("Left the job (%s); its checkpoint is %s.", reason, run.job_checkpoint)
    flush(run)
    raise SystemExit(EXIT_PREEMPTED)


def requeue(run: Run) -> None:
    """Save Slurm's checkpoint, ask for the job to be queued again, and wait for Slurm to end this process.

    Raises:
        SIGTERMException: Slurm took longer than ten minutes.
    """
    strategy = run.strategy
    path = strategy.broadcast(paths.next_hpc(run.root_dir))
    if run.state.fn == "fit":
        content.save(run, path)
        wait_for_saves()  # a plug-in may write in the background, and we are about to be killed
    flush(run)
    # All ranks go on, or none: what Slurm answered is rank 0's.
    is_queued = strategy.broadcast(strategy.cluster_environment.requeue() if strategy.is_global_zero else False)
    rank_zero_info("Saved %s; %s.", path, "the job is queued again" if is_queued else "the job could not be queued again")
    if not is_queued:
        return
    run.boundary.close()  # Slurm may end us by SIGTERM now
    deadline = time.monotonic() + REQUEUE_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
    raise SIGTERMException


def flush(run: Run) -> None:
    """Bring loggers' rows to disk."""
    for logger in run.trainer.loggers:
        logger.save()
