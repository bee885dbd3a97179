"""`AdvancedProfiler`: which Python functions each action spent its time in, with cProfile.

One process has one active cProfile, and actions nest. So each chain of running actions has a profile of its own, and an
inner action suspends the outer one's; the report of an action adds up all chains that it is part of.
"""

import cProfile
import io
import pstats
import re
from pathlib import Path
from typing import final

from leyden.core.errors import ConfigError
from leyden.trainer.profilers.profiler import Profiler


@final
class AdvancedProfiler(Profiler):
    """Time by Python function, for each action.

    Args:
        dirpath: Where reports go; the trainer's `log_dir` if absent.
        filename: Their name; None prints.
        line_count_restriction: How many functions to show: a number, or a share of all (0.5 is the slower half).
        dump_stats: Whether to write a `.prof` file for each action too, for viewers of profiles.

    Example:
        >>> profiler = AdvancedProfiler(line_count_restriction=5)
        >>> with profiler.profile("sort"):
        ...     _ = sorted(range(10))
        >>> "Profile stats for: sort" in profiler.summary()
        True
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        line_count_restriction: float = 1.0,
        dump_stats: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    ) -> None:
        super().__init__(dirpath, filename)
        self.line_count_restriction = line_count_restriction
        self.dump_stats = dump_stats
        self._profiles: dict[tuple[str, ...], cProfile.Profile] = {}  # the actions that run, outermost first
        self._running: list[str] = []

    def start(self, action_name: str) -> None:
        self._suspend()
        self._running.append(action_name)
        self._resume()

    def stop(self, action_name: str) -> None:
        """Note that an action ends.

        Raises:
            ConfigError: It does not run.
        """
        self._suspend()
        try:
            if action_name not in self._running:
                raise ConfigError(f"Attempting to stop recording an action ({action_name}) which was never started. Call `start` first.")
            del self._running[len(self._running) - 1 - self._running[::-1].index(action_name)]
        finally:
            self._resume()

    def _suspend(self) -> None:
        if self._running:
            self._profiles[tuple(self._running)].disable()

    def _resume(self) -> None:
        if self._running:
            self._profiles.setdefault(tuple(self._running), cProfile.Profile()).enable()

    @property
    def actions(self) -> list[str]:
        """The actions that were profiled, in order of their first start."""
        return list(dict.fromkeys(name for chain in self._profiles for name in chain))

    def stats(self, action_name: str, stream: io.StringIO | None = None) -> pstats.Stats:
        """Return the profile of an action."""
        # A chain that only handed over to an inner action has recorded nothing, and pstats refuses it.
        profiles = [profile for chain, profile in self._profiles.items() if action_name in chain and profile.getstats()]
        stats = pstats.Stats(stream=stream)
        for profile in profiles:
            stats.add(pstats.Stats(profile))
        return stats.strip_dirs().sort_stats("cumulative")

    def summary(self) -> str:
        self._suspend()
        try:
            if self.dump_stats:
                self._dump()
            parts = [self._text(name) for name in self.actions]
        finally:
            self._resume()
        title = f"{self._stage.upper()} Profiler Report" if self._stage else "Profiler Report"
        return "\n\n".join([title, *parts]) if parts else ""

    def _text(self, name: str) -> str:
        stream = io.StringIO()
        self.stats(name, stream).print_stats(self.line_count_restriction)
        return f"Profile stats for: {name}\n{stream.getvalue().strip()}"

    def _dump(self) -> None:
        for name in self.actions:
            path = self.path(re.sub(r"[^\w.-]", "_", name), ".prof")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.stats(name).dump_stats(path)

    def teardown(self, stage: str | None) -> None:
        self._suspend()
        self._running.clear()
        self._profiles.clear()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_profiles": {}, "_running": []}  # profiles stay in the process that made them
