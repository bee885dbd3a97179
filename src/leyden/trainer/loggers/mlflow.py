"""The MLflow logger at its documented path."""

from leyden.fabric.loggers.mlflow import MLFlowLogger

__all__ = ["MLFlowLogger"]
