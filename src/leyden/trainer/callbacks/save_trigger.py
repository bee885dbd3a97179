"""`SaveTrigger`: when a saver by steps, batches, samples or time is due. Bookkeeping only; it saves nothing.

Time is rank 0's: it asks for the save, and all ranks take it at the same batch. Whatever fires waits for a batch in which
an optimizer stepped, so that no save falls into accumulated gradients, and, on request, for the validation after that.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, final

from leyden.core.errors import ConfigError
from leyden.trainer.engine.every import Every, Unit


@final
class SaveTrigger:
    """Where a trigger stands.

    Args:
        every: How often; `None` is never due.
        kind: The name of this trigger among the requests of a run.
    """

    def __init__(self, every: Every | None, kind: str) -> None:
        self.every = every
        self.kind = kind
        self.is_due = False  # fired, and waiting for a step
        self.awaits_validation = False  # fired, and waiting for a metric
        self._count = 0  # at the latest batch
        self._step = 0
        self._seconds = 0.0  # when the latest firing ended
        self._is_requested = False

    def start(self, trainer: Any) -> None:
        """Begin, or go on, with a run; positions of another, longer run are forgotten.

        Raises:
            ConfigError: A fraction of an epoch, and nobody knows how long one is.
        """
        if self.every is None:
            return
        if self.every.unit is Unit.EPOCH and math.isinf(trainer.num_training_batches):
            raise ConfigError(
                f"every={str(self.every)!r} is a part of an epoch, and the training loader has no length. "
                "Count steps or time instead: every='1000step', every='30min'."
            )
        if self._step == 0 or self._step > trainer.global_step:
            self.skip_to(trainer)

    def skip_to(self, trainer: Any) -> None:
        """Count from where the run stands now."""
        self._step = trainer.global_step
        self._count = self._counted(trainer, of_batch=0, in_epoch=trainer.run.clock.batch)
        self._seconds = trainer.run.clock.seconds
        self.is_due = self.awaits_validation = self._is_requested = False

    def ended(self, trainer: Any, batch_idx: int) -> bool:
        """Take note of a training batch that ended; return whether to save after it."""
        has_stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if self._fires(trainer, batch_idx):
            self.is_due = True
        return self.is_due and has_stepped

    def wait_for_validation(self) -> None:
        """Put the save off until the next validation has ended."""
        self.is_due, self.awaits_validation = False, True

    def saving(self, trainer: Any) -> None:
        """Take note that a save begins: what is saved with it says that it happened."""
        self.is_due = self.awaits_validation = False
        self._seconds = trainer.run.clock.seconds

    def saved(self, trainer: Any) -> None:
        """Take note that a save ended: the next one is due that long after."""
        self._seconds = trainer.run.clock.seconds

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain values."""
        return {
            "count": self._count,
            "step": self._step,
            "seconds": self._seconds,
            "is_due": self.is_due,
            "awaits_validation": self.awaits_validation,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a position."""
        self._count, self._step, self._seconds = int(state["count"]), int(state["step"]), float(state["seconds"])
        self.is_due, self.awaits_validation = bool(state["is_due"]), bool(state["awaits_validation"])
        self._is_requested = False

    def _fires(self, trainer: Any, batch_idx: int) -> bool:
        every = self.every
        if every is None:
            return False
        if every.is_time:
            return self._is_time(trainer, every)
        before, self._count = self._count, self._counted(trainer, of_batch=1, in_epoch=batch_idx + 1)
        if every.unit is Unit.EPOCH:
            length = trainer.num_training_batches
            return every.fires(Fraction(before, length), Fraction(self._count, length))
        return every.fires(before, self._count)

    def _is_time(self, trainer: Any, every: Every) -> bool:
        run = trainer.run
        waits = self.is_due or self.awaits_validation or self._is_requested
        if trainer.is_global_zero and not waits and every.has_passed(self._seconds, run.clock.seconds):
            run.request(self.kind)
            self._is_requested = True
        if not run.take(self.kind):
            return False
        self._is_requested = False
        return True

    def _counted(self, trainer: Any, *, of_batch: int, in_epoch: int) -> int:
        """Return the count; a batch that is about to end counts as `of_batch`, and `in_epoch` are those of the epoch."""
        clock = trainer.run.clock
        match self.every.unit if self.every is not None else None:
            case Unit.STEP:
                return trainer.global_step
            case Unit.BATCH:
                return clock.batches + of_batch
            case Unit.EPOCH:
                return clock.epoch * trainer.num_training_batches + in_epoch
            case Unit.SAMPLE:
                return clock.samples
            case Unit.TOKEN:
                return clock.tokens
            case _:
                return 0
