"""Trainer's arguments, checked and put into frozen configurations, one per concern.

| configuration | arguments |
|---|---|
| `RunLimits` | when training ends |
| `Cadence` | how much data, how often validation and rows |
| `Gradients` | accumulation and clipping |
| `Defaults` | what is added or switched on unless told otherwise |

Defaults come from the environment where an argument is not given: `LEYDEN_TRAINER_<ARGUMENT>`, else `PL_TRAINER_<ARGUMENT>`.
"""

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError, closest
from leyden.core.lazy import Later
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.trainer.core.optimization import check_clip

if TYPE_CHECKING:
    from leyden.trainer.data import limits as bounds
    from leyden.trainer.engine import every as rhythm
else:  # needed when a trainer is made
    bounds, rhythm = Later("leyden.trainer.data.limits"), Later("leyden.trainer.engine.every")

PREFIXES = ("LEYDEN_TRAINER_", "PL_TRAINER_")
ENDLESS = -1
DEFAULT_EPOCHS = 1000
"""Where nothing else limits fit; fit warns of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLimits:
    """When training ends.

    Args:
        max_epochs: -1 for no limit.
        min_epochs: Stop requests wait for it.
        max_steps: -1 for no limit.
        min_steps: Stop requests wait for it.
        max_time: Seconds, or `None`.
    """

    max_epochs: int
    min_epochs: int | None
    max_steps: int
    min_steps: int | None
    max_time: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Cadence:
    """How much data, and what happens how often.

    Args:
        limits: Stage → fraction or count of batches.
        val_check_interval: As given.
        check_val_every_n_epoch: As given; `None` counts batches over epochs.
        validation_seconds: Validate after so many seconds.
        validation_steps: Validate after so many optimizer steps.
        num_sanity_val_steps: Batches of the sanity check; infinite: all.
        log_every_n_steps: Training rows; 0 is never.
        reload_dataloaders_every_n_epochs: 0 is never.
        overfit_batches: Fraction or count; 0 is off.
    """

    limits: Mapping[str, float]
    val_check_interval: Any
    check_val_every_n_epoch: int | None
    validation_seconds: float | None
    validation_steps: int | None
    num_sanity_val_steps: float
    log_every_n_steps: int
    reload_dataloaders_every_n_epochs: int
    overfit_batches: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradients:
    """What happens to gradients before the step."""

    accumulate: int
    value: Any
    algorithm: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What is added or switched on unless told otherwise."""

    enable_checkpointing: bool
    enable_progress_bar: bool
    enable_model_summary: bool
    inference_mode: bool
    detect_anomaly: bool
    barebones: bool
    use_distributed_sampler: bool
    enable_autolog_hparams: bool
    sync_batchnorm: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """All of it.

    Args:
        limits: When training ends.
        cadence: How much, how often.
        gradients: Accumulation and clipping.
        defaults: Switches.
        fast_dev_run: Batches of a trial run; 0 is none.
    """

    limits: RunLimits
    cadence: Cadence
    gradients: Gradients
    defaults: Defaults
    fast_dev_run: int


def from_environment(given: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with those filled in from the environment that were left at their default.

    Values are Python literals, else strings; empty ones count as unset. An unknown name warns with the closest one.
    """
    environ = settings.environment()
    result = dict(given)
    for variable in sorted(name for name in environ if name.startswith(PREFIXES)):
        prefix = next(prefix for prefix in PREFIXES if variable.startswith(prefix))
        name = variable.removeprefix(prefix).lower()
        if variable == "LEYDEN_TRAINER_JOB_CHECKPOINT_SECONDS" or not environ[variable] or settings.is_claimed(variable):
            continue
        if name not in defaults:
            rank_zero_warn(f"The environment variable {variable} names no argument of Trainer.{closest(name, defaults)}")
            continue
        if name in given or (prefix == PREFIXES[1] and environ.get(PREFIXES[0] + name.upper())):
            continue
        result[name] = _literal(environ[variable])
        rank_zero_info("Trainer(%s=%r) comes from the environment variable %s.", name, result[name], variable)
    return result


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def configure(arguments: Mapping[str, Any]) -> TrainerConfig:
    """Return the configuration for Trainer's arguments.

    Raises:
        ConfigError: An argument cannot be right, or two contradict each other.
        ConfigTypeError: An argument is of the wrong type.
    """
    get = arguments.__getitem__
    if get("barebones"):
        _check_barebones(arguments)
    fast = _fast_dev_run(get("fast_dev_run"))
    check_clip(get("gradient_clip_val"), get("gradient_clip_algorithm"))
    if get("gradient_clip_algorithm") is not None and get("gradient_clip_val") is None:
        rank_zero_warn(f"gradient_clip_algorithm={get('gradient_clip_algorithm')!r} has no effect without gradient_clip_val.")
    return TrainerConfig(
        limits=_limits(arguments, fast),
        cadence=_cadence(arguments, fast),
        gradients=Gradients(
            accumulate=_accumulate(get("accumulate_grad_batches")),
            value=get("gradient_clip_val"),
            algorithm=None if get("gradient_clip_algorithm") is None else str(get("gradient_clip_algorithm")).lower(),
        ),
        defaults=_defaults(arguments, fast),
        fast_dev_run=fast,
    )


def _fast_dev_run(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        raise ConfigError(f"fast_dev_run={value!r} is not a valid configuration. It should be >= 0.")
    if not isinstance(value, (bool, int)):
        raise ConfigTypeError(f"fast_dev_run={value!r} should be a bool or an int. It should be >= 0.")
    return int(value)


def _limits(arguments: Mapping[str, Any], fast: int) -> RunLimits:
    max_epochs, max_steps = arguments["max_epochs"], arguments["max_steps"]
    min_epochs, min_steps = arguments["min_epochs"], arguments["min_steps"]
    for name, value in (("max_epochs", max_epochs), ("max_steps", max_steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < ENDLESS):
            raise ConfigError(f"`{name}` must be a non-negative integer or -1 (infinite), not {value!r}.")
    if fast:
        return RunLimits(max_epochs=1, min_epochs=None, max_steps=fast, min_steps=None, max_time=None)
    if max_steps is None:
        raise ConfigError("`max_steps` must be a non-negative integer or -1 (infinite), not None.")
    if min_steps is not None and min_epochs is None:
        min_epochs = 1
    if max_epochs is None:
        is_limited = max_steps != ENDLESS or arguments["max_time"] is not None
        max_epochs = ENDLESS if is_limited else DEFAULT_EPOCHS
    if min_steps is not None and max_steps != ENDLESS and min_steps > max_steps:
        rank_zero_warn(f"min_steps={min_steps} has no effect: max_steps={max_steps} comes first.")
    if min_epochs is not None and max_epochs != ENDLESS and min_epochs > max_epochs:
        rank_zero_warn(f"min_epochs={min_epochs} has no effect: max_epochs={max_epochs} comes first.")
    return RunLimits(max_epochs=max_epochs, min_epochs=min_epochs, max_steps=max_steps, min_steps=min_steps, max_time=arguments["max_time"])


def _cadence(arguments: Mapping[str, Any], fast: int) -> Cadence:
    every_epoch = arguments["check_val_every_n_epoch"]
    given = arguments["val_check_interval"]
    interval = _Interval.of(1.0 if given is None else given)
    bounds.check_validation(interval.batches if interval.is_batches and given is not None else None, every_epoch)
    overfit = bounds.check_limit("overfit_batches", arguments["overfit_batches"])
    limits: dict[str, float] = {}
    for stage in ("train", "val", "test", "predict"):
        name = f"limit_{stage}_batches"
        value = bounds.check_limit(name, 1.0 if arguments[name] is None else arguments[name])
        overfits = bool(overfit) and stage in ("train", "val")
        if arguments[name] is not None:
            bounds.tell_one(name, value)
            if overfits and not fast:
                rank_zero_warn(f"{name}={value} has no effect: overfit_batches={overfit} comes first.")
        limits[stage] = fast or (overfit if overfits else value)
    sanity = 2 if arguments["num_sanity_val_steps"] is None else arguments["num_sanity_val_steps"]
    if fast or arguments["barebones"]:
        sanity = 0
    if fast:
        interval, every_epoch = _Interval(batches=1.0), 1
    log_every = arguments["log_every_n_steps"]
    for name, value in (("num_sanity_val_steps", sanity), ("log_every_n_steps", log_every)):
        if value is not None and not isinstance(value, int):
            raise ConfigError(f"`{name}` should be an int, got {value!r}: the number of batches, or 0 for none.")
    return Cadence(
        limits=limits,
        val_check_interval=interval.batches,
        check_val_every_n_epoch=every_epoch,
        validation_seconds=interval.seconds,
        validation_steps=interval.steps,
        num_sanity_val_steps=math.inf if sanity == ENDLESS else int(sanity),
        log_every_n_steps=0 if arguments["barebones"] else 50 if log_every is None else int(log_every),
        reload_dataloaders_every_n_epochs=bounds.check_reload(arguments["reload_dataloaders_every_n_epochs"]),
        overfit_batches=overfit,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Interval:
    """`val_check_interval`, in one of its three measures."""

    batches: Any = 1.0
    seconds: float | None = None
    steps: int | None = None

    @property
    def is_batches(self) -> bool:
        return self.seconds is None and self.steps is None

    @classmethod
    def of(cls, value: Any) -> "_Interval":
        if not isinstance(value, (str, timedelta, Mapping)):
            return cls(batches=bounds.check_limit("val_check_interval", value))
        every = rhythm.Every.parse(value)
        if every.is_time:
            return cls(seconds=every.seconds)
        if every.unit is rhythm.Unit.EPOCH:
            return cls(batches=float(every.amount))
        if every.unit is rhythm.Unit.STEP:
            return cls(steps=int(every.amount))
        if every.unit is rhythm.Unit.BATCH:
            return cls(batches=int(every.amount))
        raise ConfigError(f"val_check_interval={value!r}: validation is due every so many batches, steps, epochs or seconds.")


def _accumulate(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"accumulate_grad_batches={value!r} should be an int >= 1. Use GradientAccumulationScheduler for a schedule.")
    return value


def _defaults(arguments: Mapping[str, Any], fast: int) -> Defaults:
    bare = arguments["barebones"]

    def switch(name: str) -> bool:
        value = arguments[name]
        return not bare if value is None else bool(value)

    return Defaults(
        enable_checkpointing=switch("enable_checkpointing") and not fast,
        enable_progress_bar=switch("enable_progress_bar"),
        enable_model_summary=switch("enable_model_summary"),
        inference_mode=bool(arguments["inference_mode"]),
        detect_anomaly=bool(arguments["detect_anomaly"]),
        barebones=bool(bare),
        use_distributed_sampler=bool(arguments["use_distributed_sampler"]),
        enable_autolog_hparams=bool(arguments["enable_autolog_hparams"]),
        sync_batchnorm=bool(arguments["sync_batchnorm"]),
    )


def _check_barebones(arguments: Mapping[str, Any]) -> None:
    switches = (
        "enable_checkpointing",
        "logger",
        "enable_progress_bar",
        "log_every_n_steps",
        "enable_model_summary",
        "num_sanity_val_steps",
    )
    for name in (*switches, "fast_dev_run", "detect_anomaly", "profiler"):
        value = arguments[name]
        if value not in (None, False) and not (name in ("log_every_n_steps", "num_sanity_val_steps") and value == 0):
            raise ConfigError(
                f"`Trainer(barebones=True, {name}={value!r})` was passed. Bare-bones runs have neither: drop one of the two arguments."
            )
    rank_zero_info("Trainer(barebones=True): no logger, checkpoints, progress bar, summary and sanity check, and self.log does nothing.")
