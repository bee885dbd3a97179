"""Time as something that is passed in, so that rules about time are tested without waiting."""

import time
from typing import Protocol, final


class Clock(Protocol):
    """What tells the time and waits. Production code takes `SystemClock()`; tests take `FakeClock`."""

    def monotonic(self) -> float:
        """Return seconds that never go back: for durations and deadlines."""
        ...

    def time(self) -> float:
        """Return seconds since 1970: for what people read. It jumps when somebody sets the clock."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@final
class SystemClock:
    """The clock of this computer.

    Example:
        >>> clock = SystemClock()
        >>> clock.monotonic() <= clock.monotonic()
        True
    """

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def time(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait; a signal handler may run meanwhile."""
        time.sleep(seconds)
