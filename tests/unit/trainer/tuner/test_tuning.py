"""`Tuner` refuses before anything runs."""

from typing import Any

import pytest

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.trainer.callbacks import BatchSizeFinder, LearningRateFinder
from leyden.trainer.tuner import Tuner


class Idle:
    """A trainer that must not be run.

    Args:
        callbacks: What it has.
        world_size: Its ranks.
    """

    def __init__(self, *callbacks: Any, world_size: int = 1) -> None:
        self.callbacks = list(callbacks)
        self.world_size = world_size


@pytest.mark.parametrize("arguments", [{"method": "train"}, {"method": "train", "dataloaders": []}])
def test_an_unknown_method_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"method 'train' is invalid\. Should be one of \('fit', 'validate', 'test', 'predict'\)"):
        Tuner(Idle()).scale_batch_size(object(), **arguments)


def test_loaders_of_another_method_are_refused() -> None:
    with pytest.raises(ConfigError, match="please consider setting `train_dataloaders` and `val_dataloaders` instead"):
        Tuner(Idle()).scale_batch_size(object(), dataloaders=[])
    for given in ("train_dataloaders", "val_dataloaders"):
        with pytest.raises(ConfigError, match="please consider setting `dataloaders` instead"):
            Tuner(Idle()).scale_batch_size(object(), method="validate", **{given: []})


def test_a_second_finder_is_refused() -> None:
    with pytest.raises(ValueError, match="Trainer is already configured with a `BatchSizeFinder` callback"):
        Tuner(Idle(BatchSizeFinder())).scale_batch_size(object())
    with pytest.raises(ValueError, match="Trainer is already configured with a `LearningRateFinder` callback"):
        Tuner(Idle(LearningRateFinder())).lr_find(object())


def test_a_batch_size_on_several_ranks_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="not supported with distributed strategies"):
        Tuner(Idle(world_size=2)).scale_batch_size(object())


@pytest.mark.parametrize("options", [{"mode": "cubic"}, {"init_val": 0}, {"margin": 1.0}, {"steps_per_trial": 0}, {"max_val": 0}])
def test_options_of_a_batch_size_that_cannot_be_right_are_refused(options: dict[str, Any]) -> None:
    words = r"`mode` should be either of \('power', 'binsearch'\)" if "mode" in options else next(iter(options))
    with pytest.raises(ConfigError, match=words):
        Tuner(Idle()).scale_batch_size(object(), **options)


@pytest.mark.parametrize("options", [{"mode": "cubic"}, {"min_lr": 2.0}, {"min_lr": 0.0}, {"num_training": 0}])
def test_options_of_a_sweep_that_cannot_be_right_are_refused(options: dict[str, Any]) -> None:
    words = r"`mode` should be either of \('linear', 'exponential'\)" if "mode" in options else next(iter(options))
    with pytest.raises(ConfigError, match=words):
        Tuner(Idle()).lr_find(object(), **options)
