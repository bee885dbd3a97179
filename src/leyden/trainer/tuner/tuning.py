"""`Tuner`: finds a learning rate or a batch size before the run, and leaves the trainer as it was."""

from typing import Any, Literal

from leyden.trainer.callbacks.batch_size_finder import BatchSizeFinder
from leyden.trainer.callbacks.lr_finder import LearningRateFinder
from leyden.trainer.tuner.batch_size_scaling import scale_batch_size
from leyden.trainer.tuner.lr_finder import LearningRateSweep, lr_find
from leyden.trainer.tuner.visit import Data

Method = Literal["fit", "validate", "test", "predict"]


class Tuner:
    """Finds values for a module to run with.

    Args:
        trainer: The trainer that the module will run with.

    Example:
        ```python
        tuner = Tuner(trainer)
        tuner.scale_batch_size(model, mode="binsearch")   # sets model.batch_size
        sweep = tuner.lr_find(model)                      # sets model.lr
        sweep.plot(suggest=True, show=True)
        trainer.fit(model)
        ```
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def scale_batch_size(  # noqa: PLR0913 - the documented signature
        self,
        model: Any,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: Any = None,
        method: Method = "fit",
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int | None = 8192,
    ) -> int | None:
        """Find the largest batch size that fits into memory, and set the attribute that holds it.

        Args:
            model: The module.
            train_dataloaders: A data module; loaders themselves cannot be tuned.
            val_dataloaders: Accepted for `fit`'s sake.
            dataloaders: A data module, for the other methods.
            datamodule: The data module, if there is one.
            method: `fit`, `validate`, `test` or `predict`.
            mode: `power` doubles the size until it does not fit; `binsearch` then looks between the last two.
            steps_per_trial: How many steps each size is tried for.
            init_val: The first size.
            max_trials: How often the size may be raised.
            batch_arg_name: The attribute, of the module, the data module or their `hparams`.
            margin: The fraction taken off what `binsearch` finds.
            max_val: No size above.

        Returns:
            The size; `None` under `fast_dev_run`.

        Raises:
            ConfigError: An argument cannot be right, or the trainer has such a finder already.
        """
        data = Data(train_dataloaders=train_dataloaders, val_dataloaders=val_dataloaders, dataloaders=dataloaders, datamodule=datamodule)
        finder = BatchSizeFinder(
            mode=mode,
            steps_per_trial=steps_per_trial,
            init_val=init_val,
            max_trials=max_trials,
            batch_arg_name=batch_arg_name,
            margin=margin,
            max_val=max_val,
        )
        return scale_batch_size(self._trainer, model, data, finder, method)

    def lr_find(  # noqa: PLR0913 - the documented signature
        self,
        model: Any,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: Any = None,
        method: Method = "fit",
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        attr_name: str = "",
    ) -> LearningRateSweep | None:
        """Try rising learning rates, and set the attribute that holds the rate to the one that the losses speak for.

        Args:
            model: The module.
            train_dataloaders: A loader, a collection of loaders, or a data module.
            val_dataloaders: A loader, or several.
            dataloaders: Not for `fit`.
            datamodule: A data module instead of loaders.
            method: Only `fit`.
            min_lr: The lowest rate.
            max_lr: The highest rate.
            num_training: How many steps to take.
            mode: How the rate rises: `exponential` or `linear`.
            early_stop_threshold: Stop when the smoothed loss is so many times the best one; `None` never.
            update_attr: Whether to set the attribute.
            attr_name: The attribute; default: `lr` or `learning_rate`.

        Returns:
            The sweep, with `results`, `suggestion()` and `plot()`; `None` under `fast_dev_run`.

        Raises:
            ConfigError: An argument cannot be right, or the trainer has such a finder already.
            AttributeError: There is no attribute to set.
        """
        data = Data(train_dataloaders=train_dataloaders, val_dataloaders=val_dataloaders, dataloaders=dataloaders, datamodule=datamodule)
        finder = LearningRateFinder(
            min_lr=min_lr,
            max_lr=max_lr,
            num_training_steps=num_training,
            mode=mode,
            early_stop_threshold=early_stop_threshold,
            update_attr=update_attr,
            attr_name=attr_name,
        )
        return lr_find(self._trainer, model, data, finder, method)
