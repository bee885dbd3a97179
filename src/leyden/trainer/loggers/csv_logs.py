"""The CSV logger at its documented path."""

from leyden.fabric.loggers.csv_file import CSVExperiment as ExperimentWriter
from leyden.fabric.loggers.csv_file import CSVLogger

__all__ = ["CSVLogger", "ExperimentWriter"]
