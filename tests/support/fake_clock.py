"""A clock that moves only when a test moves it, or when somebody sleeps on it."""

from typing import final


@final
class FakeClock:
    """A `leyden.core.clock.Clock`: `sleep` advances it at once and records how long."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self.now = start
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self.now += seconds
