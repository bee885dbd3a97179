"""`Estimate`: the mean of recent measurements, which says nothing before it has seen ten.

A model's first calls compile, load caches and page in weights: they would spoil the mean for a minute, so the first
nine are only counted. Later ones lose half their weight every five seconds, but the last ten always have a say: after a
quiet hour, one slow call must not be the whole truth.
"""

from typing import final

MIN_RESULTS = 10
HALF_LIFE_SECONDS = 5.0


@final
class Estimate:
    """A mean that forgets. Time is an argument.

    Example:
        >>> seconds = Estimate()
        >>> for _ in range(9):
        ...     seconds.add(30.0, 1, now=0.0)
        >>> seconds.value is None
        True
        >>> seconds.add(0.5, 1, now=1.0)
        >>> seconds.value
        0.5
    """

    __slots__ = ("_halve_at", "_num_seen", "_total", "_weight")

    def __init__(self) -> None:
        self._total = 0.0
        self._weight = 0.0
        self._num_seen = 0
        self._halve_at = 0.0

    @property
    def value(self) -> float | None:
        """The mean of recent measurements; None before ten were seen."""
        return self._total / self._weight if self._num_seen >= MIN_RESULTS else None

    def add(self, total: float, count: int, now: float) -> None:
        """Take in a measurement.

        Args:
            total: The sum over `count` results.
            count: How many results it covers, at least 1.
            now: The time.
        """
        if self._num_seen < MIN_RESULTS:
            self._num_seen += count
            self._total = self._weight = 0.0
        if now >= self._halve_at:
            self._forget(now)
        self._total += total
        self._weight += count

    def _forget(self, now: float) -> None:
        if self._weight > MIN_RESULTS:
            halvings = 1 + (now - self._halve_at) / HALF_LIFE_SECONDS
            kept = max(0.5 ** min(halvings, 60.0), MIN_RESULTS / self._weight)
            self._total *= kept
            self._weight *= kept
        self._halve_at = now + HALF_LIFE_SECONDS
