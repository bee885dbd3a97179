"""Saving while an exception ends the run: never in its way, and never waiting for ranks that do not come.

A save is a common act of all ranks. One rank's exception is no agreement, so ranks first tell each other through the
run's key-value store that they are here; if one is missing after some seconds, nobody saves.
"""

import logging
from collections.abc import Callable
from typing import Any

from leyden.core.clock import Clock, SystemClock

PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.02
_logger = logging.getLogger(__name__)


def save_in_failed_run(trainer: Any, name: str, exception: BaseException, save: Callable[[], None], *, clock: Clock | None = None) -> None:
    """Call `save` if all ranks got here; an error of it is logged, and never hides the exception.

    Args:
        trainer: The trainer.
        name: Tells this save from others at the same step.
        exception: What ended the run.
        save: Saves, on all ranks.
        clock: Tells how long to wait.
    """
    what = f"{type(exception).__name__} at step {trainer.global_step}"
    try:
        if not _all_arrive(trainer.strategy, f"failed/{name}/{trainer.global_step}", clock or SystemClock()):
            _logger.error("%s: no checkpoint was saved, because not all ranks failed together, and a save needs all of them.", what)
            return
        save()
    except Exception:
        _logger.exception("%s: a checkpoint could not be saved.", what)
    else:
        if trainer.is_global_zero:
            _logger.info("%s: a checkpoint was saved.", what)


def _all_arrive(strategy: Any, name: str, clock: Clock) -> bool:
    if strategy.world_size == 1:
        return True
    store = strategy.group.store
    store.set(f"{name}/{strategy.global_rank}", "1")
    keys = [f"{name}/{rank}" for rank in range(strategy.world_size)]
    deadline = clock.monotonic() + PATIENCE_SECONDS
    while not (are_here := store.check(keys)) and clock.monotonic() < deadline:
        clock.sleep(_POLL_SECONDS)
    # Whoever decides first decides for all: the last rank may arrive just when the first one gives up.
    return store.compare_set(f"{name}/verdict", "", "yes" if are_here else "no") == b"yes"
