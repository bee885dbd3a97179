"""When things are due inside an epoch: validation, rows, the end. Integers worked out beforehand, compared once per batch."""

import math

from leyden.fabric.rank_zero import rank_zero_info
from leyden.trainer.engine.run import Run

NEVER = -1


def plan_validation(run: Run, first: int) -> None:
    """Set `run.next_validation`: the number of the batch of this epoch after which validation is due next; -1 for none.

    Args:
        run: The run.
        first: The number of the first batch that counts.

    The last batch of an epoch of unknown length is found by `is_validation_due` when it comes.
    """
    run.next_validation = NEVER
    if not validates_this_epoch(run):
        return
    every = run.validation_batches  # int, or inf: at the end of the epoch
    if every is None or math.isinf(every):
        return
    offset = run.clock.batches - run.clock.batch if run.config.cadence.check_val_every_n_epoch is None else 0
    every = int(every)
    run.next_validation = (first + offset) // every * every + every - 1 - offset


def validates_this_epoch(run: Run) -> bool:
    """Return whether validation may run in this epoch at all."""
    if not run.trainer.enable_validation:
        return False
    every = run.config.cadence.check_val_every_n_epoch
    return every is None or (run.clock.epoch + 1) % every == 0


def is_validation_due(run: Run, index: int) -> bool:
    """Return whether validation runs after batch `index`."""
    if index == run.next_validation:
        return True
    if not validates_this_epoch(run):
        return False
    if run.state.should_stop and may_stop(run):
        return True
    cadence = run.config.cadence
    if cadence.validation_seconds is not None:
        return time_is_up(run)
    if cadence.validation_steps is not None:
        return run.state.stepped and run.clock.step % cadence.validation_steps == 0
    return run.state.last_batch and run.validation_batches == math.inf


def time_is_up(run: Run) -> bool:
    """Return whether the wall clock asks for validation; with several ranks, whether they agreed that it does."""
    seconds = run.config.cadence.validation_seconds
    if run.take("validate"):
        return True
    is_due = run.clock.seconds - run.state.triggers.get("validation", 0.0) >= seconds
    if is_due and run.strategy.world_size > 1:
        if run.strategy.global_rank == 0:
            run.request("validate")
        return False
    return is_due


def plan_rows(run: Run) -> None:
    """Set `run.next_row`: the `log_step` at which the next training row is due; -1 for none."""
    every = 1 if run.fast_dev_run else run.config.cadence.log_every_n_steps
    step = run.clock.log_step
    run.next_row = NEVER if not every else step // every * every + every - 1


def may_stop(run: Run) -> bool:
    """Return whether `min_epochs` and `min_steps` allow a requested stop."""
    limits, clock = run.config.limits, run.clock
    enough_epochs = not limits.min_epochs or clock.epoch >= limits.min_epochs
    enough_steps = not limits.min_steps or clock.step >= limits.min_steps
    return bool(enough_epochs and enough_steps)


def is_finished(run: Run) -> bool:
    """Return whether fit is over, and say why once."""
    limits, clock = run.config.limits, run.clock
    if steps_are_up(run):
        rank_zero_info(f"`Trainer.fit` stopped: `max_steps={limits.max_steps!r}` reached.")
        return True
    if limits.max_epochs != -1 and clock.epoch >= limits.max_epochs:
        rank_zero_info(f"`Trainer.fit` stopped: `max_epochs={limits.max_epochs!r}` reached.")
        return True
    return run.state.should_stop and stops_now(run)


def steps_are_up(run: Run) -> bool:
    """Return whether `max_steps` is reached."""
    maximum = run.config.limits.max_steps
    return maximum != -1 and run.clock.step >= maximum


def stops_now(run: Run) -> bool:
    """Return whether a requested stop may happen; if not, say what it waits for."""
    if may_stop(run):
        return True
    limits = run.config.limits
    if run.stopping != "told":
        run.stopping = "told"
        rank_zero_info(
            f"Trainer was signaled to stop but the required `min_epochs={limits.min_epochs!r}` or `min_steps={limits.min_steps!r}` "
            "has not been met. Training will continue..."
        )
    return False


def plan_rows_after(run: Run) -> None:
    """Set `run.next_row` after a row was written at this `log_step`."""
    every = 1 if run.fast_dev_run else run.config.cadence.log_every_n_steps
    step = run.clock.log_step + 1
    run.next_row = NEVER if not every else step // every * every + every - 1
