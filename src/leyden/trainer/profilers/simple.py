"""`SimpleProfiler`: how long each action took, and how often it ran."""

from collections import defaultdict
from pathlib import Path
from typing import final

from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import ConfigError
from leyden.trainer.profilers.profiler import Profiler
from leyden.trainer.summary.table import text_table


@final
class SimpleProfiler(Profiler):
    """Wall-clock time of each action. Times of actions inside others count for both.

    Args:
        dirpath: Where reports go; the trainer's `log_dir` if absent.
        filename: Their name; None prints.
        extended: Whether the report shows the number of calls and the share of the whole time, longest first.
        clock: What tells the time.

    Example:
        >>> profiler = SimpleProfiler()
        >>> with profiler.profile("load"):
        ...     pass
        >>> len(profiler.recorded_durations["load"])
        1
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        extended: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(dirpath, filename)
        self.extended = extended
        self.current_actions: dict[str, float] = {}
        self.recorded_durations: dict[str, list[float]] = defaultdict(list)
        self._clock: Clock = clock or SystemClock()
        self._began = self._clock.monotonic()

    def start(self, action_name: str) -> None:
        """Note when an action begins.

        Raises:
            ConfigError: It runs already.
        """
        if action_name in self.current_actions:
            raise ConfigError(f"Attempted to start {action_name} which has already started. Stop it first, or use another name.")
        self.current_actions[action_name] = self._clock.monotonic()

    def stop(self, action_name: str) -> None:
        """Note how long an action took.

        Raises:
            ConfigError: It does not run.
        """
        end = self._clock.monotonic()
        if action_name not in self.current_actions:
            raise ConfigError(f"Attempting to stop recording an action ({action_name}) which was never started. Call `start` first.")
        self.recorded_durations[action_name].append(end - self.current_actions.pop(action_name))

    def summary(self) -> str:
        whole = self._clock.monotonic() - self._began
        rows = sorted(((sum(seconds), len(seconds), name) for name, seconds in self.recorded_durations.items()), reverse=True)
        names = [name for _, _, name in rows]
        means = [f"{total / count:.5g}" for total, count, _ in rows]
        totals = [f"{total:.5g}" for total, _, _ in rows]
        if self.extended:
            calls = sum(count for _, count, _ in rows)
            shares = [f"{100 * total / whole:.4g}" if whole > 0 else "-" for total, _, _ in rows]
            columns = [
                ("Action", ["Total", *names]),
                ("Mean duration (s)", ["-", *means]),
                ("Num calls", [str(calls), *(str(count) for _, count, _ in rows)]),
                ("Total time (s)", [f"{whole:.5g}", *totals]),
                ("Percentage %", ["100", *shares]),
            ]
        else:
            columns = [("Action", names), ("Mean duration (s)", means), ("Total time (s)", totals)]
        title = f"{self._stage.upper()} Profiler Report" if self._stage else "Profiler Report"
        return f"{title}\n\n{text_table(columns)}"
