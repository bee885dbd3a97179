"""`BasePredictionWriter`: what a run of `predict` gives goes to files, batch by batch or at its end."""

from abc import ABC
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

from leyden.core.errors import ConfigError, closest, listed
from leyden.trainer.core.callback import Callback


class WriteInterval(StrEnum):
    """When predictions are written."""

    BATCH = "batch"
    EPOCH = "epoch"
    BATCH_AND_EPOCH = "batch_and_epoch"

    @property
    def on_batch(self) -> bool:
        """Whether after each batch."""
        return self is not WriteInterval.EPOCH

    @property
    def on_epoch(self) -> bool:
        """Whether at the end."""
        return self is not WriteInterval.BATCH


class BasePredictionWriter(Callback, ABC):
    """Base of callbacks that store predictions; override one or both of the two functions that write.

    Args:
        write_interval: `"batch"`, `"epoch"` or `"batch_and_epoch"`. With `"batch"` and
            `predict(return_predictions=False)` no prediction stays in memory.

    Raises:
        ConfigError: Another interval.

    Example:
        ```python
        class Writer(BasePredictionWriter):
            def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, batch, batch_idx, dataloader_idx):
                torch.save(prediction, folder / f"{trainer.global_rank}-{dataloader_idx}-{batch_idx}.pt")

        Trainer(callbacks=Writer("batch")).predict(model, loader, return_predictions=False)
        ```
    """

    def __init__(self, write_interval: Literal["batch", "epoch", "batch_and_epoch"] = "batch") -> None:
        options = [interval.value for interval in WriteInterval]
        if write_interval not in options:
            hint = closest(str(write_interval), options)
            raise ConfigError(f"`write_interval`={write_interval!r} should be one of {listed(options)}.{hint}")
        self.interval = WriteInterval(write_interval)

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Store the prediction of one batch.

        Args:
            trainer: The trainer.
            pl_module: The module.
            prediction: What `predict_step` returned.
            batch_indices: Which samples of the dataset the batch holds; `None` where the loader does not tell.
            batch: The batch.
            batch_idx: Its number.
            dataloader_idx: The number of its loader.
        """

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Sequence[Any], batch_indices: Sequence[Any] | None) -> None:
        """Store all predictions.

        Args:
            trainer: The trainer.
            pl_module: The module.
            predictions: What `predict_step` returned, by batch, nested by loader if there are several.
            batch_indices: Which samples of the dataset each batch holds, nested by loader.
        """

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if self.interval.on_batch:
            indices = trainer.predict_loop.current_batch_indices
            self.write_on_batch_end(trainer, pl_module, outputs, indices, batch, batch_idx, dataloader_idx)

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.interval.on_epoch:
            loop = trainer.predict_loop
            self.write_on_epoch_end(trainer, pl_module, loop.predictions, loop.epoch_batch_indices)
