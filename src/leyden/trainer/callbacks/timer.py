"""`Timer`: measures the stages of a run, and ends training after a given time.

Elapsed seconds of training survive a resume; a monotonic clock's own value would mean nothing in another process. Only
rank 0's clock decides, and asks all ranks to stop at the same batch.
"""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import ConfigError, closest, listed
from leyden.fabric.rank_zero import rank_zero_info
from leyden.trainer.core.callback import Callback
from leyden.trainer.engine.every import duration as length_of

_STAGES = ("train", "sanity_check", "validate", "test", "predict")


class Interval(StrEnum):
    """When `Timer` looks at the clock."""

    step = "step"
    epoch = "epoch"


class Timer(Callback):
    """Measures how long stages take; with a duration, ends training in time.

    Args:
        duration: For how long to train: `"DD:HH:MM:SS"`, `"90min"`, a `timedelta` or its keywords; `None` only measures.
        interval: Whether training may end after any `"step"`, or only after an `"epoch"`.
        verbose: Whether to say that the time is up.
        clock: What tells the time.

    Raises:
        ConfigError: A duration that is none, or an unknown interval.

    Example:
        ```python
        timer = Timer(duration="00:12:00:00")
        trainer = Trainer(callbacks=[timer])
        trainer.fit(model, loader)
        print(timer.time_elapsed("train"), timer.time_remaining())
        ```
    """

    def __init__(
        self,
        duration: str | timedelta | Mapping[str, int] | None = None,
        interval: str = Interval.step.value,  # plain: a command line writes it into YAML
        verbose: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        *,
        clock: Clock | None = None,
    ) -> None:
        if interval not in set(Interval):
            raise ConfigError(
                f"Unsupported parameter value `Timer(interval={interval})`. Possible choices are: {listed(map(str, Interval))}."
                f"{closest(str(interval), set(Interval))}"
            )
        self._duration = None if duration is None else length_of(duration).total_seconds()
        self._interval = Interval(interval)
        self._verbose = verbose
        self._clock = clock or SystemClock()
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._trained_before = 0.0  # seconds of the attempts before this one
        self._is_asked = False

    # -- what it measured ----------------------------------------------------------------------------------------

    def start_time(self, stage: str = "train") -> float | None:
        """Return when a stage began, in monotonic seconds; `None` if it has not."""
        return self._started.get(_checked(stage))

    def end_time(self, stage: str = "train") -> float | None:
        """Return when a stage ended; `None` if it has not."""
        return self._ended.get(_checked(stage))

    def time_elapsed(self, stage: str = "train") -> float:
        """Return the seconds that a stage took, or has taken so far; of training over all attempts."""
        start, end = self.start_time(stage), self.end_time(stage)
        before = self._trained_before if stage == "train" else 0.0
        if start is None:
            return before
        return before + (self._clock.monotonic() if end is None else end) - start

    def time_remaining(self, stage: str = "train") -> float | None:
        """Return the seconds that are left of the duration; `None` without one."""
        return None if self._duration is None else self._duration - self.time_elapsed(stage)

    # -- hooks ---------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start training's clock; end a run at once whose time was up before."""
        self._start("train")
        self._is_asked = False
        if self._duration is not None and trainer.strategy.broadcast(self._is_up()):
            self._stop(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop training's clock."""
        self._end("train")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Ask for the end if the time is up."""
        if self._duration is None or self._interval is not Interval.step or self._is_asked:
            return
        if trainer.is_global_zero and self._is_up():
            self._is_asked = True
            self._say()
            trainer.request_stop(f"the time limit of {timedelta(seconds=self._duration)} is reached")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End training if the time is up."""
        if self._duration is not None and self._interval is Interval.epoch and trainer.strategy.broadcast(self._is_up()):
            self._stop(trainer)

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the sanity check's clock."""
        self._start("sanity_check")

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop the sanity check's clock."""
        self._end("sanity_check")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Start validation's clock."""
        self._start("validate")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop validation's clock."""
        self._end("validate")

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the test's clock."""
        self._start("test")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop the test's clock."""
        self._end("test")

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Start prediction's clock."""
        self._start("predict")

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop prediction's clock."""
        self._end("predict")

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds of each stage."""
        return {"time_elapsed": {stage: self.time_elapsed(stage) for stage in _STAGES}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from the seconds that training took before."""
        self._trained_before = float(state_dict.get("time_elapsed", {}).get("train", 0.0))
        self._started.pop("train", None)

    def _start(self, stage: str) -> None:
        self._started[stage] = self._clock.monotonic()
        self._ended.pop(stage, None)

    def _end(self, stage: str) -> None:
        self._ended[stage] = self._clock.monotonic()

    def _is_up(self) -> bool:
        return self._duration is not None and self.time_elapsed() >= self._duration

    def _stop(self, trainer: Any) -> None:
        """Stop here and now; all ranks are in this hook."""
        self._say()
        trainer.should_stop = True

    def _say(self) -> None:
        if self._verbose:
            rank_zero_info(f"Time limit reached after {timedelta(seconds=int(self.time_elapsed()))}: training ends.")


def _checked(stage: str) -> str:
    if stage not in _STAGES:
        raise ConfigError(f"stage={stage!r} is none that is timed. Use one of {listed(_STAGES)}.{closest(str(stage), _STAGES)}")
    return str(stage)
