"""A trainer that trains nothing: the documented properties that callbacks read, hooks in the documented order, real files.

It stands in for `Trainer` where a callback's own rules are tested; what both have to do with each other is tested with
the real one, in `tests/integration/trainer`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

import torch
from torch import Tensor

from leyden.fabric.checkpoint import read
from leyden.fabric.strategies.single import SingleDeviceStrategy
from leyden.trainer.core.callback import Callback
from leyden.trainer.engine.clock import Clock


@final
class FakeClockOfRun(Clock):
    """The counters of a run, whose seconds a test moves."""

    now: float = 0.0

    @property
    def seconds(self) -> float:
        return self.now


@final
class FakeRun:
    """What callbacks see of a run: what is asked for is agreed on at the next batch."""

    def __init__(self) -> None:
        self.clock = FakeClockOfRun()
        self.validation_is_due = False
        self.hook: str | None = None
        self._asked: set[str] = set()
        self._agreed: set[str] = set()

    def request(self, kind: str, payload: str = "") -> None:
        self._asked.add(kind)

    def take(self, kind: str) -> bool:
        is_agreed = kind in self._agreed
        self._agreed.discard(kind)
        return is_agreed

    def boundary(self) -> None:
        """Let a batch end."""
        self._agreed |= self._asked
        self._asked.clear()


@final
class FakeTrainer:
    """Runs hooks of callbacks over epochs and batches.

    Args:
        root: Where files go.
        callbacks: Whose hooks are called.
        attributes: More of a trainer's properties, instead of the defaults.
    """

    def __init__(self, root: Path, *callbacks: Callback, **attributes: Any) -> None:
        self.default_root_dir = str(root)
        self.callbacks = list(callbacks)
        self.strategy: Any = SingleDeviceStrategy()
        self.run = FakeRun()
        self.state = SimpleNamespace(fn="fit")
        self.loggers: list[Any] = []
        self.optimizers: list[Any] = []
        self.lr_scheduler_configs: list[Any] = []
        self.callback_metrics: dict[str, Tensor] = {}
        self.ckpt_path: str | None = None
        self.sanity_checking = self.fast_dev_run = self.should_stop = False
        self.enable_validation = False
        self.val_check_interval: Any = 1.0
        self.check_val_every_n_epoch: int | None = 1
        self.log_every_n_steps = 1
        self.accumulate = 1
        self.num_training_batches: int | float = 4
        self.saved: list[str] = []
        self.stop_reasons: list[str] = []
        self.is_full = False  # whether the disk is
        self.__dict__.update(attributes)

    @property
    def current_epoch(self) -> int:
        return self.run.clock.epoch

    @property
    def global_step(self) -> int:
        return self.run.clock.step

    @property
    def is_global_zero(self) -> bool:
        return self.strategy.is_global_zero

    @property
    def world_size(self) -> int:
        return self.strategy.world_size

    @property
    def global_rank(self) -> int:
        return self.strategy.global_rank

    def request_stop(self, reason: str) -> None:
        self.stop_reasons.append(reason)

    def save_checkpoint(self, path: str, weights_only: bool = False, storage_options: Any = None) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device", str(path))
        callbacks = {} if weights_only else {each.state_key: each.state_dict() for each in self.callbacks}
        self.strategy.save_checkpoint(path, {"global_step": self.global_step, "epoch": self.current_epoch, "callbacks": callbacks})
        self.saved.append(Path(path).name)

    # -- running -------------------------------------------------------------------------------------------------

    def fire(self, hook: str, *args: Any) -> None:
        """Call a hook of every callback."""
        self.run.hook = hook
        for callback in self.callbacks:
            getattr(callback, hook)(self, None, *args)
        self.run.hook = None

    def begin(self) -> None:
        """Start to fit."""
        self.fire("setup", "fit")
        self.fire("on_fit_start")
        self.fire("on_train_start")

    def batch(self, index: int, *, is_last: bool = False, validates: bool = False, metrics: dict[str, float] | None = None) -> None:
        """Train on a batch; `metrics` are what validation after it logs."""
        clock = self.run.clock
        self.fire("on_train_batch_start", None, index)
        has_stepped = is_last or (index + 1) % self.accumulate == 0
        clock.step += has_stepped
        self.run.validation_is_due = validates
        self.fire("on_train_batch_end", None, None, index)
        self.run.validation_is_due = False
        if validates:
            self.validate(metrics or {})
        clock.batches += 1
        clock.batch = index + 1
        clock.log_step += has_stepped
        self.run.boundary()

    def validate(self, metrics: dict[str, float]) -> None:
        """Validate; `metrics` are logged."""
        self.fire("on_validation_start")
        self.log(**metrics)
        self.fire("on_validation_end")

    def epoch(self, *, validates_after: Iterable[int] = (), metrics: Callable[[], dict[str, float]] = dict, **logged: float) -> None:
        """Train an epoch; validation runs after the batches of these indices, `logged` is logged before its end."""
        length, due = int(self.num_training_batches), set(validates_after)
        self.run.clock.batch = 0
        self.fire("on_train_epoch_start")
        for index in range(length):
            self.batch(index, is_last=index + 1 == length, validates=index in due, metrics=metrics() if index in due else None)
        self.log(**logged)
        self.fire("on_train_epoch_end")
        self.run.clock.epoch += 1

    def end(self) -> None:
        """Stop to fit."""
        self.fire("on_train_end")
        self.fire("on_fit_end")
        self.fire("teardown", "fit")

    def fail(self, exception: BaseException) -> None:
        """End by an exception."""
        self.fire("on_exception", exception)

    def log(self, **metrics: float) -> None:
        """Put metrics where callbacks find them."""
        self.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})

    def resume(self, path: str | Path) -> None:
        """Take over what a file says, as `fit(ckpt_path=path)` does; call it instead of `begin`."""
        checkpoint = read(path)
        self.ckpt_path = str(path)
        self.fire("setup", "fit")
        for callback in self.callbacks:
            if callback.state_key in checkpoint["callbacks"]:
                callback.load_state_dict(checkpoint["callbacks"][callback.state_key])
        self.run.clock.step, self.run.clock.epoch = checkpoint["global_step"], checkpoint["epoch"]
        self.fire("on_fit_start")
        self.fire("on_train_start")


def step_in(path: str | Path) -> int:
    """Return the step that a checkpoint was written at."""
    return int(read(path)["global_step"])
