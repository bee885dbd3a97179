"""What a module must have for an entry point; looked at before anything starts."""

from leyden.core.errors import ConfigError
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.utilities.warnings import PossibleUserWarning
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
    if fn == "fit":
        _check_fit(run)
    elif fn in _STEPS and not plan.overrides(_STEPS[fn]):
        raise ConfigError(f"No `{_STEPS[fn]}()` method defined to run `Trainer.{fn}`. Define `{_STEPS[fn]}(self, batch, batch_idx)`.")
    elif fn == "predict" and not plan.overrides("predict_step") and not plan.overrides("forward"):
        raise ConfigError("`Trainer.predict` requires `forward` method to run, or a `predict_step`. Define one of them.")
    if not run.source.has(_LOADERS[fn]):
        run.source.raw(_LOADERS[fn])  # says what is missing


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
