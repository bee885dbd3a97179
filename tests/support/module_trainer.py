"""A fake trainer that trains a module: plain attributes, and a loop of thirty lines that fires hooks, steps and counts.

For callbacks that act on weights, gradients and optimizers; `fake_trainer` is for those that act on metrics and files.
Tests set what they need and call hooks themselves, or let `epoch`, `validation`, `checkpoint` and `resume` call them.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leyden.fabric.loggers.logger import Logger
from leyden.fabric.strategies.single import SingleDeviceStrategy


@dataclass
class FakeRunClock:
    """The counters of `trainer.run.clock`."""

    epoch: int = 0
    batch: int = 0
    batches: int = 0
    step: int = 0
    log_step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class FakeRun:
    """`trainer.run`: the clock, and requests that one rank agrees to at once."""

    clock: FakeRunClock = field(default_factory=FakeRunClock)
    validation_is_due: bool = False
    hook: str | None = None
    requested: list[tuple[str, str]] = field(default_factory=list)

    def request(self, kind: str, payload: str = "") -> None:
        self.requested.append((kind, payload))

    def take(self, kind: str) -> bool:
        found = [request for request in self.requested if request[0] == kind]
        self.requested = [request for request in self.requested if request[0] != kind]
        return bool(found)


@dataclass
class FakeState:
    """`trainer.state`."""

    fn: str | None = "fit"
    stage: str | None = "train"


@dataclass
class FakePredictLoop:
    """What `trainer.predict_loop` shows."""

    predictions: list[Any] = field(default_factory=list)
    epoch_batch_indices: list[Any] = field(default_factory=list)
    current_batch_indices: Sequence[int] | None = None


class RowLogger(Logger):
    """Keeps its rows."""

    name = "rows"
    version = 0

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, Any]]] = []

    @property
    def experiment(self) -> "RowLogger":
        return self

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.hparams = params


class FakeModule(nn.Module):
    """A linear layer with what callbacks look at in a LightningModule; `layers` may be anything."""

    def __init__(self, layers: nn.Module | None = None, *, automatic_optimization: bool = True) -> None:
        super().__init__()
        self.net = layers if layers is not None else nn.Linear(4, 2)
        self.automatic_optimization = automatic_optimization
        self.logged: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def log(self, name: str, value: Any, **kwargs: Any) -> None:
        self.logged[name] = value


@dataclass
class ModuleTrainer:
    """A trainer that is whatever a test makes of it."""

    callbacks: list[Any] = field(default_factory=list)
    loggers: list[Logger] = field(default_factory=list)
    strategy: Any = field(default_factory=lambda: SingleDeviceStrategy("cpu"))
    run: FakeRun = field(default_factory=FakeRun)
    state: FakeState = field(default_factory=FakeState)
    optimizers: list[Any] = field(default_factory=list)
    lr_scheduler_configs: list[Any] = field(default_factory=list)
    callback_metrics: dict[str, Tensor] = field(default_factory=dict)
    predict_loop: FakePredictLoop = field(default_factory=FakePredictLoop)
    lightning_module: Any = None
    default_root_dir: str = field(default_factory=lambda: str(Path.cwd()))
    max_epochs: int | None = 1
    max_steps: int = -1
    min_epochs: int | None = None
    accumulate_grad_batches: int = 1
    log_every_n_steps: int = 50
    check_val_every_n_epoch: int | None = 1
    val_check_interval: float | int = 1.0
    num_training_batches: float = 4
    fast_dev_run: int = 0
    should_stop: bool = False
    sanity_checking: bool = False
    enable_validation: bool = True
    precision: str = "32-true"
    scaler: Any = None
    ckpt_path: str | None = None
    stop_reasons: list[str] = field(default_factory=list)
    saved: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def logger(self) -> Logger | None:
        return self.loggers[0] if self.loggers else None

    @property
    def global_step(self) -> int:
        return self.run.clock.step

    @property
    def current_epoch(self) -> int:
        return self.run.clock.epoch

    @property
    def global_rank(self) -> int:
        return int(self.strategy.global_rank)

    @property
    def world_size(self) -> int:
        return int(self.strategy.world_size)

    @property
    def is_global_zero(self) -> bool:
        return bool(self.strategy.is_global_zero)

    def request_stop(self, reason: str = "") -> None:
        self.stop_reasons.append(reason)
        self.should_stop = True

    def save_checkpoint(self, filepath: Any, weights_only: bool | None = None) -> None:
        self.saved.append((str(filepath), bool(weights_only)))

    def fire(self, hook: str, module: Any, *args: Any) -> None:
        """Call a hook of all callbacks."""
        self.run.hook = hook
        for callback in self.callbacks:
            getattr(callback, hook)(self, module, *args)
        self.run.hook = None

    def start(self, module: Any) -> None:
        """Fire what comes before the first epoch."""
        self.lightning_module = module
        self.fire("setup", module, "fit")
        self.fire("on_fit_start", module)
        self.fire("on_train_start", module)

    def epoch(self, module: Any, batches: Iterable[Any], loss_of: "Callable[[Any, Any], Tensor] | None" = None) -> None:
        """Train an epoch: hooks, backward, a step of each optimizer, counters."""
        clock = self.run.clock
        self.fire("on_train_epoch_start", module)
        for index, batch in enumerate(batches):
            clock.batch = index
            self.fire("on_train_batch_start", module, batch, index)
            loss = (loss_of or _loss)(module, batch)
            self.fire("on_before_backward", module, loss)
            loss.backward()
            self.fire("on_after_backward", module)
            if stepped := (index + 1) % self.accumulate_grad_batches == 0:
                for optimizer in self.optimizers:
                    self.fire("on_before_optimizer_step", module, optimizer)
                    optimizer.step()
                    optimizer.zero_grad()
                clock.step += 1
            self.fire("on_train_batch_end", module, {"loss": loss.detach()}, batch, index)
            clock.log_step += stepped
            clock.batches += 1
        self.fire("on_train_epoch_end", module)
        clock.epoch += 1

    def validation(self, module: Any, batches: Iterable[Any] = ()) -> None:
        """Fire the hooks of a validation."""
        self.fire("on_validation_start", module)
        self.fire("on_validation_epoch_start", module)
        with torch.no_grad():
            for index, batch in enumerate(batches):
                self.fire("on_validation_batch_start", module, batch, index, 0)
                self.fire("on_validation_batch_end", module, module(batch), batch, index, 0)
        self.fire("on_validation_epoch_end", module)
        self.fire("on_validation_end", module)

    def end(self, module: Any) -> None:
        """Fire what comes after the last epoch."""
        self.fire("on_train_end", module)
        self.fire("on_fit_end", module)
        self.fire("teardown", module, "fit")

    def checkpoint(self, module: Any) -> dict[str, Any]:
        """Return a checkpoint as the trainer makes it: tensors are copies, as if read from a file."""
        checkpoint: dict[str, Any] = {
            "state_dict": module.state_dict(),
            "callbacks": {callback.state_key: state for callback in self.callbacks if (state := callback.state_dict())},
            "optimizer_states": [optimizer.state_dict() for optimizer in self.optimizers],
            "clock": vars(self.run.clock).copy(),
        }
        self.fire("on_save_checkpoint", module, checkpoint)

        return copy.deepcopy(checkpoint)

    def resume(self, module: Any, checkpoint: dict[str, Any]) -> None:
        """Fire what comes before the first epoch, loading a checkpoint in between as the trainer does."""
        self.lightning_module = module
        self.fire("setup", module, "fit")
        module.load_state_dict(checkpoint["state_dict"])
        for callback in self.callbacks:
            callback.on_load_checkpoint(self, module, checkpoint)
            if callback.state_key in checkpoint["callbacks"]:
                callback.load_state_dict(checkpoint["callbacks"][callback.state_key])
        vars(self.run.clock).update(checkpoint["clock"])
        self.fire("on_fit_start", module)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        self.fire("on_train_start", module)


def _loss(module: Any, batch: Any) -> Tensor:
    return module(batch).square().mean()
