"""`BatchSizeFinder`: tries growing batch sizes before the run, and runs with the largest that fits into memory."""

from typing import Any, ClassVar

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.trainer.callbacks import tuned_attribute
from leyden.trainer.callbacks.batch_size_search import MODES, BatchSizeSearch
from leyden.trainer.core.callback import Callback
from leyden.trainer.engine.stop import EndOfRun
from leyden.trainer.loops.trial import reload_loaders, trial
from leyden.trainer.utilities.memory import is_oom_error

_LOADERS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


class BatchSizeFinder(Callback):
    """Finds the largest batch size that fits into memory, at the beginning of `fit`, `validate`, `test` or `predict`.

    Each size is tried for a few steps; an error for want of memory is survived, and everything is as before. The attribute
    that holds the batch size is set, and loaders are asked for anew, so they must come from hooks that read it. A resumed
    run goes on with the size that was found.

    Args:
        mode: `power` doubles the size until it does not fit; `binsearch` then looks between the last two.
        steps_per_trial: How many steps each size is tried for.
        init_val: The first size.
        max_trials: How often the size may be raised.
        batch_arg_name: The attribute, of the module, the data module or their `hparams`.
        margin: The fraction taken off what `binsearch` finds, so that a larger sample still fits.
        max_val: No size above.

    Raises:
        ConfigError: An unknown mode, or a number out of range.

    Attributes:
        optimal_batch_size: The size found; `None` before.

    Example:
        ```python
        class Model(LightningModule):
            def __init__(self, batch_size: int = 2):
                super().__init__()
                self.save_hyperparameters()

            def train_dataloader(self):
                return DataLoader(dataset, batch_size=self.hparams.batch_size)

        trainer = Trainer(callbacks=BatchSizeFinder(mode="binsearch"))
        ```
    """

    SUPPORTED_MODES: ClassVar[tuple[str, ...]] = MODES

    def __init__(
        self,
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int | None = 8192,
    ) -> None:
        if steps_per_trial < 1:
            raise ConfigError(f"steps_per_trial={steps_per_trial} should be at least 1.")
        self._search = {"mode": mode, "init_val": init_val, "max_trials": max_trials, "margin": margin, "max_val": max_val}
        BatchSizeSearch(**self._search)  # refuses what it cannot do, before anything starts
        self._steps_per_trial = steps_per_trial
        self._name = batch_arg_name
        self.ends_run = False  # of a tuner: the run is over once the size is found
        self.optimal_batch_size: int | None = None

    # -- where it runs -------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the size, unless the run is resumed and it is known."""
        if trainer.ckpt_path is not None and self.optimal_batch_size is not None and not self.ends_run:
            rank_zero_info("Skipping the batch size finder: the run is resumed and keeps its batch size %d.", self.optimal_batch_size)
            return
        self.scale_batch_size(trainer, pl_module)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the size for `validate`."""
        if trainer.state.fn == "validate":
            self.scale_batch_size(trainer, pl_module)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the size for `test`."""
        self.scale_batch_size(trainer, pl_module)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the size for `predict`."""
        self.scale_batch_size(trainer, pl_module)

    def scale_batch_size(self, trainer: Any, pl_module: Any) -> None:
        """Find the size and set it; callable wherever no batch is under way.

        Raises:
            ConfigError: Loaders were passed or are several, or nobody has the attribute.
            UnsupportedError: There are several ranks.
            torch.OutOfMemoryError: Not even a batch of one fits, or whatever torch raises then.
        """
        if trainer.fast_dev_run:
            rank_zero_warn("Skipping batch size scaler since `fast_dev_run` is enabled.")
        else:
            self._find(trainer, pl_module)
        if self.ends_run:
            raise EndOfRun

    def put_found(self, module: Any, datamodule: Any = None) -> None:
        """Set the attribute to the size that was found, if one was; also in a process that only started others."""
        if self.optimal_batch_size is not None:
            tuned_attribute.put(self._name, self.optimal_batch_size, module, datamodule)

    # -- the search ----------------------------------------------------------------------------------------------

    def _check(self, trainer: Any, module: Any, fn: str) -> None:
        """Refuse runs in which no size can be found."""
        loaders = _LOADERS[fn]
        if trainer.world_size > 1:
            raise UnsupportedError(
                f"The batch size finder is not supported with distributed strategies: one of the {trainer.world_size} ranks that runs out "
                "of memory would leave the others waiting. Find the size on one device and set it."
            )
        if trainer.run.source.is_given(loaders):
            raise ConfigError(
                f"The batch size finder cannot be used with dataloaders passed directly to `.{fn}()`: it needs to have them made anew. "
                f"Move them into {loaders}_dataloader() of the module or of a data module, with batch_size=self.{self._name}."
            )
        if fn != "fit" and len(trainer.run.val.num_batches) > 1:
            raise ConfigError(
                f"The batch size finder cannot be used with multiple {loaders} dataloaders, since each could fit another size. Return one "
                f"loader from {loaders}_dataloader()."
            )
        if not tuned_attribute.holders(self._name, module, trainer.datamodule):
            raise tuned_attribute.MissingFieldError(
                f"Field {self._name} not found in the module, the data module, nor their `hparams`. Define self.{self._name} and use it in "
                f"{loaders}_dataloader(), or name the field: batch_arg_name='my_batch_size'."
            )
        if hasattr(module, self._name) and self._name in module.hparams:
            rank_zero_warn(
                f"Field `model.{self._name}` and `model.hparams.{self._name}` are mutually exclusive: both are set to what is found. "
                "Remove one of them."
            )

    def _find(self, trainer: Any, module: Any) -> None:
        fn = str(trainer.state.fn)
        self._check(trainer, module, fn)
        holders = tuned_attribute.holders(self._name, module, trainer.datamodule)
        before = [(holder, tuned_attribute.get(holder, self._name)) for holder in holders]
        search = BatchSizeSearch(**self._search)
        shortage: BaseException | None = None
        try:
            while (size := search.size) is not None:
                tuned_attribute.put(self._name, size, module, trainer.datamodule)
                problem = self._try(trainer, fn, search)
                shortage = shortage if problem is None else problem
                rank_zero_info("Batch size %d %s%s", size, "succeeded" if problem is None else "failed", _next(search.size))
            found = search.found
            if found is None:
                assert shortage is not None  # noqa: S101 - or the first size had succeeded
                shortage.add_note("Not even a batch of size 1 fits into memory. Use a smaller model or a larger device.")
                raise shortage
        except BaseException:
            for holder, value in before:
                tuned_attribute.put_into(holder, self._name, value)
            raise
        self.optimal_batch_size = found
        self.put_found(module, trainer.datamodule)
        reload_loaders(trainer)
        rank_zero_info("Finished batch size finder, will continue with full run using batch size %d", found)

    def _try(self, trainer: Any, fn: str, search: BatchSizeSearch) -> BaseException | None:
        """Try the search's size, tell it how that went, and return the error if it did not fit."""
        steps = self._steps_per_trial
        limits = {"train": 1.0, "val": steps if trainer.limit_val_batches else 0} if fn == "fit" else {_LOADERS[fn]: steps}
        try:
            result = trial(trainer, max_steps=steps, limits=limits)
        except (RuntimeError, MemoryError) as error:
            if not is_oom_error(error):
                raise
            search.failed()
            return error.with_traceback(None)
        if result.batch_sizes and search.size not in result.batch_sizes:
            rank_zero_warn(
                f"{self._name}={search.size} was set, but {_LOADERS[fn]}_dataloader() made batches of {result.batch_sizes[0]}, so what is "
                f"found may mean nothing. Use batch_size=self.{self._name} there."
            )
        search.succeeded(result.num_samples)
        return None

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what was found."""
        return {} if self.optimal_batch_size is None else {"optimal_batch_size": self.optimal_batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a saved run had found."""
        self.optimal_batch_size = state_dict["optimal_batch_size"]

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Set the attribute before loaders are made with it."""
        size = (checkpoint.get("callbacks") or {}).get(self.state_key, {}).get("optimal_batch_size")
        if size is not None and trainer.state.fn == "fit":
            tuned_attribute.put(self._name, size, pl_module, trainer.datamodule)


def _next(size: int | None) -> str:
    return "" if size is None else f", trying batch size {size}"
