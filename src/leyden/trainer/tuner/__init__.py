"""Tuner: learning rate and batch size found before a run."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.trainer.tuner.tuning import Tuner as Tuner
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"Tuner": ".tuning"})
