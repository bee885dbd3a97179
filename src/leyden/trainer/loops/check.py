"""What a module must have for an entry point; looked at before anything starts."""

import difflib
import inspect

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.utilities.warnings import PossibleUserWarning
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.module import LightningModule
from leyden.trainer.engine.hookspec import HOOKS
from leyden.trainer.engine.plan import is_overridden
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.signatures import parameter, positional_count, takes_anything

_GONE = {
    "training_epoch_end": "on_train_epoch_end",
    "validation_epoch_end": "on_validation_epoch_end",
    "test_epoch_end": "on_test_epoch_end",
    "training_step_end": "training_step",
}
_STEPS = {"validate": "validation_step", "test": "test_step"}
_LOADERS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


class OptimizerIndexError(ConfigError, RuntimeError):
    """The argument `optimizer_idx` is no more."""


class DataloaderIndexError(ConfigError, RuntimeError):
    """A step or hook does not take the number of its loader."""


class HookSignatureError(ConfigTypeError):
    """A hook does not take what it is called with."""


class GoneHookError(ConfigError, NotImplementedError):
    """A hook of an older version is overridden."""


def check_configuration(run: Run) -> None:
    """Refuse a module that cannot run this entry point.

    Raises:
        ConfigError: A method is missing, or two settings contradict each other.
    """
    fn, plan = run.state.fn, run.plan
    for old, new in _GONE.items():
        if callable(getattr(run.module, old, None)):
            raise GoneHookError(
                f"Support for `{old}` has been removed. {type(run.module).__name__} implements it; use `{new}` instead, and keep the "
                "outputs you need in an attribute."
            )
    check_hooks(run)
    if fn == "fit":
        _check_fit(run)
    elif fn in _STEPS and not plan.overrides(_STEPS[fn]):
        raise ConfigError(f"No `{_STEPS[fn]}()` method defined to run `Trainer.{fn}`. Define `{_STEPS[fn]}(self, batch, batch_idx)`.")
    elif fn == "predict" and not plan.overrides("predict_step") and not plan.overrides("forward"):
        raise ConfigError("`Trainer.predict` requires `forward` method to run, or a `predict_step`. Define one of them.")
    if not run.source.has(_LOADERS[fn]):
        run.source.raw(_LOADERS[fn])  # says what is missing


def check_hooks(run: Run) -> None:
    """Refuse hooks that cannot take what they are called with, and warn of methods that look like a misspelled hook.

    Raises:
        HookSignatureError: There is one that cannot.
    """
    owners = [(run.module, LightningModule), *((callback, Callback) for callback in run.callbacks)]
    for owner, base in owners:
        _warn_of_misspelled(owner, base)
        for name in HOOKS:
            if name.startswith(("on_", "setup", "teardown")) and hasattr(base, name) and is_overridden(owner, name, base):
                _check_signature(owner, base, name)


def _warn_of_misspelled(owner: object, base: type) -> None:
    for name in vars(type(owner)):
        if name.startswith("on_") and not hasattr(base, name) and (close := difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.8)):
            rank_zero_warn(f"`{type(owner).__name__}.{name}` is no hook and is never called. Did you mean `{close[0]}`?")


def _check_signature(owner: object, base: type, name: str) -> None:
    """Bind what the loop hands over to the user's function: the arguments that the documented hook requires, or all of them."""
    documented = list(inspect.signature(getattr(base, name)).parameters.values())[1:]
    required = [argument for argument in documented if argument.default is argument.empty]
    try:
        own = inspect.signature(getattr(owner, name))
    except (TypeError, ValueError):  # a function written in C says nothing of itself
        return
    if not any(_binds(own, arguments) for arguments in (required, documented)):
        shown = ", ".join(argument.name for argument in required)
        raise HookSignatureError(
            f"`{type(owner).__name__}.{name}{own}` cannot be called with ({shown}), as it will be. "
            f"Define it as `def {name}(self, {shown})`."
        )


def _binds(signature: inspect.Signature, arguments: list[inspect.Parameter]) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _check_fit(run: Run) -> None:
    plan, module = run.plan, run.module
    for name in ("training_step", "configure_optimizers"):
        if not plan.overrides(name):
            raise ConfigError(
                f"No `{name}()` method defined. `Trainer.fit` needs at least `training_step()`, `configure_optimizers()` and a loader; "
                f"define `{name}` in {type(module).__name__}."
            )
    if parameter(module.training_step, "optimizer_idx") is not None:
        raise OptimizerIndexError(
            "Remove the `optimizer_idx` argument from `training_step`. Several optimizers are stepped by hand: set "
            "`self.automatic_optimization = False` in `__init__`."
        )
    has_loader, has_step = run.source.has("val"), plan.overrides("validation_step")
    if has_loader and not has_step:
        rank_zero_warn("You passed in a `val_dataloader` but have no `validation_step`. Skipping val loop.", category=PossibleUserWarning)
    if has_step and not has_loader:
        rank_zero_warn("You defined a `validation_step` but have no `val_dataloader`. Skipping val loop.", category=PossibleUserWarning)
    if not (has_loader and has_step):
        _warn_of_cadence(run)
    if not module.automatic_optimization:
        _check_manual(run)


def _warn_of_cadence(run: Run) -> None:
    """Say that what was asked of validation has no effect."""
    trainer = run.trainer
    asked = {"val_check_interval": (trainer.val_check_interval, 1.0), "check_val_every_n_epoch": (trainer.check_val_every_n_epoch, 1)}
    given = ", ".join(f"{name}={value!r}" for name, (value, default) in asked.items() if value != default)
    if given and not run.fast_dev_run:
        rank_zero_warn(f"Trainer({given}) has no effect: there is no validation, which needs a `validation_step` and a loader.")


def _check_manual(run: Run) -> None:
    if run.config.gradients.value:
        raise ConfigError(
            f"Automatic gradient clipping is not supported for manual optimization. Remove `Trainer(gradient_clip_val="
            f"{run.config.gradients.value!r})` and call self.clip_gradients(optimizer, ...) in `training_step`."
        )
    if run.config.gradients.accumulate != 1:
        raise ConfigError(
            "Automatic gradient accumulation is not supported for manual optimization. Remove `Trainer(accumulate_grad_batches="
            f"{run.config.gradients.accumulate!r})` and step every so many batches in `training_step`."
        )


def check_dataloader_idx(run: Run, prefix: str, num_loaders: int) -> None:
    """Refuse steps and hooks of the module that do not fit the number of loaders.

    Raises:
        DataloaderIndexError: Several loaders and no `dataloader_idx`, or one loader and a required one.
    """
    owner = type(run.module).__name__
    for name, least in ((f"{prefix}_step", 3), (f"on_{prefix}_batch_start", 3), (f"on_{prefix}_batch_end", 4)):
        if not run.plan.overrides(name):
            continue
        function = getattr(run.module, name)
        found, count = parameter(function, "dataloader_idx"), positional_count(function)
        if num_loaders > 1 and found is None and not takes_anything(function) and (count or 0) < least:
            raise DataloaderIndexError(
                f"You provided multiple `{prefix}` dataloaders, but no `dataloader_idx` argument in `{owner}.{name}`. "
                "Add `dataloader_idx=0` to it."
            )
        if num_loaders == 1 and found is not None and found.default is found.empty:
            raise DataloaderIndexError(
                f"You provided only a single `{prefix}` dataloader, but have included `dataloader_idx` in `{owner}.{name}`. "
                "Remove it, or give it a default: `dataloader_idx=0`."
            )
