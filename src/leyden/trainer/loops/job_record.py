"""What a run inside a Leyden job does besides: report its progress once a second, and keep a checkpoint to go on from.

`JobRecord` is asked by the thread that listens for requests, so the loop pays nothing for it. It only reads integers; the
save itself is agreed on like any other request, and happens between two batches.
"""

import math
from typing import final

from leyden.core import settings
from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import StorageError
from leyden.core.log import get_logger
from leyden.fabric.launch.agreement import Decision
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.stop import KEEP

REPORT_SECONDS = 1.0
_logger = get_logger(__name__)


@final
class JobRecord:
    """Tells when the job's checkpoint is due, and reports progress. On rank 0.

    Args:
        run: The run.
        clock: Tells the time.

    Raises:
        ConfigError: `LEYDEN_TRAINER_JOB_CHECKPOINT_SECONDS` is no number.
    """

    def __init__(self, run: Run, *, clock: Clock | None = None) -> None:
        self._run = run
        self._clock = clock or SystemClock()
        seconds = settings.get("LEYDEN_TRAINER_JOB_CHECKPOINT_SECONDS")
        self._every = seconds if run.job_checkpoint is not None and seconds > 0 else math.inf
        self._reported: float | None = None
        self._next_report = -math.inf
        self._next_save = self._clock.monotonic() + self._every

    def __call__(self) -> Decision | None:
        now = self._clock.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            self.report(progress(self._run))
        if now < self._next_save:
            return None
        self._next_save = math.inf  # until this one is written
        return Decision(KEEP)

    def saved(self) -> None:
        """Count from now to the next save."""
        self._next_save = self._clock.monotonic() + self._every

    def report(self, fraction: float | None) -> None:
        """Report a fraction, if there is one and it has changed; a full disk is told once, and ends no run."""
        if fraction is None or fraction == self._reported:
            return
        self._reported = fraction
        try:
            self._run.job.report(self._run.clock.step, progress=fraction)
        except StorageError as error:
            _logger.warning("progress is not reported any more: %s", error)
            self._next_report = math.inf


def progress(run: Run) -> float | None:
    """Return how much of the run is done, from 0 to 1; `None` where nobody knows its end."""
    if run.state.fn == "fit":
        return _progress_of_fit(run)
    position, feed = run.state.eval, run.val
    if position is None or feed is None:
        return None
    total = sum(feed.num_batches)
    done = sum(feed.num_batches[: position.loader]) + position.batch
    return min(done / total, 1.0) if total and not math.isinf(total) else None


def _progress_of_fit(run: Run) -> float | None:
    limits, clock, feed = run.config.limits, run.clock, run.train
    parts = []
    if limits.max_steps > 0:
        parts.append(clock.step / limits.max_steps)
    if limits.max_epochs > 0 and feed is not None and feed.num_batches:
        length = feed.num_batches[0]
        within = min(clock.batch / length, 1.0) if length and not math.isinf(length) else 0.0
        parts.append((clock.epoch + within) / limits.max_epochs)
    return min(max(parts), 1.0) if parts else None
