"""`GarbageCollection`: Python's collector runs when all ranks have time for it, not in the middle of a step.

A collection on one rank holds up all others at their next collective; with many ranks there is always one. So automatic
collection is off during fit, and every rank collects after the same step.
"""

import gc
from typing import Any

from leyden.core.errors import ConfigError
from leyden.trainer.core.callback import Callback


class GarbageCollection(Callback):
    """Collects garbage every `every_n_steps` steps, on all ranks at the same one, and at no other time.

    What is alive after the first collection (the modules, the loaders) is set aside for the rest of the run: later
    collections do not walk through it again.

    Args:
        every_n_steps: After how many stepping batches.

    Raises:
        ConfigError: It is below 1.

    Example:
        >>> GarbageCollection(every_n_steps=500).every_n_steps
        500
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"every_n_steps={every_n_steps} should be at least 1; without this callback Python collects when it likes.")
        self.every_n_steps = every_n_steps
        self._next = 0
        self._was_enabled = False
        self._has_frozen = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()
        gc.collect()
        self._next = self._following(trainer.run.clock.log_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        done = trainer.run.clock.log_step
        if done < self._next:
            return
        self._next = self._following(done)
        gc.collect(1)
        if not self._has_frozen:
            gc.freeze()
            self._has_frozen = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._restore()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def _following(self, step: int) -> int:
        return (step // self.every_n_steps + 1) * self.every_n_steps

    def _restore(self) -> None:
        if self._has_frozen:
            gc.unfreeze()
        if self._was_enabled:
            gc.enable()
        self._has_frozen = self._was_enabled = False
