"""`DummyLogger`: keeps nothing; what a trial run gets in place of loggers."""

from typing import Any, final

from leyden.fabric.loggers.logger import DummyExperiment, Logger


@final
class DummyLogger(Logger):
    """A logger that keeps nothing.

    Example:
        >>> DummyLogger().experiment.add_image("sample", None)
    """

    threaded = True
    is_remote = False

    @property
    def name(self) -> str:
        """An empty name."""
        return ""

    @property
    def version(self) -> str:
        """An empty version."""
        return ""

    @property
    def experiment(self) -> DummyExperiment:
        """Something that takes every call."""
        return DummyExperiment()

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Keep nothing."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""
