"""`GradientAccumulationScheduler`: how many batches a step takes, by epoch."""

from typing import Any

from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError
from leyden.trainer.core.callback import Callback


class ManualAccumulationError(ConfigError, RuntimeError):
    """The module steps by hand, so nobody accumulates for it."""


class GradientAccumulationScheduler(Callback):
    """Accumulates gradients over a number of batches that changes with the epoch.

    Args:
        scheduling: Epoch, from 0 → how many batches a step takes from that epoch on. Before the first one it is 1.

    Raises:
        ConfigTypeError: It is empty, or no dictionary.
        ConfigError: A negative epoch, a factor below 1, or a number that is no `int`.

    Example:
        >>> scheduler = GradientAccumulationScheduler({2: 4, 5: 8})
        >>> [scheduler.get_accumulate_grad_batches(epoch) for epoch in (0, 2, 4, 9)]
        [1, 4, 4, 8]
    """

    def __init__(self, scheduling: dict[int, int]) -> None:
        if not isinstance(scheduling, dict) or not scheduling:
            raise ConfigTypeError(f"scheduling={scheduling!r}: expected a dictionary of epoch → batches of a step, such as {{0: 1, 4: 2}}.")
        if bad := [epoch for epoch in scheduling if not _is_count(epoch, 0)]:
            raise ConfigError(f"Epoch should be an int greater than or equal to 0; scheduling has {bad[0]!r}.")
        if bad := [factor for factor in scheduling.values() if not _is_count(factor, 1)]:
            raise ConfigError(f"Accumulation factor should be an int greater than 0; scheduling has {bad[0]!r}.")
        self.scheduling: dict[int, int] = {0: 1, **scheduling}
        self.epochs: list[int] = sorted(self.scheduling)
        self._applied = 1

    def going_to_accumulate_grad_batches(self) -> bool:
        """Return whether any step takes more than one batch."""
        return any(factor > 1 for factor in self.scheduling.values())

    def get_accumulate_grad_batches(self, epoch: int) -> int:
        """Return how many batches a step of that epoch takes."""
        return self.scheduling[max(start for start in self.epochs if start <= epoch)]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check that nobody else accumulates; a run resumed within an epoch goes on with its factor.

        Raises:
            ConfigError: Manual optimisation, another factor given to the Trainer, or a strategy that fixes it at its start.
        """
        if not pl_module.automatic_optimization:
            raise ManualAccumulationError(
                "Automatic gradient accumulation and the `GradientAccumulationScheduler` is not supported for manual optimization. "
                "Remove the callback, or set automatic_optimization=True."
            )
        if trainer.accumulate_grad_batches not in (1, self._applied):
            raise ConfigError(
                f"You have set `accumulate_grad_batches`={trainer.accumulate_grad_batches} and are using the "
                "`GradientAccumulationScheduler` callback. Remove the argument from the Trainer, or the callback."
            )
        if trainer.strategy.owns_backward:
            raise UnsupportedError(
                f"{type(trainer.strategy).__name__} does not support `accumulate_grad_batches` changing between epochs. "
                f"Use Trainer(accumulate_grad_batches=…) without the callback, or strategy='fsdp'."
            )
        self._apply(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._apply(trainer)

    def _apply(self, trainer: Any) -> None:
        self._applied = trainer.accumulate_grad_batches = self.get_accumulate_grad_batches(trainer.current_epoch)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
