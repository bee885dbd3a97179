"""What a decision at the boundary means: all ranks are at the same batch here."""

from typing import Any

from leyden.fabric.launch.agreement import Decision
from leyden.fabric.rank_zero import rank_zero_info
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.stop import KEEP, PREEMPT, REQUEUE, STOP, TERMINATE, SIGTERMException, reason_of
from leyden.trainer.loops.leave import keep_for_job, leave_job, requeue


def act(run: Run, decision: Decision) -> None:
    """Do what was agreed on; anything that is not about stopping waits for whoever `take`s it.

    Raises:
        SIGTERMException: SIGTERM outside of a job.
        SystemExit: The job must leave its machine; its checkpoint is written.
    """
    if decision.kind == STOP:
        rank_zero_info("Training stops: %s.", reason_of(decision))
        run.state.should_stop = True
    elif decision.kind == TERMINATE:
        run.received_sigterm = True
        raise SIGTERMException
    elif decision.kind == PREEMPT:
        leave_job(run, decision.payload)
    elif decision.kind == KEEP:
        keep_for_job(run)
    elif decision.kind == REQUEUE:
        requeue(run)
    else:
        run.agreed.add(decision.kind)


def tick(run: Run) -> Any:
    """Ask the boundary after a batch of evaluation inside fit."""
    run.clock.ticks += 1
    if (decision := run.boundary()) is not None:
        act(run, decision)
