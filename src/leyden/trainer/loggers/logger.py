"""The base of loggers at its documented path."""

from leyden.fabric.loggers.logger import DummyExperiment, Logger, rank_zero_experiment
from leyden.trainer.loggers.dummy import DummyLogger

__all__ = ["DummyExperiment", "DummyLogger", "Logger", "rank_zero_experiment"]
