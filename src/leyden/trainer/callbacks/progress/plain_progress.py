"""`PlainProgressBar`: progress as lines of text, for files, pipes and machines without rich.

A line comes when an epoch or a loader is through, and in between when at least ten seconds have passed and 5 % more is
done, or a minute has passed: a log of a long run stays short, and still shows that something lives.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, final

from leyden.core.clock import Clock
from leyden.trainer.callbacks.progress.staged_progress import Screen, Stage, StagedProgressBar

_LINE_SECONDS, _LINE_SHARE, _SILENCE_SECONDS = 10.0, 0.05, 60.0
_MAIN: tuple[Stage, ...] = ("train", "test", "predict")  # stages whose end is worth a line, however short they were


@dataclass(slots=True)
class _Row:
    description: str
    total: int | None
    started: float
    first: int | None = None  # batches done when it began: not 0 in a run that was resumed
    printed: float = 0.0  # when the last line came
    printed_done: int = 0

    def speed(self, done: int, now: float) -> float | None:
        """Return batches per second since this row began."""
        counted, seconds = done - (self.first or 0), now - self.started
        return counted / seconds if counted > 0 and seconds > 0 else None


@final
class PlainScreen:
    """Lines of text.

    Args:
        stream: Returns where they go; asked for each line, since standard output may be redirected in between.
        clock: What tells the time.
    """

    def __init__(self, stream: Callable[[], IO[str]], clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._rows: dict[Stage, _Row] = {}

    def begin(self, stage: Stage) -> None:
        self.restart(stage, "", None)

    def restart(self, stage: Stage, description: str, total: int | None) -> None:
        now = self._clock.monotonic()
        self._rows[stage] = _Row(description, total, now, printed=now)

    def move(self, stage: Stage, done: int) -> None:
        row = self._rows[stage]
        if row.first is None:
            row.first = max(done - 1, 0)

    def draw(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        row, now = self._rows[stage], self._clock.monotonic()
        silence = now - row.printed
        has_advanced = row.total is None or done - row.printed_done >= _LINE_SHARE * row.total
        if done and silence >= _LINE_SECONDS and (has_advanced or silence >= _SILENCE_SECONDS) and done != row.total:
            self._line(row, done, metrics)

    def finish(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        row = self._rows[stage]
        is_main = stage in _MAIN or (stage == "validation" and "train" not in self._rows)
        if done and (is_main or self._clock.monotonic() - row.started >= _LINE_SECONDS):
            self._line(row, done, metrics)

    def end(self, stage: Stage) -> None:
        del self._rows[stage]

    def print(self, text: str) -> None:
        stream = self._stream()
        stream.write(text)
        stream.flush()

    def stop(self) -> None:
        self._rows.clear()

    def _line(self, row: _Row, done: int, metrics: dict[str, Any]) -> None:
        now = self._clock.monotonic()
        row.printed, row.printed_done = now, done
        parts = [f"{row.description}: {done}" if row.total is None else f"{row.description}: {done / row.total:4.0%} {done}/{row.total}"]
        if speed := row.speed(done, now):
            parts.append(pace(speed))
            if row.total is not None and done < row.total:
                parts.append(f"{duration((row.total - done) / speed)} left")
        parts += [f"{name}={number(value)}" for name, value in metrics.items()]
        self.print(", ".join(parts) + "\n")


@final
class PlainProgressBar(StagedProgressBar):
    """Progress as lines of text on standard output.

    Args:
        refresh_rate: After how many batches to look whether a line is due; 0 shows nothing.
        clock: What tells the time.

    Example:
        ```python
        Trainer(callbacks=PlainProgressBar(), max_epochs=2)
        # Epoch 0/1: 100% 64/64, 310.2 it/s, v_num=0, loss=0.241
        ```
    """

    def __init__(self, refresh_rate: int = 1, *, clock: Clock | None = None) -> None:
        super().__init__(refresh_rate, clock=clock)

    def _make_screen(self) -> Screen:
        return PlainScreen(lambda: sys.stdout, self._clock)


def pace(per_second: float) -> str:
    """Return a speed as people read it.

    Example:
        >>> pace(12.34), pace(0.02)
        ('12.3 it/s', '50.0 s/it')
    """
    return f"{per_second:.1f} it/s" if per_second >= 1 else f"{1 / per_second:.1f} s/it"


def duration(seconds: float) -> str:
    """Return `h:mm:ss`.

    Example:
        >>> duration(3725.4)
        '1:02:05'
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def number(value: Any, spec: str = ".3f") -> str:
    """Return a metric as a bar shows it: floats with three places, small ones with an exponent, the rest as it is.

    Example:
        >>> number(0.12345), number(0.00001), number(3)
        ('0.123', '1.00e-05', '3')
    """
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2e}" if 0 < abs(value) < 0.001 else format(value, spec)
