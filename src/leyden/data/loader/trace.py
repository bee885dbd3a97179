"""`Trace`: how long each stage of some batches took and where, as a file that Chrome's `about:tracing` and Perfetto show."""

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from leyden.core.arguments import whole
from leyden.core.errors import ConfigError

_log = logging.getLogger(__name__)
FILE = "result.json"


class Span(NamedTuple):
    """A stage that was at work.

    Args:
        name: Which.
        start: When it began, on the machine's monotonic clock, in seconds.
        stop: When it ended.
        pid: In which process.
        thread: In which thread.
    """

    name: str
    start: float
    stop: float
    pid: int
    thread: int


def span(name: str, start: float) -> Span:
    """Return the span of a stage that ends now, here."""
    return Span(name, start, time.perf_counter(), os.getpid(), threading.get_native_id())


@final
class Trace:
    """Collects spans for a number of batches, then writes them.

    Args:
        batches: How many.
        skip: How many before are left out.
        folder: Where the file goes.
    """

    def __init__(self, batches: int, skip: int, folder: "str | os.PathLike[str]") -> None:
        self._left, self._skip, self._folder = batches, skip, Path(folder)
        self._spans: list[Span] = []

    @property
    def is_on(self) -> bool:
        """Whether spans are collected now."""
        return self._skip <= 0 < self._left

    def add(self, spans: Sequence[Span]) -> None:
        """Take spans."""
        if self.is_on:
            self._spans.extend(spans)

    def count_batch(self) -> None:
        """Take note that a batch was handed out; the last one writes the file."""
        if self._skip > 0:
            self._skip -= 1
        elif self._left > 0:
            self._left -= 1
            if self._left == 0:
                self.write()

    def write(self) -> None:
        """Write what was collected."""
        if not self._spans:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        events: list[dict[str, Any]] = [
            {
                "name": each.name,
                "ph": "X",
                "ts": each.start * 1e6,
                "dur": (each.stop - each.start) * 1e6,
                "pid": each.pid,
                "tid": each.thread,
                "cat": "leyden.data",
            }
            for each in self._spans
        ]
        (self._folder / FILE).write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
        _log.info("The trace of the loader's batches is in %s: open it in https://ui.perfetto.dev.", self._folder / FILE)
        self._spans = []


def trace_of(batches: "int | bool", skip: int, folder: Any, *, cprofile: bool, num_workers: int) -> "Trace | None":
    """Return the trace that a loader's arguments ask for.

    Raises:
        ConfigError: They contradict each other, or there are no workers to look at.
    """
    if not batches and not cprofile:
        return None
    if batches and cprofile:
        raise ConfigError("profile_batches and profile_cprofile would each slow down what the other measures: pass one of them.")
    if num_workers == 0:
        raise ConfigError("profiling shows what workers do, and num_workers=0 has none: pass num_workers=1 or more.")
    whole("profile_skip_batches", skip, 0)
    if not isinstance(batches, bool):
        whole("profile_batches", batches, 0)
    return Trace(2**62 if batches is True else int(batches), skip, folder or Path.cwd()) if batches else None
