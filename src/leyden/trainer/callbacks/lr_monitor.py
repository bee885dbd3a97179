"""`LearningRateMonitor`: logs the learning rate of every parameter group, under a name that says whose it is.

| case | key |
|---|---|
| one SGD, a second one | `lr-SGD`, `lr-SGD-1` |
| several parameter groups | `lr-SGD/pg1`, `lr-SGD/pg2`, or `/name` for a group with a `"name"` |
| a scheduler with a name | that name instead of `lr-SGD` |
| momentum (Adam: first beta), weight decay | `lr-SGD-momentum`, `lr-SGD-weight_decay` |
"""

from collections import Counter
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, listed
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.callbacks.row_cadence import row_is_due
from leyden.trainer.core.callback import Callback

_INTERVALS = ("step", "epoch", None)


class LearningRateMonitor(Callback):
    """Logs learning rates while a model is trained.

    Args:
        logging_interval: `"step"` or `"epoch"`; `None` logs each when its scheduler steps.
        log_momentum: Whether to log momentum too, or Adam's first beta.
        log_weight_decay: Whether to log weight decay too.
        log_key_prefix: Put before each key.

    Raises:
        ConfigError: Another interval.

    Example:
        ```python
        trainer = Trainer(callbacks=[LearningRateMonitor(logging_interval="step")])
        ```
    """

    def __init__(
        self,
        logging_interval: Literal["step", "epoch"] | None = None,
        log_momentum: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        log_weight_decay: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        log_key_prefix: str | None = None,
    ) -> None:
        if logging_interval not in _INTERVALS:
            raise ConfigError(f"logging_interval should be `step` or `epoch` or `None`, not {logging_interval!r}.")
        self.logging_interval = logging_interval
        self.log_momentum = log_momentum
        self.log_weight_decay = log_weight_decay
        self.log_key_prefix = log_key_prefix
        self.lrs: dict[str, list[float]] = {}
        self.last_momentum_values: dict[str, float | None] = {}
        self.last_weight_decay_values: dict[str, float | None] = {}
        self._last_row = -1

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check that there is somebody to tell, and that names are clear.

        Raises:
            ConfigError: No logger; or two groups of an optimizer with one name.
        """
        if not trainer.loggers:
            raise ConfigError("Cannot use `LearningRateMonitor` with a `Trainer` that has no logger. Use logger=True, or leave it out.")
        if self.log_momentum and any(not {"momentum", "betas"} & set(optimizer.defaults) for optimizer in trainer.optimizers):
            rank_zero_warn("log_momentum=True, but an optimizer has neither momentum nor betas: 0 is logged.", category=RuntimeWarning)
        self._last_row = -1
        names = [name for _, of_groups, _ in self._named(trainer) for name in of_groups]
        self.lrs = {name: [] for name in names}
        self.last_momentum_values = {f"{name}-momentum": None for name in names}
        self.last_weight_decay_values = {f"{name}-weight_decay": None for name in names}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Log with the rows of steps."""
        row = trainer.run.clock.log_step
        if self.logging_interval == "epoch" or row == self._last_row or not row_is_due(trainer):
            return
        self._last_row = row  # micro-batches of one step have one row
        self._log(trainer, "step")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Log with each epoch."""
        if self.logging_interval != "step":
            self._log(trainer, "epoch")

    def _log(self, trainer: Any, interval: str) -> None:
        found: dict[str, float] = {}
        for optimizer, names, steps_by in self._named(trainer):
            if self.logging_interval is None and steps_by not in (interval, None):
                continue
            for group, name in zip(optimizer.param_groups, names, strict=True):
                found |= self._of_group(group, name)
        if not found:
            return
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.run.clock.log_step)
        device = trainer.strategy.root_device
        trainer.callback_metrics.update({name: torch.tensor(value, device=device) for name, value in found.items()})

    def _of_group(self, group: dict[str, Any], name: str) -> dict[str, float]:
        found = {name: float(group["lr"])}
        if name not in self.lrs and (before := name.rpartition("/")[0]) in self.lrs:
            self.lrs[name] = self.lrs.pop(before)  # its only group has got company, and a name of its own
        self.lrs.setdefault(name, []).append(found[name])
        if self.log_momentum:
            key = f"{name}-momentum"
            found[key] = self.last_momentum_values[key] = float(group["betas"][0] if "betas" in group else group.get("momentum", 0))
        if self.log_weight_decay:
            key = f"{name}-weight_decay"
            found[key] = self.last_weight_decay_values[key] = float(group.get("weight_decay", 0))
        return found

    def _named(self, trainer: Any) -> list[tuple[Optimizer, list[str], str | None]]:
        """Return every optimizer with the names of its groups, and by what its scheduler steps; `None` without one."""
        scheduled = [
            (optimizer, config.name, config.interval)
            for config in trainer.lr_scheduler_configs
            if (optimizer := getattr(config.scheduler, "optimizer", None)) is not None  # absent in foreign schedulers
        ]
        has_scheduler = {id(optimizer) for optimizer, _, _ in scheduled}
        owners = [*scheduled, *((optimizer, None, None) for optimizer in trainer.optimizers if id(optimizer) not in has_scheduler)]
        seen: Counter[type] = Counter()
        times_given = Counter(name for _, name, _ in owners if name is not None)
        found = []
        for optimizer, given, interval in owners:
            kind = type(optimizer)
            number, seen[kind] = seen[kind], seen[kind] + 1
            is_clear = given is not None and times_given[given] == 1
            name = f"lr-{kind.__name__}" if given is None else given
            name = f"{self.log_key_prefix or ''}{name}" + (f"-{number}" if number and not is_clear else "")
            found.append((optimizer, _group_names(optimizer, name), interval))
        return found


def _group_names(optimizer: Optimizer, name: str) -> list[str]:
    groups = optimizer.param_groups
    given = [group.get("name") for group in groups]
    if len(groups) == 1:
        return [f"{name}/{given[0]}" if given[0] else name]
    names = [each or f"pg{number}" for number, each in enumerate(given, start=1)]
    if twice := sorted(each for each, count in Counter(names).items() if count > 1):
        raise ConfigError(
            f"A single `Optimizer` cannot have multiple parameter groups with identical `name` values: {name} has {listed(twice)} twice. "
            "Give each group of configure_optimizers a name of its own."
        )
    return [f"{name}/{each}" for each in names]
