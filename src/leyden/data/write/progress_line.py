"""`ProgressLine`: one line on the terminal, drawn four times a second at most, by the thread that drives the job."""

from typing import Any, Final, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from leyden.core.clock import Clock
from leyden.data.write.progress import Seen

_SECONDS: Final = 0.25
_MINUTE, _HOUR = 60, 3600


@final
class ProgressLine:
    """Shows inputs, rates, the time that is left, failures and drivers.

    Args:
        title: What is done.
        clock: What tells the time.
        console: Where; standard error by default.
        things: What is counted.
    """

    def __init__(self, title: str, clock: Clock, console: Console | None = None, *, things: str = "inputs") -> None:
        self._things = things
        self._clock, self._began, self._drawn = clock, clock.monotonic(), -1.0
        self._first: Seen | None = None  # what was done before this run says nothing about its speed
        told = TextColumn("{task.fields[told]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        self._bar = Progress(
            name, BarColumn(20), told, auto_refresh=False, console=console or Console(stderr=True), get_time=clock.monotonic
        )
        self._task = self._bar.add_task(title, total=None, told="")
        self._bar.start()

    def see(self, seen: Seen) -> None:
        """Draw, if the last drawing was long enough ago."""
        self._first = self._first or seen
        if self._clock.monotonic() - self._drawn >= _SECONDS:
            self._draw(seen)

    def close(self, seen: Seen | None) -> None:
        """Draw a last time; the line stays."""
        if seen is not None:
            self._first = self._first or seen
            self._draw(seen)
        self._bar.stop()

    def _draw(self, seen: Seen) -> None:
        self._drawn = self._clock.monotonic()
        told = line_of(self._first or seen, seen, self._drawn - self._began, self._things)
        self._bar.update(self._task, total=seen.total, completed=seen.inputs, told=told, refresh=True)


def line_of(first: Seen, seen: Seen, seconds: float, things: str = "inputs") -> str:
    """Return what a line says.

    Args:
        first: What was done when this run began.
        seen: What is done now.
        seconds: How long that took.
        things: What is counted.

    Example:
        >>> line_of(Seen(0, 100, 0, 0, 0, 1), Seen(50, 100, 500, 2_000_000, 1, 2), 10.0)
        '50/100 inputs · 50 rows/s · 0.2 MB/s · 10s left · 1 failed · 2 drivers'
    """
    done, seconds = seen.inputs - first.inputs, max(seconds, 1e-3)
    parts: list[Any] = [f"{seen.inputs:,}/{seen.total:,} {things}" if seen.total is not None else f"{seen.inputs:,} {things}"]
    parts.append(f"{(seen.rows - first.rows) / seconds:,.0f} rows/s")
    parts.append(f"{(seen.bytes - first.bytes) / seconds / 1e6:,.1f} MB/s")
    if seen.total is not None and seen.inputs >= seen.total:
        parts.append(f"in {_duration(seconds)}")
    elif seen.total is not None and done > 0:
        parts.append(f"{_duration((seen.total - seen.inputs) * seconds / done)} left")
    parts += [f"{seen.failures:,} failed"] if seen.failures else []
    parts += [f"{seen.drivers} drivers"] if seen.drivers > 1 else []
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
