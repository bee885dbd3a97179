"""`RichProgressBar`: rows of a live display in a terminal or a notebook; plain lines where neither is.

Nothing draws by itself: rich's refresh thread stays off, and a drawing happens in the thread that trains. A row that
stays (`leave=True`) is printed above the live rows and gone from them, so a thousand epochs do not fill the screen.
"""

from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from leyden.core.clock import Clock
from leyden.trainer.callbacks.progress.plain_progress import PlainScreen, duration, number, pace
from leyden.trainer.callbacks.progress.rich_theme import RichProgressBarTheme
from leyden.trainer.callbacks.progress.staged_progress import Screen, Stage, StagedProgressBar


class RichProgressBar(StagedProgressBar):
    """A progress bar drawn with rich.

    Args:
        refresh_rate: After how many batches the bar is looked at; 0 shows nothing. It never draws more than ten times a second.
        leave: Whether the bar of each finished epoch stays.
        theme: Colours and formats.
        console_kwargs: Arguments for `rich.console.Console`, such as `{"stderr": True}`.
        clock: What tells the time.

    Example:
        ```python
        Trainer(callbacks=RichProgressBar(leave=True))
        ```
    """

    def __init__(
        self,
        refresh_rate: int = 1,
        leave: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        theme: RichProgressBarTheme | None = None,
        console_kwargs: dict[str, Any] | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(refresh_rate, clock=clock)
        self.theme = RichProgressBarTheme() if theme is None else theme
        self._leave = leave
        self._console_kwargs = dict(console_kwargs or {})

    def configure_columns(self, trainer: Any) -> list[Any]:
        """Return the columns of the bar, from left to right; override it for others."""
        theme = self.theme
        return [
            TextColumn("{task.description}", style=theme.description),
            BarColumn(complete_style=theme.progress_bar, finished_style=theme.progress_bar_finished, pulse_style=theme.progress_bar_pulse),
            BatchesColumn(theme.batch_progress),
            TimesColumn(theme.time),
            SpeedColumn(theme.processing_speed),
            MetricsColumn(theme),
        ]

    def _make_screen(self) -> Screen:
        console = Console(**self._console_kwargs)
        if (console.is_terminal and not console.is_dumb_terminal) or console.is_jupyter:
            return RichScreen(console, self.configure_columns(self.trainer), leave=self._leave, clock=self._clock)
        return PlainScreen(lambda: console.file, self._clock)


@final
class RichScreen:
    """Rows of a live display.

    Args:
        console: Where it is.
        columns: What a row shows.
        leave: Whether finished epochs stay.
        clock: What tells the time.
    """

    def __init__(self, console: Console, columns: list[Any], *, leave: bool, clock: Clock) -> None:
        self._progress = _DrawnOnDemand(*columns, auto_refresh=False, console=console, get_time=clock.monotonic)
        self._tasks: dict[Stage, TaskID] = {}
        self._done: dict[Stage, int] = {}  # rich's own count takes a lock: it follows when a row is drawn
        self._leave = leave
        self._finished: set[Stage] = set()

    def begin(self, stage: Stage) -> None:
        self._progress.start()  # a second start does nothing
        self._done[stage] = 0
        self._tasks[stage] = self._add("", None, visible=False)

    def restart(self, stage: Stage, description: str, total: int | None) -> None:
        if stage in self._finished:
            self._finished.discard(stage)
            if self._leave if stage == "train" else stage != "sanity" and stage == self._main:
                self._print_row(stage)
        self._done[stage] = 0
        self._progress.remove_task(self._tasks[stage])
        self._tasks[stage] = self._add(description, total, visible=True)

    def move(self, stage: Stage, done: int) -> None:
        self._done[stage] = done

    def draw(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        self._take(metrics)
        self._progress.draw()

    def finish(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        self._take(metrics)
        self._finished.add(stage)

    def end(self, stage: Stage) -> None:
        if stage == "sanity" or stage != self._main:
            self._progress.remove_task(self._tasks[stage])
        del self._tasks[stage]  # the row of what the run was for stays on the screen
        self._finished.discard(stage)

    def print(self, text: str) -> None:
        self._progress.console.print(Text(text), end="", soft_wrap=True)

    def stop(self) -> None:
        self._progress.stop()

    @property
    def _main(self) -> Stage | None:
        return "train" if "train" in self._tasks else next(iter(self._tasks), None)

    def _add(self, description: str, total: int | None, *, visible: bool) -> TaskID:
        return self._progress.add_task(description, total=total, visible=visible, metrics={})

    def _take(self, metrics: dict[str, Any]) -> None:
        for stage, task in self._tasks.items():
            self._progress.update(task, completed=self._done[stage], metrics=metrics if stage == self._main else {})

    def _print_row(self, stage: Stage) -> None:
        task = next(task for task in self._progress.tasks if task.id == self._tasks[stage])
        self._progress.console.print(self._progress.make_tasks_table([task]))


@final
class _DrawnOnDemand(Progress):
    """Rich's table of rows, which would otherwise draw itself whenever a row is added or reset."""

    def refresh(self) -> None:
        """Do nothing: `draw` draws."""

    def draw(self) -> None:
        """Draw all rows now."""
        super().refresh()


@final
class BatchesColumn(ProgressColumn):
    """`32/64`, or `32/--` if nobody knows how many."""

    def __init__(self, style: str) -> None:
        self._style = style
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{'--' if task.total is None else int(task.total)}", style=self._style)


@final
class TimesColumn(ProgressColumn):
    """The time taken and the time left."""

    def __init__(self, style: str) -> None:
        self._style = style
        super().__init__()

    def render(self, task: Task) -> Text:
        taken = task.finished_time if task.finished else task.elapsed
        left = None if task.total is None else task.time_remaining
        return Text(f"{_time(taken)} • {_time(left)}", style=self._style)


@final
class SpeedColumn(ProgressColumn):
    """Batches per second."""

    def __init__(self, style: str) -> None:
        self._style = style
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        speed = (task.finished_speed or task.speed) if task.finished else task.speed
        if not speed and task.elapsed:
            speed = task.completed / task.elapsed
        return Text(pace(speed) if speed else "-- it/s", style=self._style)


@final
class MetricsColumn(ProgressColumn):
    """The metrics, beside the row of what the run is for."""

    def __init__(self, theme: RichProgressBarTheme) -> None:
        self._theme = theme
        super().__init__(Column(overflow="fold"))

    def render(self, task: Task) -> Text:
        parts = [f"{name}={number(value, self._theme.metrics_format)}" for name, value in task.fields["metrics"].items()]
        return Text(self._theme.metrics_text_delimiter.join(parts), style=self._theme.metrics)


def _time(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else duration(seconds)
