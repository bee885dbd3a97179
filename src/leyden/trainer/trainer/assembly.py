"""What a trainer is given, completed: callbacks in order, loggers, profiler, default places."""

import importlib
import importlib.metadata
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leyden.core import job
from leyden.core.errors import ConfigError, ConfigTypeError, StateError, listed
from leyden.fabric.loggers import CSVLogger
from leyden.trainer.callbacks.defaults import default_model_summary, default_progress_bar
from leyden.trainer.callbacks.model_checkpoint import ModelCheckpoint
from leyden.trainer.callbacks.model_summary import ModelSummary
from leyden.trainer.callbacks.progress.progress_bar import ProgressBar
from leyden.trainer.callbacks.timer import Timer
from leyden.trainer.core.callback import Callback, Checkpoint
from leyden.trainer.engine.plan import CallbackList
from leyden.trainer.loggers.dummy import DummyLogger
from leyden.trainer.loggers.tensorboard import TensorBoardLogger
from leyden.trainer.profilers.profiler import PassThroughProfiler, Profiler
from leyden.trainer.trainer.config import TrainerConfig
from leyden.trainer.trainer.jobs import KeptVersion

CALLBACK_GROUPS = ("leyden.trainer.callbacks", "lightning.pytorch.callbacks_factory")


class DuplicateKeyError(StateError):
    """Two callbacks with state have the same key."""


def complete_callbacks(given: Any, config: TrainerConfig, raw: dict[str, Any]) -> CallbackList:
    """Return the callbacks with defaults and discovered ones, in order.

    Raises:
        ConfigError: A default was switched off and one was given, or there are two progress bars.
    """
    callbacks = _as_list(given)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigTypeError(f"callbacks has {callback!r}. Accepted are objects of leyden.trainer.Callback.")
    callbacks += discovered_callbacks()
    _default(callbacks, ModelCheckpoint, "enable_checkpointing", raw, config.defaults.enable_checkpointing, kind=Checkpoint)
    if config.limits.max_time is not None and not any(isinstance(callback, Timer) for callback in callbacks):
        callbacks.append(Timer(duration=config.limits.max_time, interval="step"))
    bars = [callback for callback in callbacks if isinstance(callback, ProgressBar)]
    if len(bars) > 1:
        names = listed([type(bar).__name__ for bar in bars])
        raise ConfigError(f"You added multiple progress bar callbacks to the Trainer, but only one is supported: {names}. Keep one.")
    _default(callbacks, default_progress_bar, "enable_progress_bar", raw, config.defaults.enable_progress_bar, kind=ProgressBar)
    _default(callbacks, default_model_summary, "enable_model_summary", raw, config.defaults.enable_model_summary, kind=ModelSummary)
    check_state_keys(callbacks)
    return CallbackList(in_order(callbacks))


def _default(callbacks: list[Any], make: Any, argument: str, raw: dict[str, Any], enabled: bool, *, kind: type) -> None:  # noqa: FBT001 - private
    found = [callback for callback in callbacks if isinstance(callback, kind)]
    if found and raw[argument] is False and kind is not ModelSummary:  # a summary given is one wanted
        shown = "ModelCheckpoint" if kind is Checkpoint else type(found[0]).__name__
        raise ConfigError(f"Trainer was configured with `{argument}=False` but found `{shown}` in the callbacks list. Drop one of the two.")
    if not found and enabled:
        callbacks.append(make())


def in_order(callbacks: Iterable[Any]) -> list[Any]:
    """Return callbacks in the order they are called: finders first, savers last."""
    finders, others, savers = list[Any](), list[Any](), list[Any]()
    for callback in callbacks:
        name = {parent.__name__ for parent in type(callback).__mro__}
        if name & {"LearningRateFinder", "BatchSizeFinder"}:
            finders.append(callback)
        elif isinstance(callback, Checkpoint):
            savers.append(callback)
        else:
            others.append(callback)
    return [*finders, *others, *savers]


def with_module_callbacks(callbacks: Iterable[Any], module: Any) -> list[Any]:
    """Return the callbacks with those that the module brings: they replace the trainer's of the same or a parent type."""
    own = _as_list(module.configure_callbacks())
    if not own:
        return list(callbacks)
    kept = [callback for callback in callbacks if type(callback) is Callback or not any(isinstance(new, type(callback)) for new in own)]
    return in_order([*kept, *own])


def check_state_keys(callbacks: Iterable[Any]) -> None:
    """Refuse two callbacks with state and the same key.

    Raises:
        DuplicateKeyError: There are some.
    """
    seen: set[str] = set()
    for callback in callbacks:
        has_state = (
            type(callback).state_dict is not Callback.state_dict or type(callback).on_save_checkpoint is not Callback.on_save_checkpoint
        )
        if not has_state:
            continue
        if callback.state_key in seen:
            raise DuplicateKeyError(
                f"Found more than one stateful callback of type `{type(callback).__name__}` with the state_key {callback.state_key!r}. "
                "Override `state_key` so that they differ."
            )
        seen.add(callback.state_key)


def discovered_callbacks() -> list[Any]:
    """Return the callbacks that installed packages bring along."""
    found: list[Any] = []
    for group in CALLBACK_GROUPS:
        for entry in importlib.metadata.entry_points(group=group):
            found.extend(_as_list(entry.load()()))
    return found


# -- loggers and places ------------------------------------------------------------------------------------------


def complete_loggers(given: Any, config: TrainerConfig, root_dir: str, kept: KeptVersion) -> list[Any]:
    """Return the loggers: `True` is TensorBoard files, in a job with the version that an earlier attempt took; `False` none."""
    if config.defaults.barebones or given is False or (isinstance(given, (list, tuple)) and not given):
        return []
    if config.fast_dev_run:
        return [DummyLogger()]
    if given is True or given is None:
        return [TensorBoardLogger(root_dir, version=kept.take())]
    loggers = _as_list(given)
    for logger in loggers:
        if not callable(getattr(logger, "log_metrics", None)):
            raise ConfigTypeError(f"logger={logger!r}: accepted are True, False, a Logger such as {CSVLogger.__name__}('logs'), or a list.")
    return loggers


def root_of(given: Any) -> str:
    """Return the directory under which everything lies that has no other place."""
    if given is not None:
        return os.fspath(given)
    current = job.current_job()
    return str(current.output_dir) if current is not None else os.fspath(Path.cwd())


def log_dir_of(loggers: list[Any], root_dir: str) -> str | None:
    """Return the directory of the first logger, else the root directory."""
    if not loggers:
        return root_dir
    first = loggers[0]
    own = getattr(first, "log_dir", None)
    return own if own is not None else first.save_dir


def make_profiler(given: Any) -> Profiler:
    """Return the profiler for Trainer's argument; for none, one that measures nothing.

    Raises:
        ConfigError: An unknown name, or something that is no profiler.
    """
    if given is None:
        return PassThroughProfiler()
    known = {"simple": "SimpleProfiler", "advanced": "AdvancedProfiler", "pytorch": "PyTorchProfiler"}
    if isinstance(given, str):
        if given.lower() not in known:
            raise ConfigError(f"When passing a string for the profiler, it can only be one of {listed(known)}, not {given!r}.")
        module = importlib.import_module(f"leyden.trainer.profilers.{given.lower()}")  # only who profiles imports them
        return getattr(module, known[given.lower()])()
    if not isinstance(given, Profiler):
        raise ConfigTypeError(f"profiler={given!r}: it can only be one of {listed(known)}, or a Profiler such as SimpleProfiler().")
    return given


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
