"""Imports the classes that may be chosen by their short names: a name is looked for among the subclasses that exist."""

import importlib
from contextlib import suppress

from leyden.core.errors import MissingDependencyError

_PACKAGES = ("callbacks", "loggers", "profilers", "strategies", "plugins", "plugins.environments", "accelerators")


def import_choices() -> None:
    """Import every callback, logger, profiler, strategy, plug-in and accelerator whose package is installed."""
    for package in _PACKAGES:
        module = importlib.import_module(f"leyden.trainer.{package}")
        for name in getattr(module, "__all__", ()):
            with suppress(MissingDependencyError):  # the progress bar of a package that is not there cannot be chosen
                getattr(module, name)
