"""`LearningRateFinder`: tries rising learning rates before training, and trains with the one that the losses speak for."""

from typing import Any, ClassVar

from leyden.core.errors import ConfigError
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.trainer.callbacks import tuned_attribute
from leyden.trainer.callbacks.lr_sweep import MODES, LearningRateSweep, SweepCallback, set_rate
from leyden.trainer.core.callback import Callback
from leyden.trainer.engine.stop import EndOfRun
from leyden.trainer.loops.trial import renew_optimizers, trial

NAMES = ("lr", "learning_rate")


class LearningRateFinder(Callback):
    """Finds a learning rate at the beginning of `fit`.

    A trial of `num_training_steps` steps, during which the rate rises from `min_lr` to `max_lr`, tells the losses; then
    everything is as before, and the attribute that holds the module's learning rate is set to the suggestion. Before the
    first step `configure_optimizers` is called again, so that all of it is made with that rate; later only the rate of the
    optimizer's groups is set. A resumed run keeps its rate: there the finder does nothing.

    Args:
        min_lr: The lowest rate.
        max_lr: The highest rate.
        num_training_steps: How many steps to take.
        mode: How the rate rises: `exponential` or `linear`.
        early_stop_threshold: Stop when the smoothed loss is so many times the best one; `None` never.
        update_attr: Whether to set the attribute; else the finder only looks, and training is what it would be without.
        attr_name: The attribute, of the module, the data module or their `hparams`; default: `lr` or `learning_rate`.

    Raises:
        ConfigError: An unknown mode, or a range that goes nowhere.

    Attributes:
        optimal_lr: The sweep, with `results`, `suggestion()` and `plot()`; `None` before.

    Example:
        ```python
        class AtEpochs(LearningRateFinder):
            def __init__(self, epochs, **options):
                super().__init__(**options)
                self.epochs = epochs

            def on_fit_start(self, trainer, pl_module): ...

            def on_train_epoch_start(self, trainer, pl_module):
                if trainer.current_epoch in self.epochs:
                    self.lr_find(trainer, pl_module)

        trainer = Trainer(callbacks=AtEpochs([0, 5]))
        ```
    """

    SUPPORTED_MODES: ClassVar[tuple[str, ...]] = MODES

    def __init__(
        self,
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training_steps: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        attr_name: str = "",
    ) -> None:
        LearningRateSweep(mode, min_lr, max_lr, num_training_steps)  # refuses what it cannot do, before anything starts
        self._range = (mode.lower(), min_lr, max_lr, num_training_steps)
        self._threshold = early_stop_threshold
        self._update_attr = update_attr
        self._attr_name = attr_name
        self._rate: float | None = None  # what was set
        self.ends_run = False  # of a tuner: the run is over once the rate is found
        self.optimal_lr: LearningRateSweep | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the rate, unless the run is resumed."""
        if trainer.ckpt_path is not None and not self.ends_run:
            rank_zero_info("Skipping the learning rate finder: the run is resumed and keeps its learning rate.")
            return
        self.lr_find(trainer, pl_module)

    def lr_find(self, trainer: Any, pl_module: Any) -> None:
        """Sweep the learning rate and set it; callable wherever no batch is under way.

        Raises:
            AttributeError: There is no attribute to set.
            ConfigError: There is not exactly one optimizer.
        """
        if trainer.fast_dev_run:
            rank_zero_warn("Skipping learning rate finder since `fast_dev_run` is enabled.")
        else:
            if self._update_attr:
                self._attribute(pl_module, trainer.datamodule)  # refuse before anything is tried
            self.optimal_lr = self._sweep(trainer)
            if self._update_attr and (rate := self.optimal_lr.suggestion()) is not None:
                self._apply(trainer, pl_module, rate)
        if self.ends_run:
            raise EndOfRun

    def put_found(self, module: Any, datamodule: Any = None) -> None:
        """Set the attribute to the rate that was found, if one was; also in a process that only started others."""
        if self._rate is not None:
            tuned_attribute.put(self._attribute(module, datamodule), self._rate, module, datamodule)

    def _attribute(self, module: Any, datamodule: Any) -> str:
        names = (self._attr_name,) if self._attr_name else NAMES
        for name in names:
            if tuned_attribute.holders(name, module, datamodule):
                return name
        if self._attr_name:
            raise tuned_attribute.MissingFieldError(
                f"The attribute name for the learning rate was set to {self._attr_name!r}, but the module, the data module and their "
                f"`hparams` have no such field. Define self.{self._attr_name} and use it in configure_optimizers()."
            )
        raise tuned_attribute.MissingFieldError(
            f"When using the learning rate finder with update_attr=True, the module, the data module or their `hparams` should have one of "
            f"these fields: {NAMES}. Define self.lr and use it in configure_optimizers(), or name the field: attr_name='my_lr'."
        )

    def _sweep(self, trainer: Any) -> LearningRateSweep:
        if len(trainer.optimizers) != 1:
            raise ConfigError(
                f"configure_optimizers() returned {len(trainer.optimizers)} optimizers, but the learning rate finder only works with a "
                "single optimizer. Set the rates of several by hand."
            )
        if any("lr" not in group for group in trainer.optimizers[0].param_groups):
            raise ConfigError("configure_optimizers() returned no optimizer with a learning rate. Return one, such as torch.optim.Adam.")
        sweep = LearningRateSweep(*self._range)
        steps = sweep.num_training
        automatic = trainer.lightning_module.automatic_optimization
        watch = SweepCallback(sweep, trainer.accumulate_grad_batches if automatic else 1, self._threshold)
        own = trainer.limit_val_batches
        trial(trainer, max_steps=steps, callbacks=[watch], limits={"val": min(own, steps) if isinstance(own, int) else own and steps})
        if watch.steps < steps:
            rank_zero_info("The learning rate finder stopped early after %d steps, since the loss diverged.", watch.steps)
        return sweep

    def _apply(self, trainer: Any, module: Any, rate: float) -> None:
        self._rate = rate
        self.put_found(module, trainer.datamodule)
        if trainer.global_step == 0 and not trainer.run.clock.batches:
            renew_optimizers(trainer)
        else:
            set_rate(trainer.optimizers, rate)
            for group in trainer.optimizers[0].param_groups:
                if "initial_lr" in group:
                    group["initial_lr"] = rate
            for config in trainer.lr_scheduler_configs:
                if bases := getattr(config.scheduler, "base_lrs", None):
                    config.scheduler.base_lrs = [rate] * len(bases)
        rank_zero_info("Learning rate set to %s", rate)

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what was found."""
        if self.optimal_lr is None:
            return {}
        results = {key: list(values) for key, values in self.optimal_lr.results.items()}
        return {"rate": self._rate, "range": list(self._range), "results": results}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a saved run had found."""
        self._rate = state_dict["rate"]
        self.optimal_lr = LearningRateSweep(*state_dict["range"])
        self.optimal_lr.results = {key: list(value) for key, value in state_dict["results"].items()}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Set the attribute before `configure_optimizers` reads it."""
        rate = (checkpoint.get("callbacks") or {}).get(self.state_key, {}).get("rate")
        if rate is not None and self._update_attr and trainer.state.fn == "fit":
            self._rate = rate
            self.put_found(pl_module, trainer.datamodule)
