"""`Logger`: where metrics, hyper-parameters and graphs of a run go. Abstract; our own final ones are `threaded`.

A foreign logger derives from `Logger` and gets plain numbers, in the calling thread. A threaded one derives from
`ThreadedLogger` (`threaded.py`): it hands rows to this process's writer thread and may get tensors that are still on a
device. Ranks other than zero do nothing anywhere.
"""

import functools
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from leyden.fabric.rank_zero import rank_zero_only


class Logger(ABC):
    """Base of all loggers.

    Example:
        ```python
        class PrintLogger(Logger):
            name, version = "print", 0

            @rank_zero_only
            def log_metrics(self, metrics, step=None):
                print(step, dict(metrics))

            @rank_zero_only
            def log_hyperparams(self, params, *args, **kwargs):
                print(params)
        ```
    """

    threaded: ClassVar[bool] = False
    """Whether `log_metrics` takes tensors and callables, and never waits for a device."""
    is_remote: ClassVar[bool] = True
    """Whether the back-end may hang; one that only writes files is flushed before each checkpoint."""

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The name of the experiment."""

    @property
    @abstractmethod
    def version(self) -> int | str | None:
        """The version of the experiment."""

    @property
    def root_dir(self) -> str | None:
        """The directory below which all experiments lie; `None` for a logger without files."""
        return None

    @property
    def save_dir(self) -> str | None:
        """The same as `root_dir`, by its other documented name."""
        return self.root_dir

    @property
    def log_dir(self) -> str | None:
        """The directory of this version of this experiment; `None` for a logger without files."""
        return None

    @property
    def group_separator(self) -> str:
        """What joins a group and a metric into one name."""
        return "/"

    @property
    def experiment(self) -> Any:
        """The back-end's own object; a dummy on ranks other than zero."""
        return None

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record `metrics` at `step`; a logger counts steps itself where `step` is absent."""

    @abstractmethod
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Record hyper-parameters."""

    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        """Record the model's graph, where the back-end knows graphs."""
        return

    def save(self) -> None:
        """Bring everything logged so far to where it belongs."""
        return

    def finalize(self, status: str) -> None:
        """End the experiment.

        Args:
            status: How it ended, such as `"success"`, `"failed"`, `"aborted"`.
        """
        self.save()

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Called after a checkpoint callback has written a checkpoint."""
        return


class DummyExperiment:
    """Stands for the experiment on ranks other than zero: takes every call, index and attribute, and does nothing.

    Example:
        >>> DummyExperiment().add_scalar("loss", 0.5, 1)
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # a missing protocol must look missing: copy, pickle and numpy probe for them
            raise AttributeError(name)
        return self._nothing

    def __setattr__(self, name: str, value: Any) -> None:
        return

    def __getitem__(self, index: Any) -> Self:
        return self  # `experiment[0].add_image(...)`, where code expects one experiment per logger

    def __setitem__(self, index: Any, value: Any) -> None:
        return

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        return

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        return


def rank_zero_experiment(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make the getter of `experiment` return a dummy on ranks other than zero; it goes under `@property`."""

    @functools.wraps(get)
    def experiment(logger: Any) -> Any:
        return get(logger) if rank_zero_only.rank == 0 else DummyExperiment()

    return experiment
