"""Loggers: CSV files, TensorBoard, Weights & Biases, MLflow, behind one writer thread."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from .csv_file import CSVLogger as CSVLogger
    from .logger import Logger as Logger
    from .mlflow import MLFlowLogger as MLFlowLogger
    from .tensorboard import TensorBoardLogger as TensorBoardLogger
    from .wandb import WandbLogger as WandbLogger
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "CSVLogger": ".csv_file",
            "Logger": ".logger",
            "MLFlowLogger": ".mlflow",
            "TensorBoardLogger": ".tensorboard",
            "WandbLogger": ".wandb",
        },
    )
