"""The facade, its arguments and its states."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric import seed_everything as seed_everything
    from leyden.trainer.trainer.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = exports(__name__, {"Trainer": ".trainer", "seed_everything": "leyden.fabric"})
