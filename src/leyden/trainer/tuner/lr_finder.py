"""Looking for a learning rate with a trainer of one's own: the finder's trial, and nothing after it."""

from typing import Any

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks.lr_finder import LearningRateFinder
from leyden.trainer.callbacks.lr_sweep import LearningRateSweep
from leyden.trainer.tuner.visit import Data, visit

__all__ = ["LearningRateSweep", "lr_find"]


def lr_find(trainer: Any, model: Any, data: Data, finder: LearningRateFinder, method: str = "fit") -> LearningRateSweep | None:
    """Run `fit` up to the finder's end.

    Raises:
        ConfigError: Another method than fit, or the trainer has a finder already.
    """
    if method != "fit":
        raise ConfigError(f"method={method!r} is an invalid configuration to run `lr_find`: only fit has a learning rate. Use 'fit'.")
    data.check(method)
    if any(isinstance(callback, LearningRateFinder) for callback in trainer.callbacks):
        raise ConfigError("Trainer is already configured with a `LearningRateFinder` callback. Remove it if you want to use the Tuner.")
    visit(trainer, model, data, finder, method)
    finder.put_found(model, data.used_datamodule)
    return finder.optimal_lr
