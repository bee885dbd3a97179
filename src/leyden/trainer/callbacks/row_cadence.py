"""When training's rows are written: for callbacks that add to them, or that read what a row reads anyway."""

from typing import Any


def row_is_due(trainer: Any) -> bool:
    """Return whether the running batch ends with a row of training's step values, if it steps."""
    every = trainer.log_every_n_steps
    if not every:
        return False
    return (trainer.run.clock.log_step + 1) % every == 0 or bool(trainer.fast_dev_run) or trainer.should_stop
