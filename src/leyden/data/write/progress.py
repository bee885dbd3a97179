"""How far a job is, and who is shown it: a line on the terminal, the caller's function, or nobody."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, final

from leyden.core.errors import ConfigError

Told = Callable[[int, int, int, int], None]


class Seen(NamedTuple):
    """How far a job is, by all its drivers.

    Args:
        inputs: Done.
        total: All; `None` while they still come.
        rows: Made, of units that are done.
        bytes: Of these rows.
        failures: Inputs that failed.
        drivers: That work on the job.
    """

    inputs: int
    total: int | None
    rows: int
    bytes: int
    failures: int
    drivers: int


class Watch(Protocol):
    """Is shown how far a job is."""

    def see(self, seen: Seen) -> None:
        """Look; called often."""
        ...

    def close(self, seen: Seen | None) -> None:
        """Look for the last time."""
        ...


@final
class CalledWatch:
    """Calls a function with inputs, rows, bytes and failures.

    Args:
        told: The function.
    """

    def __init__(self, told: Told) -> None:
        self._told = told

    def see(self, seen: Seen) -> None:
        """Call."""
        self._told(seen.inputs, seen.rows, seen.bytes, seen.failures)

    def close(self, seen: Seen | None) -> None:
        """Call a last time."""
        if seen is not None:
            self.see(seen)


def checked_progress(progress: Any) -> None:
    """Refuse what cannot be shown progress.

    Raises:
        ConfigError: It is neither `None`, a bool nor a function.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise ConfigError(f"progress={progress!r} is not accepted: it takes True, False, None (on a terminal) or a function.")
