"""What a `Trainer` inside a Leyden job finds of the attempts before: where its fit goes on, and its default logger's version.

A script that is started again does the same things in the same order. So its n-th fit goes on from what the n-th fit of
the attempt before left, `last.ckpt` for the first, and its n-th default logger keeps that one's version.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leyden.core.files import write_atomic
from leyden.core.job import Job
from leyden.fabric.rank_zero import rank_zero_only

_counts: Counter[tuple[str, Path, int]] = Counter()  # per process: a script's fits and loggers are numbered, whoever makes them


def _next(kind: str, job: Job) -> int:
    key = (kind, job.step_dir, job.attempt)
    _counts[key] += 1
    return _counts[key] - 1


def next_checkpoint(job: Job) -> Path:
    """Return where the checkpoint of this process's next fit lies; all attempts see it."""
    number = _next("fit", job)
    return job.step_dir / "trainer" / (f"last-{number}.ckpt" if number else "last.ckpt")


class KeptVersion:
    """The version of a trainer's default logger, over the attempts of a job.

    Args:
        job: The job; outside of one nothing is kept.
    """

    def __init__(self, job: Job | None) -> None:
        self._job = job
        self._path: Path | None = None
        self._version: int | str | None = None

    def take(self) -> int | str | None:
        """Return the version that a default logger made now keeps; `None` for a new one."""
        if self._job is not None:
            number = _next("logger", self._job)
            self._path = self._job.step_dir / "trainer" / (f"version-{number}.json" if number else "version.json")
            self._version = _read(self._path)
        return self._version

    def keep(self, loggers: Sequence[Any]) -> None:
        """Write down the version that the default logger has taken, on rank 0."""
        if self._path is None or self._version is not None or not loggers or rank_zero_only.rank != 0:
            return
        self._version = loggers[0].version
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, json.dumps(self._version))


def _read(path: Path) -> int | str | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, (int, str)) else None
