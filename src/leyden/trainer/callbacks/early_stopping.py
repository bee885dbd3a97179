"""`EarlyStopping`: ends training when a metric no longer improves, is good enough, or is beyond hope.

`judge` is the whole rule, in its order: finite, good enough, diverged, improved, patience. The rest is when to ask, and
that one rank's decision is everybody's.
"""

import logging
import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Literal

import torch
from torch import Tensor

from leyden.core.errors import ConfigError, StateError, closest, listed
from leyden.fabric.rank_zero import rank_prefixed_message, rank_zero_warn
from leyden.trainer.callbacks.validation_place import validates_once_per_epoch
from leyden.trainer.core.callback import MonitoringCallback

_logger = logging.getLogger(__name__)


class EarlyStoppingReason(IntEnum):
    """Why training was ended."""

    NOT_STOPPED = 0
    STOPPING_THRESHOLD = 1
    DIVERGENCE_THRESHOLD = 2
    PATIENCE_EXHAUSTED = 3
    NON_FINITE_METRIC = 4


class EarlyStopping(MonitoringCallback):
    """Ends training when a logged metric does not improve any more.

    Args:
        monitor: The logged metric.
        min_delta: By how much it has to get better to count as better; its sign does not matter.
        patience: After how many checks in a row without improvement training ends.
        verbose: Whether to say when the metric improved.
        mode: Whether less (`"min"`) or more (`"max"`) is better.
        strict: Whether an absent metric is an error.
        check_finite: Whether a metric that is NaN or infinite ends training.
        stopping_threshold: A value that is good enough.
        divergence_threshold: A value that is beyond hope.
        check_on_train_epoch_end: Whether to look at the end of training epochs, rather than of validation; `None` does
            so where validation runs once per epoch.
        log_rank_zero_only: Whether only rank 0 says something.

    Raises:
        ConfigError: An unknown mode, or a negative patience.

    Example:
        ```python
        trainer = Trainer(max_epochs=100, callbacks=[EarlyStopping("val/loss", patience=5)])
        ```
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        mode: Literal["min", "max"] = "min",
        strict: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        check_finite: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,  # noqa: FBT001 - the documented signature
        log_rank_zero_only: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"`mode` can be min, max, got {mode}. Use 'min' where less is better, as for a loss, or 'max'.")
        if patience < 0:
            raise ConfigError(f"patience={patience} is not accepted: it counts checks without improvement, and is 3 if absent.")
        self.monitor = monitor
        self.min_delta = min_delta
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.strict = strict
        self.check_finite = check_finite
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.log_rank_zero_only = log_rank_zero_only
        self._check_on_train_epoch_end = check_on_train_epoch_end
        self.wait_count = 0
        self.stopped_epoch = 0
        self.best_score: Tensor = torch.tensor(math.inf if mode == "min" else -math.inf)
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message: str | None = None

    @property
    def state_key(self) -> str:
        """Tells apart two that watch different metrics."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget why an earlier run ended."""
        self.stopping_reason, self.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Look at the metric, if this is the place."""
        if self._looks_at_epoch_end(trainer):
            self._check(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Look at the metric, if this is the place."""
        if not self._looks_at_epoch_end(trainer):
            self._check(trainer)

    def judge(self, current: Tensor) -> tuple[EarlyStoppingReason, str]:
        """Take note of a value, and return why to stop, with the reason in words; `NOT_STOPPED` to go on."""
        value, name = float(current), self.monitor
        if self.check_finite and not math.isfinite(value):
            best = f"The best so far was {float(self.best_score):.3f}."
            return EarlyStoppingReason.NON_FINITE_METRIC, f"Monitored metric {name} = {value} is not finite. {best}"
        if self.stopping_threshold is not None and self._is_better(value, self.stopping_threshold):
            limit = f"{self._sign} {self.stopping_threshold}"
            return EarlyStoppingReason.STOPPING_THRESHOLD, f"Stopping threshold reached: {name} = {value} {limit}."
        if self.divergence_threshold is not None and self._is_better(-value, -self.divergence_threshold):
            return (
                EarlyStoppingReason.DIVERGENCE_THRESHOLD,
                f"Divergence threshold passed: {name} = {value}.",
            )
        if self._is_improvement(value):
            self._improve(current)
            return EarlyStoppingReason.NOT_STOPPED, ""
        self.wait_count += 1
        if self.wait_count < self.patience:
            return EarlyStoppingReason.NOT_STOPPED, ""
        return (
            EarlyStoppingReason.PATIENCE_EXHAUSTED,
            f"Monitored metric {name} did not improve in the last {self.wait_count} checks. Best score: {float(self.best_score):.3f}.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return how long nothing has improved, and what the best was."""
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self.best_score,
            "patience": self.patience,
            "stopping_reason": int(self.stopping_reason),
            "stopping_reason_message": self.stopping_reason_message,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; `patience` stays as it was given."""
        self.wait_count = state_dict["wait_count"]
        self.stopped_epoch = state_dict["stopped_epoch"]
        self.best_score = state_dict["best_score"]
        self.stopping_reason = EarlyStoppingReason(state_dict.get("stopping_reason", 0))  # absent in files of Lightning
        self.stopping_reason_message = state_dict.get("stopping_reason_message")

    def _looks_at_epoch_end(self, trainer: Any) -> bool:
        given = self._check_on_train_epoch_end
        return validates_once_per_epoch(trainer) if given is None else given

    def _check(self, trainer: Any) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:
            return
        metrics: Mapping[str, Any] = trainer.callback_metrics
        if self.monitor not in metrics:
            self._report_missing(metrics)
            return
        best = float(self.best_score)
        reason, message = self.judge(torch.as_tensor(metrics[self.monitor]).squeeze())
        if self.verbose and self.wait_count == 0 and not reason:
            gain = f" by {abs(float(self.best_score) - best):.3f} >= min_delta = {abs(self.min_delta)}" if math.isfinite(best) else ""
            self._say(trainer, f"Metric {self.monitor} improved{gain}. New best score: {float(self.best_score):.3f}")
        if trainer.strategy.reduce_boolean_decision(bool(reason), all=False):
            self._stop(trainer, reason, message)

    def _stop(self, trainer: Any, reason: EarlyStoppingReason, message: str) -> None:
        """End training on all ranks; ranks that had no reason of their own take the others'."""
        if trainer.world_size > 1:
            code = torch.tensor(int(reason), device=trainer.strategy.root_device)
            reason = EarlyStoppingReason(int(trainer.strategy.all_reduce(code, reduce_op="max")))
        self.stopping_reason = reason
        self.stopping_reason_message = message or f"Another rank stopped: {reason.name.lower().replace('_', ' ')}."
        self.stopped_epoch = trainer.current_epoch
        trainer.should_stop = True
        if self.verbose:
            self._say(trainer, self.stopping_reason_message)

    def _report_missing(self, metrics: Mapping[str, Any]) -> None:
        message = (
            f"Early stopping conditioned on metric `{self.monitor}` which is not available.{closest(self.monitor, metrics)} Logged: "
            f"{listed(metrics) or 'nothing'}. Log it with `self.log({self.monitor!r}, value)`, or watch one of these."
        )
        if self.strict:
            raise StateError(message)
        rank_zero_warn(message, category=RuntimeWarning)

    def _is_better(self, value: float, than: float) -> bool:
        return value < than if self.mode == "min" else value > than

    def _is_improvement(self, value: float) -> bool:
        delta = abs(self.min_delta)
        return self._is_better(value + delta if self.mode == "min" else value - delta, float(self.best_score))

    def _improve(self, current: Tensor) -> None:
        self.best_score = current.detach().to("cpu", copy=True)
        self.wait_count = 0

    @property
    def _sign(self) -> str:
        return "<" if self.mode == "min" else ">"

    def _say(self, trainer: Any, message: str) -> None:
        if self.log_rank_zero_only and not trainer.is_global_zero:
            return
        shows_rank = trainer.world_size > 1 and not self.log_rank_zero_only
        _logger.info(rank_prefixed_message(message, trainer.global_rank if shows_rank else None))
