"""`Clock`: what a run counts. Plain integers in slots; loops change them, everything else reads them."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Clock:
    """The counters of a run. All of them are in the checkpoint.

    Args:
        epoch: Finished epochs: the number of the one that runs.
        batch: The number of the batch in progress, within the epoch.
        batches: Training batches finished, over all epochs.
        step: Batches in which an optimizer stepped: `trainer.global_step`. Changes right after the update.
        log_step: The x of training rows: stepping batches (manual optimisation: batches) that are finished.
        samples: Training samples of this rank, where they are counted.
        tokens: Training tokens of this rank, where they are counted.
        ticks: Batches of any kind since the process started; not saved.

    Example:
        >>> clock = Clock()
        >>> clock.start(); clock.stop()
        >>> clock.seconds >= 0
        True
    """

    epoch: int = 0
    batch: int = 0
    batches: int = 0
    step: int = 0
    log_step: int = 0
    samples: int = 0
    tokens: int = 0
    ticks: int = 0
    _seconds: float = 0.0  # before the running stretch: a monotonic clock means nothing in another process
    _since: float | None = field(default=None, repr=False)

    @property
    def seconds(self) -> float:
        """Seconds spent in training, over all attempts of a resumed run."""
        return self._seconds if self._since is None else self._seconds + time.monotonic() - self._since

    def start(self) -> None:
        """Begin to count seconds."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Count no more seconds."""
        self._seconds, self._since = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        """Return the counters that a resumed run goes on from."""
        names = ("epoch", "batch", "batches", "step", "log_step", "samples", "tokens")
        return {**{name: getattr(self, name) for name in names}, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over counters; absent ones stay."""
        for name in ("epoch", "batch", "batches", "step", "log_step", "samples", "tokens"):
            setattr(self, name, int(state.get(name, getattr(self, name))))
        self._seconds = float(state.get("seconds", self._seconds))
        if self._since is not None:
            self.start()
