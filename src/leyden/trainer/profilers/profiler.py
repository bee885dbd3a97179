"""`Profiler`: named actions are started and stopped, and reported at the end. The base of all, and the one that does nothing.

Actions nest. The trainer wraps what it calls while it plans a run, so without a profiler nothing is measured and nothing
is paid. A report goes to a file for each rank if `filename` is given, else to standard output on rank 0.
"""

import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from torch import nn

from leyden.fabric.rank_zero import rank_zero_only


class Profiler(ABC):
    """Base of all profilers.

    Args:
        dirpath: Where reports go; the trainer's `log_dir` if absent.
        filename: Their name without stage and suffix: `fit-<filename>.txt`, with the rank where there are several. None prints.

    Example:
        ```python
        class Counts(Profiler):
            def __init__(self):
                super().__init__()
                self.counts = Counter()
            def start(self, action_name):
                self.counts[action_name] += 1
            def stop(self, action_name): ...
            def summary(self):
                return str(self.counts)
        ```
    """

    def __init__(self, dirpath: str | Path | None = None, filename: str | None = None) -> None:
        self.dirpath = dirpath
        self.filename = filename
        self._stage: str | None = None
        self._local_rank: int | None = None
        self._log_dir: str | Path | None = None

    @abstractmethod
    def start(self, action_name: str) -> None:
        """Note that an action begins."""

    @abstractmethod
    def stop(self, action_name: str) -> None:
        """Note that an action ends."""

    def summary(self) -> str:
        """Return the report; empty if there is nothing to tell."""
        return ""

    @contextmanager
    def profile(self, action_name: str) -> Iterator[str]:
        """Measure a block.

        Args:
            action_name: How the report calls it.

        Example:
            ```python
            with self.trainer.profiler.profile("augment"):
                batch = augment(batch)
            ```
        """
        self.start(action_name)
        try:
            yield action_name
        finally:
            self.stop(action_name)

    def wrap(self, action_name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call` so that each call of it is measured."""

        @functools.wraps(call)
        def measured(*args: Any, **kwargs: Any) -> Any:
            self.start(action_name)
            try:
                return call(*args, **kwargs)
            finally:
                self.stop(action_name)

        return measured

    # -- a run ---------------------------------------------------------------------------------------------------

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | Path | None = None) -> None:
        """Begin an entry point.

        Args:
            stage: fit, validate, test or predict.
            local_rank: This process's rank where there are several; else None.
            log_dir: Where reports go if `dirpath` does not say so.
        """
        self._stage, self._local_rank, self._log_dir = stage, local_rank, log_dir

    def attach(self, module: nn.Module) -> None:  # noqa: B027 - nothing to do is a good answer
        """Get to know the module that runs, after `setup`; most profilers do not care."""

    def describe(self) -> None:
        """Report: into the file, or on standard output."""
        text = self.summary()
        if not text:
            return
        if self.filename:
            path = self.path()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:  # a second `fit` adds its report
                file.write(text + "\n")
        elif rank_zero_only.rank == 0:
            sys.stdout.write(f"{text}\n")

    def teardown(self, stage: str | None) -> None:  # noqa: B027 - the same
        """End an entry point."""

    @property
    def local_rank(self) -> int:
        """This process's rank on its node."""
        return self._local_rank or 0

    @property
    def directory(self) -> Path | None:
        """Where reports go: `dirpath`, else the trainer's `log_dir`."""
        given = self.dirpath if self.dirpath is not None else self._log_dir
        return None if given is None else Path(given)

    def file_stem(self, action_name: str | None = None) -> str:
        """Return a file's name without its suffix: stage, name, rank and action, as far as there are any."""
        rank = None if self._local_rank is None else str(self._local_rank)
        return "-".join(part for part in (self._stage, self.filename, rank, action_name) if part)

    def path(self, action_name: str | None = None, suffix: str = ".txt") -> Path:
        """Return where a report goes."""
        return (self.directory or Path()) / (self.file_stem(action_name) + suffix)


@final
class PassThroughProfiler(Profiler):
    """Measures nothing: what `trainer.profiler` is unless another was asked for.

    Example:
        >>> with PassThroughProfiler().profile("anything") as name:
        ...     print(name)
        anything
    """

    def start(self, action_name: str) -> None:
        """Do nothing."""

    def stop(self, action_name: str) -> None:
        """Do nothing."""
