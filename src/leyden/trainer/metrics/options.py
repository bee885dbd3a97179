"""What `self.log` was told about a name, checked against the hook it is called in. Pure; runs at the first call of each name."""

import builtins
from dataclasses import dataclass
from typing import Any, Literal

import torch

from leyden.core.errors import ConfigError, closest
from leyden.trainer.engine.hookspec import Rule

Reduce = Literal["mean", "sum", "min", "max"]
Given = tuple[Any, ...]
"""The options as they came, in the order of `Options`; compared at each call."""

REDUCTIONS: tuple[Reduce, ...] = ("mean", "sum", "min", "max")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one logged name, with defaults filled in.

    Args:
        prog_bar: Whether the progress bar shows it.
        logger: Whether loggers get it.
        on_step: Whether each step's value counts.
        on_epoch: Whether the reduced value of the epoch counts.
        reduce: How the values of an epoch become one.
        enable_graph: Whether the autograd graph is kept.
        sync_dist: Whether it is reduced over ranks.
        sync_dist_group: Over which; `None` is all of them.
        add_dataloader_idx: Whether the loader's number is appended to the name.
        metric_attribute: The module's attribute that holds the metric object.
        rank_zero_only: Whether only rank 0 logs it.
    """

    prog_bar: bool
    logger: bool
    on_step: bool
    on_epoch: bool
    reduce: Reduce
    enable_graph: bool
    sync_dist: bool
    sync_dist_group: Any
    add_dataloader_idx: bool
    metric_attribute: str | None
    rank_zero_only: bool


def resolve(given: Given, *, name: str, hook: str, rule: Rule) -> Options:
    """Return the options with the defaults of this hook.

    Args:
        given: As they came.
        name: The logged name.
        hook: The hook that runs.
        rule: What `self.log` means inside it.

    Raises:
        ConfigError: Nothing may be logged here, or not so.
    """
    prog_bar, logger, on_step, on_epoch, reduce_fx, *rest = given
    if rule == "never":
        raise ConfigError(
            f"You can't `self.log()` inside `{hook}` (name {name!r}): it has neither a step nor an epoch that a value could belong to. "
            "Log in a step or a batch or epoch hook, or call self.logger.log_metrics({...}) yourself."
        )
    if "/dataloader_idx_" in name:
        raise ConfigError(
            f"`self.log({name!r}, ...)`: the name holds `/dataloader_idx_`, which is appended where several loaders are evaluated. "
            "Leave it out, and pass add_dataloader_idx=True, the default."
        )
    if rule == "epoch_only" and (on_step or on_epoch is False):
        raise ConfigError(
            f"You can't `self.log({'on_step=True' if on_step else 'on_epoch=False'})` inside `{hook}` (name {name!r}): it runs once per "
            "epoch. Leave on_step and on_epoch out there."
        )
    on_step = rule == "step" if on_step is None else bool(on_step)
    on_epoch = rule != "step" if on_epoch is None else bool(on_epoch)
    if not on_step and not on_epoch:
        raise ConfigError(
            f"`self.log({name!r}, ..., on_step=False, on_epoch=False)` inside `{hook}` is not useful: no value would be kept. "
            "Set one of them to True."
        )
    return Options(bool(prog_bar), True if logger is None else bool(logger), on_step, on_epoch, reduction(reduce_fx, name), *rest)


def reduction(reduce_fx: Any, name: str) -> Reduce:
    """Return the reduction that was named or passed as a function.

    Raises:
        ConfigError: It is another one.

    Example:
        >>> reduction("avg", "loss"), reduction(torch.max, "loss"), reduction(min, "loss")
        ('mean', 'max', 'min')
    """
    for reduce in REDUCTIONS:
        if reduce_fx in (reduce, getattr(torch, reduce), getattr(builtins, reduce, reduce)):
            return reduce
    if reduce_fx == "avg":
        return "mean"
    raise ConfigError(
        f"`self.log({name!r}, ..., reduce_fx={reduce_fx!r})`: only 'mean', 'sum', 'min' and 'max', or the functions of these names, "
        f"are supported.{closest(str(reduce_fx), REDUCTIONS)} For another one log a metric object with `update`, `compute` and `reset`."
    )
