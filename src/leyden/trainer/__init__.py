"""Trainer: research code (`LightningModule`) apart from the loop (`Trainer`), at the speed of a raw loop, resumed exactly.

Names are imported at their first use, so that `import leyden.trainer` costs little more than `import torch`.
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric import isolate_rng as isolate_rng
    from leyden.fabric import seed_everything as seed_everything
    from leyden.trainer.core.callback import Callback as Callback
    from leyden.trainer.core.datamodule import LightningDataModule as LightningDataModule
    from leyden.trainer.core.module import LightningModule as LightningModule
    from leyden.trainer.loops.predict import Prediction as Prediction
    from leyden.trainer.trainer.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Callback": ".core.callback",
            "LightningDataModule": ".core.datamodule",
            "LightningModule": ".core.module",
            "Prediction": ".loops.predict",
            "Trainer": ".trainer.trainer",
            "isolate_rng": "leyden.fabric",
            "seed_everything": "leyden.fabric",
        },
    )
