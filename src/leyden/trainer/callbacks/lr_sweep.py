"""A sweep of learning rates: the losses that a model has while its learning rate rises from step to step, and what to make of them.

The method is that of Smith, "Cyclical Learning Rates for Training Neural Networks" (https://arxiv.org/abs/1506.01186): the
rate to begin with is where the smoothed loss falls most steeply, measured along the sweep (on a logarithmic axis where the
rate rises exponentially).
"""

import math
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import ConfigError, StateError
from leyden.core.log import get_logger
from leyden.core.optional import require
from leyden.trainer.core.callback import Callback

MODES = ("linear", "exponential")
SMOOTHING = 0.98
_logger = get_logger(__name__)


def rates(lr_min: float, lr_max: float, num_training: int, mode: str) -> list[float]:
    """Return the learning rate of each step.

    Example:
        >>> [round(rate, 4) for rate in rates(0.001, 1.0, 4, "exponential")], rates(0.0, 1.0, 3, "linear")
        ([0.001, 0.01, 0.1, 1.0], [0.0, 0.5, 1.0])
    """
    shares = [step / max(num_training - 1, 1) for step in range(num_training)]
    if mode == "linear":
        return [lr_min + (lr_max - lr_min) * share for share in shares]
    return [lr_min * (lr_max / lr_min) ** share for share in shares]


class LearningRateSweep:
    """What a sweep found. `Tuner.lr_find` returns it, and `LearningRateFinder` keeps it as `optimal_lr`.

    Args:
        mode: `exponential` or `linear`.
        lr_min: The first rate.
        lr_max: The last one.
        num_training: The number of steps.

    Raises:
        ConfigError: An unknown mode, or a range that goes nowhere.

    Example:
        >>> sweep = LearningRateSweep("exponential", 1e-3, 1.0, 30)
        >>> sweep.results = {"lr": rates(1e-3, 1.0, 30, "exponential"), "loss": [5.0] * 20 + [3.0] + [1.0] * 9}
        >>> round(sweep.suggestion(), 3)
        0.117
    """

    def __init__(self, mode: str, lr_min: float, lr_max: float, num_training: int) -> None:
        mode = mode.lower()
        if mode not in MODES:
            raise ConfigError(f"`mode` should be either of {MODES}, not {mode!r}.")
        if not lr_min < lr_max or lr_min < 0 or (mode == "exponential" and lr_min == 0):
            raise ConfigError(f"min_lr={lr_min!r}, max_lr={lr_max!r}: the rate rises, from above 0 in mode='exponential'.")
        if num_training < 1:
            raise ConfigError(f"num_training_steps={num_training!r} should be at least 1, such as 100.")
        self.mode, self.lr_min, self.lr_max, self.num_training = mode, lr_min, lr_max, num_training
        self.results: dict[str, list[float]] = {"lr": [], "loss": []}

    def suggestion(self, skip_begin: int = 10, skip_end: int = 1) -> float | None:
        """Return the rate at which the smoothed loss falls most steeply; `None` where there are fewer than two points.

        Args:
            skip_begin: Points to leave out at the beginning, where the smoothed loss has seen little.
            skip_end: Points to leave out at the end, where it diverges.
        """
        at = self._steepest(skip_begin, skip_end)
        return None if at is None else self.results["lr"][at]

    def _steepest(self, skip_begin: int = 10, skip_end: int = 1) -> int | None:
        losses = self.results["loss"]
        places = [at for at in range(skip_begin, len(losses) - skip_end) if math.isfinite(losses[at])]
        if len(places) < 2:
            _logger.error(
                "Failed to compute suggestion for learning rate because there are not enough points: %d of %d losses are finite and not "
                "skipped. Take more steps or more data.",
                len(places),
                len(losses),
            )
            return None
        slopes = torch.gradient(torch.tensor([losses[at] for at in places], dtype=torch.float64))[0]
        return places[int(slopes.argmin())]

    def plot(self, suggest: bool = False, show: bool = False, ax: Any = None) -> Any:  # noqa: FBT001, FBT002 - the documented signature
        """Draw loss over learning rate and return the figure.

        Args:
            suggest: Whether to mark the suggestion.
            show: Whether to open a window.
            ax: Where to draw; default: a new figure.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        pyplot: Any = require("matplotlib.pyplot", extra="demo", purpose="plot()")
        figure = pyplot.subplots()[0] if ax is None else ax.figure
        ax = figure.axes[0] if ax is None else ax
        ax.plot(self.results["lr"], self.results["loss"], label="smoothed loss")
        if self.mode == "exponential":
            ax.set_xscale("log")
        ax.set_xlabel("Learning rate")
        ax.set_ylabel("Loss")
        if suggest and (at := self._steepest()) is not None:
            rate = self.results["lr"][at]
            ax.plot(
                rate, self.results["loss"][at], marker="o", markersize=10, color="red", linestyle="none", label=f"suggestion {rate:.2e}"
            )
            ax.legend()
        if (window := self._window()) is not None:
            ax.set_ylim(*window)
        if show:
            pyplot.show()
        return figure

    def _window(self) -> tuple[float, float] | None:
        """Return between which losses to draw: the explosion at the end would flatten everything else."""
        losses = [loss for loss in self.results["loss"] if math.isfinite(loss)]
        if not losses:
            return None
        lowest = min(losses)
        before = max(losses[: losses.index(lowest) + 1])
        edge = 0.1 * (before - lowest)
        return (lowest - edge, before + edge) if edge > 0 else None


class SweepCallback(Callback):
    """Raises the learning rate from batch to batch and writes down the losses: what a trial runs with.

    Args:
        sweep: Where results go.
        accumulate: How many batches a step takes.
        threshold: A smoothed loss this many times the best one ends the sweep; `None` never.
    """

    def __init__(self, sweep: LearningRateSweep, accumulate: int, threshold: float | None) -> None:
        self.sweep, self.accumulate, self.threshold = sweep, accumulate, threshold
        self.rates = rates(sweep.lr_min, sweep.lr_max, sweep.num_training, sweep.mode)
        self.steps = 0
        self.average = self.best = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Set the rate of the step to come."""
        set_rate(trainer.optimizers, self.rates[min(self.steps, len(self.rates) - 1)])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write down the loss of the step."""
        if not trainer.run.state.stepped:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, (Tensor, float, int)):
            raise StateError(
                f"The learning rate finder needs the loss of each step, and training_step() of {type(pl_module).__name__} returned none in "
                f"batch {batch_idx}. Return the loss, also in manual optimization."
            )
        value = float(loss) * self.accumulate
        if trainer.world_size > 1:  # every rank must see the same curve, or some would go on alone
            value = float(trainer.strategy.all_reduce(torch.tensor(value, device=trainer.strategy.root_device), reduce_op="mean"))
        self._note(trainer, value)

    def _note(self, trainer: Any, loss: float) -> None:
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        smoothed = self.average / (1 - SMOOTHING ** (self.steps + 1))
        self.sweep.results["lr"].append(self.rates[min(self.steps, len(self.rates) - 1)])
        self.sweep.results["loss"].append(smoothed)
        if self.threshold is not None and self.steps > 0 and not smoothed <= self.threshold * self.best:  # NaN as well
            trainer.should_stop = True
        if self.steps == 0 or smoothed < self.best:
            self.best = smoothed
        self.steps += 1


def set_rate(optimizers: Any, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # kept as one by whoever compiles the step
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
