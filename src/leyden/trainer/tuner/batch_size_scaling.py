"""Looking for a batch size with a trainer of one's own: the finder's trials, and nothing after them."""

from typing import Any

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.trainer.callbacks.batch_size_finder import BatchSizeFinder
from leyden.trainer.tuner.visit import Data, visit

__all__ = ["scale_batch_size"]


def scale_batch_size(trainer: Any, model: Any, data: Data, finder: BatchSizeFinder, method: str = "fit") -> int | None:
    """Run `method` up to the finder's end.

    Raises:
        ConfigError: An unknown method, loaders that it does not take, or the trainer has a finder already.
        UnsupportedError: The trainer has several ranks.
    """
    data.check(method)
    if trainer.world_size > 1:
        raise UnsupportedError(
            f"Tuning the batch size is currently not supported with distributed strategies, and this trainer has {trainer.world_size} "
            "ranks. Tune with Trainer(devices=1) and set what was found."
        )
    if any(isinstance(callback, BatchSizeFinder) for callback in trainer.callbacks):
        raise ConfigError("Trainer is already configured with a `BatchSizeFinder` callback. Remove it if you want to use the Tuner.")
    visit(trainer, model, data, finder, method)
    finder.put_found(model, data.used_datamodule)
    return finder.optimal_batch_size
