"""`LightningOptimizer`, and what `configure_optimizers` may return: every documented form becomes one `OptimizerPlan`."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, closest, listed
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.strategies.strategy import Strategy
from leyden.fabric.wrappers import FabricOptimizer

IGNORED_IN_MANUAL = ("interval", "frequency", "reduce_on_plateau", "monitor", "strict")
_OPTIMIZER_KEYS = ("optimizer", "lr_scheduler", "monitor")


class StepEvents(Protocol):
    """What the loop wants to know of a step."""

    def before_step(self, optimizer: Optimizer) -> None:
        """The closure has run; gradients are there and nothing has changed yet."""

    def after_step(self, optimizer: Optimizer) -> None:
        """The weights have changed."""


class LightningOptimizer(FabricOptimizer):
    """The optimizer that `self.optimizers()` returns: stepping it goes through the strategy and fires the hooks.

    It is also an instance of the wrapped optimizer's class, and has its attributes.

    Args:
        optimizer: The user's optimizer.
        strategy: The strategy that steps it.
        events: Told of each step; `None` tells nobody.
        module: The module that `toggle_model` acts on.
    """

    def __new__(
        cls, optimizer: Optimizer, strategy: Strategy, events: StepEvents | None = None, module: Any = None
    ) -> "LightningOptimizer":
        wrapped = type(optimizer)
        return object.__new__(type(f"Lightning{wrapped.__name__}", (LightningOptimizer, wrapped), {"__module__": __name__}))

    def __init__(self, optimizer: Optimizer, strategy: Strategy, events: StepEvents | None = None, module: Any = None) -> None:
        super().__init__(optimizer, strategy)
        self.__dict__["_events"] = events
        self.__dict__["_module"] = module
        # A step without a closure needs none then: a closure makes torch enter a context, ten calls of a step by hand.
        is_plain = type(strategy).optimizer_step is Strategy.optimizer_step and strategy.precision.plain
        self.__dict__["_goes_without_closure"] = is_plain and not needs_closure(optimizer)

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Step.

        Args:
            closure: Computes the loss and its gradients first.
            **kwargs: Passed to the optimizer's own `step`.

        Raises:
            ConfigTypeError: The closure cannot be called.
        """
        if closure is not None and not callable(closure):
            raise ConfigTypeError(f"optimizer.step(closure={closure!r}): the closure should be callable.")
        optimizer, events = self._optimizer, self.__dict__["_events"]
        if closure is None and self.__dict__["_goes_without_closure"]:
            if events is not None:
                events.before_step(optimizer)
            result = optimizer.step(**kwargs)
            if events is not None:
                events.after_step(optimizer)
            return result

        def compute() -> Any:
            result = closure() if closure is not None else None
            if events is not None:
                events.before_step(optimizer)
            return result

        result = self._strategy.optimizer_step(optimizer, closure=compute, **kwargs)
        if events is not None:
            events.after_step(optimizer)
        return result

    @contextmanager
    def toggle_model(self, sync_grad: bool = True) -> Iterator[None]:
        """Within the block, only this optimizer's parameters require gradients.

        Args:
            sync_grad: Whether gradients are reduced over ranks; `False` while accumulating.
        """
        module = self.__dict__["_module"]
        if module is None:
            raise StateError("toggle_model() needs the module that the trainer runs; use the optimizer that self.optimizers() returns.")
        trainer = module.trainer
        blocked = nullcontext() if sync_grad else self._strategy.no_backward_sync(trainer.model)
        with blocked:
            module.toggle_optimizer(self)
            try:
                yield
            finally:
                module.untoggle_optimizer(self)

    def __reduce__(self) -> Any:
        return (LightningOptimizer, (self._optimizer, self._strategy))


def needs_closure(optimizer: Optimizer) -> bool:
    """Return whether an optimizer cannot step without a closure.

    Example:
        >>> import torch
        >>> weights = [torch.nn.Parameter(torch.ones(1))]
        >>> needs_closure(torch.optim.LBFGS(weights)), needs_closure(torch.optim.SGD(weights))
        (True, False)
    """
    parameter = inspect.signature(optimizer.step).parameters.get("closure")
    return parameter is not None and parameter.default is inspect.Parameter.empty


@dataclass
class LRSchedulerConfig:
    """A scheduler and when it steps.

    Args:
        scheduler: The scheduler.
        name: What `LearningRateMonitor` calls it.
        interval: `"epoch"` or `"step"`.
        frequency: Step every so many intervals.
        reduce_on_plateau: Whether it wants a metric.
        monitor: The metric's name.
        strict: Whether an absent metric is an error.
    """

    scheduler: Any
    name: str | None = None
    interval: str = "epoch"
    frequency: int = 1
    reduce_on_plateau: bool = False
    monitor: str | None = None
    strict: bool = True


@dataclass(frozen=True, slots=True)
class OptimizerPlan:
    """What `configure_optimizers` returned.

    Args:
        optimizers: The optimizers, in order.
        schedulers: The schedulers, in order.
    """

    optimizers: list[Any] = field(default_factory=list)
    schedulers: list[LRSchedulerConfig] = field(default_factory=list)


def plan_optimizers(returned: Any, *, automatic: bool, custom_step: bool = False) -> OptimizerPlan:
    """Return the plan for what `configure_optimizers` returned.

    Args:
        returned: Any of the documented forms.
        automatic: Whether the loop steps schedulers.
        custom_step: Whether the module overrides `lr_scheduler_step`, so that schedulers of any kind are fine.

    Raises:
        ConfigError: No documented form, or a scheduler's dictionary that cannot be right.
        TypeError: A scheduler without state.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        >>> plan_optimizers({"optimizer": sgd}, automatic=True).optimizers == [sgd]
        True
    """
    if returned is None:
        rank_zero_warn("`LightningModule.configure_optimizers` returned `None`, this fit will run with no optimizer.")
        return OptimizerPlan()
    optimizers, schedulers, monitor = _take_apart(returned)
    configure = _automatic_scheduler if automatic else _manual_scheduler
    configs = [configure(scheduler, monitor) for scheduler in schedulers]
    plan = OptimizerPlan(optimizers, configs)
    for config in configs:
        _check_scheduler(config, plan, custom_step=custom_step)
    return plan


def _take_apart(returned: Any) -> tuple[list[Any], list[Any], str | None]:
    """Return optimizers, schedulers as given, and the monitor of the outer dictionary."""
    if _is_optimizer(returned):
        return [returned], [], None
    if isinstance(returned, Mapping):
        return _from_dicts([returned])
    if isinstance(returned, Sequence) and returned:
        if len(returned) == 2 and isinstance(returned[0], (list, tuple)) and all(_is_optimizer(item) for item in returned[0]):
            schedulers = returned[1]
            return list(returned[0]), list(schedulers) if isinstance(schedulers, (list, tuple)) else [schedulers], None
        if all(isinstance(item, Mapping) for item in returned):
            return _from_dicts(returned)
        if all(_is_optimizer(item) for item in returned):
            return list(returned), [], None
    raise ConfigError(
        f"Unknown configuration for model optimizers. configure_optimizers() returned {type(returned).__name__}: {returned!r}. Accepted "
        "are an optimizer, a list of them, ([optimizers], [schedulers]), a dictionary with `optimizer` and `lr_scheduler`, a tuple of such "
        "dictionaries, or None."
    )


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, Optimizer) or (callable(getattr(value, "step", None)) and hasattr(value, "param_groups"))


def _from_dicts(dicts: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any], str | None]:
    optimizers: list[Any] = []
    schedulers: list[Any] = []
    monitor: str | None = None
    for entry in dicts:
        if extra := [key for key in entry if key not in _OPTIMIZER_KEYS]:
            rank_zero_warn(f"Found unsupported keys in the optimizer configuration: {set(extra)}.{closest(str(extra[0]), _OPTIMIZER_KEYS)}")
        if not _is_optimizer(entry.get("optimizer")):
            raise ConfigError(
                f"Unknown configuration for model optimizers. A dictionary needs the key 'optimizer'; this one has {listed(entry)}."
            )
        optimizers.append(entry["optimizer"])
        monitor = entry.get("monitor", monitor)
        scheduler = entry.get("lr_scheduler")
        if scheduler is None:
            continue
        if isinstance(scheduler, Mapping):
            scheduler = {**({"monitor": entry["monitor"]} if "monitor" in entry else {}), **scheduler}
        elif isinstance(scheduler, ReduceLROnPlateau) and "monitor" in entry:
            scheduler = {"scheduler": scheduler, "monitor": entry["monitor"]}
        schedulers.append(scheduler)
    return optimizers, schedulers, monitor


def _automatic_scheduler(given: Any, monitor: str | None) -> LRSchedulerConfig:
    if not isinstance(given, Mapping):
        if isinstance(given, ReduceLROnPlateau):
            if monitor is None:
                raise _no_monitor()
            return LRSchedulerConfig(given, reduce_on_plateau=True, monitor=monitor)
        return LRSchedulerConfig(given)
    known = [item.name for item in fields(LRSchedulerConfig)]
    if extra := [key for key in given if key not in known]:
        rank_zero_warn(f"Found unsupported keys in the lr scheduler dict: {set(extra)}.{closest(str(extra[0]), known)}")
    if "scheduler" not in given:
        raise ConfigError(
            f'The lr scheduler dict must have the key "scheduler" with its item being an lr scheduler; it has {listed(given)}.'
        )
    config = LRSchedulerConfig(**{key: given[key] for key in known if key in given})
    if "interval" in given and given["interval"] not in ("step", "epoch"):
        raise ConfigError(f'The "interval" key in lr scheduler dict must be "step" or "epoch", but is {given["interval"]!r}.')
    config.reduce_on_plateau = bool(given.get("reduce_on_plateau", isinstance(config.scheduler, ReduceLROnPlateau)))
    if config.reduce_on_plateau and config.monitor is None:
        raise _no_monitor()
    return config


def _no_monitor() -> ConfigError:
    return ConfigError(
        "The lr scheduler dict must include a monitor when a `ReduceLROnPlateau` scheduler is used. For example: "
        '{"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "your_loss"}}'
    )


def _manual_scheduler(given: Any, monitor: str | None) -> LRSchedulerConfig:
    if not isinstance(given, Mapping):
        return LRSchedulerConfig(given)
    if "scheduler" not in given:
        raise ConfigError(
            f'The lr scheduler dict must have the key "scheduler" with its item being an lr scheduler; it has {listed(given)}.'
        )
    if ignored := [key for key in given if key in IGNORED_IN_MANUAL]:
        rank_zero_warn(
            f"The lr scheduler dict contains the key(s) {ignored}, but the keys will be ignored. In manual optimization, call "
            "`lr_scheduler.step()` yourself."
        )
    return LRSchedulerConfig(given["scheduler"], name=given.get("name"))


def _check_scheduler(config: LRSchedulerConfig, plan: OptimizerPlan, *, custom_step: bool) -> None:
    scheduler = config.scheduler
    name = type(scheduler).__name__
    if not all(callable(getattr(scheduler, method, None)) for method in ("state_dict", "load_state_dict")):
        raise ConfigTypeError(f"The provided lr scheduler `{name}` is invalid. It should have `state_dict` and `load_state_dict` methods.")
    if not isinstance(scheduler, (LRScheduler, ReduceLROnPlateau)) and not custom_step:
        raise _foreign(name)
    optimizer = getattr(scheduler, "optimizer", None)
    if optimizer is not None and not any(optimizer is own or optimizer is getattr(own, "optimizer", None) for own in plan.optimizers):
        raise ConfigError(
            f"The scheduler {name} is attached with an optimizer that wasn't returned from `configure_optimizers`. "
            "Return that optimizer too."
        )


def _foreign(name: str) -> ConfigError:
    return ConfigError(
        f"The provided lr scheduler `{name}` doesn't follow PyTorch's LRScheduler API. Override `LightningModule.lr_scheduler_step` "
        "with your own logic if it is a custom scheduler."
    )
