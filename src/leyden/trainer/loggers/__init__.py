"""Loggers, at their documented path; they live in `leyden.fabric.loggers`."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from .csv_logs import CSVLogger as CSVLogger
    from .logger import DummyLogger as DummyLogger
    from .logger import Logger as Logger
    from .mlflow import MLFlowLogger as MLFlowLogger
    from .tensorboard import TensorBoardLogger as TensorBoardLogger
    from .wandb import WandbLogger as WandbLogger
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "CSVLogger": ".csv_logs",
            "DummyLogger": ".logger",
            "Logger": ".logger",
            "MLFlowLogger": ".mlflow",
            "TensorBoardLogger": ".tensorboard",
            "WandbLogger": ".wandb",
        },
    )
