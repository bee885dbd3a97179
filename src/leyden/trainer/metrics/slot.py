"""`Slot`: the values of one logged name; `HookSlots` and `StageSlots`: those of a hook and of a stage.

A value on the CPU becomes a Python float at once: reading it there costs less than cloning it, a float cannot be changed
by its owner later, and sums are in double precision. A value on a device stays there: it is cloned for the step and added
to an accumulator in place for the epoch, so that nothing waits for the device until a row is due.
"""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import ConfigError
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.engine.hookspec import Rule
from leyden.trainer.metrics.objects import computed, is_metric
from leyden.trainer.metrics.options import Given, Options, Reduce

_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_START: dict[Reduce, float] = {"mean": 0.0, "sum": 0.0, "max": -math.inf, "min": math.inf}

Value = float | Tensor


class Slot:
    """What one name was given in one hook, by one loader.

    Args:
        name: The name as logged.
        hook: The hook.
        loader: The loader, where several are evaluated.
        options: What it was logged with.
        given: The same as it came.
        is_weighted: Whether its mean needs the batch's size.
    """

    __slots__ = (
        "double",
        "epoch_name",
        "epoch_value",
        "fresh",
        "given",
        "graph",
        "has_warned",
        "hook",
        "is_weighted",
        "last",
        "loader",
        "metric",
        "name",
        "on_epoch",
        "on_step",
        "options",
        "plain",
        "reduce",
        "seen",
        "step_name",
        "synced",
        "total",
        "weight",
    )

    def __init__(self, name: str, hook: str, loader: int | None, options: Options, given: Given | None, *, is_weighted: bool) -> None:
        suffix = f"/dataloader_idx_{loader}" if options.add_dataloader_idx and loader is not None else ""
        is_forked = options.on_step and options.on_epoch
        self.name, self.hook, self.loader = name, hook, loader
        self.options, self.given = options, given
        self.on_step, self.on_epoch, self.reduce, self.graph = options.on_step, options.on_epoch, options.reduce, options.enable_graph
        self.plain = name + suffix
        self.step_name = f"{name}_step{suffix}" if is_forked else self.plain
        self.epoch_name = f"{name}_epoch{suffix}" if is_forked else self.plain
        self.is_weighted = is_weighted
        self.synced = False  # whether flushes reduce it over ranks
        self.metric: Any = None
        self.double = False  # whether it was given in double precision
        self.has_warned = False
        self.clear()

    def clear(self) -> None:
        """Forget the values, not the options."""
        self.last: Value | None = None
        self.total: Value = _START[self.reduce]
        self.weight: float = 0.0
        self.epoch_value: Value | None = None  # `total` as of the last publication
        self.seen = False  # logged since the last `clear`
        self.fresh = False  # logged since `Shown` last looked

    def update(self, value: Any, size: float) -> None:
        """Take a value; `size` is its weight in the mean."""
        # The first test is `accept` for the usual case, a loss on the CPU: one call instead of six.
        if type(value) is Tensor and value.ndim == 0 and value.is_cpu and not self.graph and value.dtype in _FLOATS:
            if value.dtype is torch.float64:
                self.double = True
            value = value.item()
        elif type(value) is not float:
            if not isinstance(value, (Tensor, Real)) and is_metric(value):
                self._follow(value)
                return
            value = self.accept(value)
        if self.metric is not None:
            raise twice(self.name, self.hook)
        self.seen = self.fresh = True
        if self.on_step:
            self.last = value
        if self.on_epoch:
            self.epoch_value = None
            if type(value) is float and type(self.total) is float:
                self._add(value, size)
            else:
                self._add_on_device(value, size)

    def accept(self, value: Any) -> Value:
        """Return what is kept of a value that is no metric object.

        Raises:
            ConfigError: It is nothing that can be logged.
        """
        if isinstance(value, Tensor):
            return self._accept_tensor(value)
        if isinstance(value, Real):
            return float(value)
        kind = type(value).__name__
        if isinstance(value, dict):
            raise ConfigError(
                f"`self.log({self.name!r}, ...)` was given a dict; nested dictionaries cannot be logged. "
                "Log a flat one: self.log_dict({'name': value})."
            )
        raise ConfigError(
            f"`self.log({self.name!r}, {value!r})`: `{kind}` values cannot be logged. "
            "Log a number, a tensor of one element, or a metric object with `update`, `compute` and `reset`."
        )

    def step_value(self) -> Value:
        """Return the latest value; a metric object that keeps none per step computes it."""
        if self.last is None:
            self.last = self._plain(computed(self.metric, self.name))
        return self.last

    def own_epoch_value(self) -> Value:
        """Return this rank's value of the epoch so far; metric objects reduce over ranks themselves."""
        if self.metric is not None:
            return self._plain(computed(self.metric, self.name))
        if self.reduce != "mean":
            return self.total.clone() if isinstance(self.total, Tensor) else self.total  # it may be added to in place
        return self.total / self.weight if self.weight else math.nan

    def _add(self, value: float, size: float) -> None:
        total = self.total
        if self.reduce == "mean":
            self.total = total + value * size
            self.weight += size
        elif self.reduce == "sum":
            self.total = total + value
        elif math.isnan(value) or (value > total if self.reduce == "max" else value < total):
            self.total = value

    def _add_on_device(self, value: Any, size: float) -> None:
        total = self.total
        if not isinstance(total, Tensor):
            with torch.inference_mode(mode=False):  # an accumulator outlives the mode it is made in
                # `full` runs on the device; `torch.tensor` would copy from the host and wait for that.
                total = torch.full((), total, dtype=torch.float64 if value.is_cpu else torch.float32, device=value.device)
        if self.reduce == "mean":
            self.weight += size
        if self.graph or type(value) is float:
            self.total = _reduced(total, value, self.reduce, size)
        else:
            _reduce_in_place(total, value, self.reduce, size)
            self.total = total

    def _accept_tensor(self, value: Tensor) -> Value:
        if value.numel() != 1:
            raise ConfigError(
                f"`self.log({self.name!r}, ...)` was given a tensor of shape {tuple(value.shape)}; the tensor must have a single element. "
                "Reduce it first, for example: value.mean()."
            )
        if not value.is_floating_point():
            value = self._converted(value)
        self.double = self.double or value.dtype is torch.float64
        if self.graph:
            return value.reshape(()).clone()
        # A clone: the owner may change the tensor in place. An accumulator needs none.
        value = value.detach().reshape(())
        return value.item() if value.is_cpu else value.clone() if self.on_step else value

    def _converted(self, value: Tensor) -> Tensor:
        dtype = torch.get_default_dtype()
        if not self.has_warned:
            self.has_warned = True
            rank_zero_warn(
                f"`self.log({self.name!r}, ...)` in `{self.hook}` was given a tensor of {value.dtype}; it is converted to {dtype}, because "
                "means need floating point. Convert it yourself to silence this: value.float()."
            )
        return value.to(dtype)

    def _follow(self, metric: Any) -> None:
        if self.metric is None and self.seen:
            raise twice(self.name, self.hook)
        self.metric = metric
        self.seen = self.fresh = True
        self.epoch_value = None
        if self.on_step:
            latest = getattr(metric, "_forward_cache", None)  # what `metric(...)` returned, where it keeps that
            self.last = self._plain(latest) if isinstance(latest, Tensor) and latest.numel() == 1 else None

    def _plain(self, value: Tensor) -> Value:
        return value.item() if value.is_cpu else value.detach().reshape(()).clone()


def twice(name: str, hook: str) -> ConfigError:
    """Return the error about a name that was logged in two ways."""
    return ConfigError(
        f"You called `self.log({name!r}, ...)` twice in `{hook}` with different arguments. One name has one meaning in a hook: "
        "use the same arguments each time, or another name."
    )


def _reduced(total: Tensor, value: Any, reduce: Reduce, size: float) -> Tensor:
    if reduce == "mean":
        return total + value * size
    if reduce == "sum":
        return total + value
    value = value.to(total.dtype) if isinstance(value, Tensor) else torch.full_like(total, value)
    return torch.maximum(total, value) if reduce == "max" else torch.minimum(total, value)


def _reduce_in_place(total: Tensor, value: Tensor, reduce: Reduce, size: float) -> None:
    if reduce == "mean":
        total.add_(value, alpha=size)
    elif reduce == "sum":
        total.add_(value)
    else:
        (torch.maximum if reduce == "max" else torch.minimum)(total, value.to(total.dtype), out=total)


class HookSlots:
    """The slots of one hook of one stage, by name and loader. Loops keep it and make it `MetricStore.current`.

    Args:
        stage: The stage's slots.
        hook: The hook.
        rule: What `self.log` means inside.
    """

    __slots__ = ("hook", "rule", "slots", "stage")

    def __init__(self, stage: "StageSlots", hook: str, rule: Rule) -> None:
        self.stage = stage
        self.hook = hook
        self.rule = rule
        self.slots: dict[tuple[str, int | None], Slot] = {}


class StageSlots:
    """The slots of a stage: train, sanity, validate, test or predict.

    Args:
        name: The stage.
    """

    __slots__ = ("hooks", "is_published", "name", "on_epoch", "on_step", "results")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hooks: dict[str, HookSlots] = {}
        self.on_step: list[Slot] = []
        self.on_epoch: list[Slot] = []
        self.is_published = False  # whether this epoch's values have been shown once
        self.results: list[tuple[int | None, str, Value]] = []

    def add(self, slots: HookSlots, slot: Slot) -> None:
        """Enter a new slot."""
        slots.slots[slot.name, slot.loader] = slot
        if slot.on_step:
            self.on_step.append(slot)
        if slot.on_epoch:
            self.on_epoch.append(slot)

    def remove(self, slots: HookSlots, slot: Slot) -> None:
        """Take a slot out."""
        del slots.slots[slot.name, slot.loader]
        self.on_step = [other for other in self.on_step if other is not slot]
        self.on_epoch = [other for other in self.on_epoch if other is not slot]

    def clear(self, *, keep: str = "") -> None:
        """Forget all values, save those of the hook `keep`."""
        self.is_published = False
        for hook, slots in self.hooks.items():
            if hook != keep:
                for slot in slots.slots.values():
                    slot.clear()

    def forget(self) -> None:
        """Forget all slots; the `HookSlots` stay those that loops hold."""
        self.is_published = False
        self.on_step = list[Slot]()
        self.on_epoch = list[Slot]()
        self.results = list[tuple[int | None, str, Value]]()
        for slots in self.hooks.values():
            slots.slots.clear()
