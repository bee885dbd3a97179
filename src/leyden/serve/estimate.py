"""`ItemTime`: how long a worker is at one item, learned from batches as they end, and forgotten when none does."""

from typing import final

LEAST_RESULTS = 10
_WEIGHT = 0.1  # of the newest batch
_HALF_LIFE_SECONDS = 60.0  # of what was learned, while nothing ends


@final
class ItemTime:
    """A mean that follows. Unknown before ten results: the first ones load and compile.

    Example:
        >>> time = ItemTime()
        >>> for number in range(10):
        ...     time.learn(0.02, 2, now=float(number))
        >>> round(time.seconds(now=10.0), 4)
        0.01
    """

    __slots__ = ("_last", "_mean", "_results")

    def __init__(self) -> None:
        self._mean, self._results, self._last = 0.0, 0.0, 0.0

    def learn(self, seconds: float, items: int, now: float) -> None:
        """Take note of a batch.

        Args:
            seconds: From its beginning to its end.
            items: How many it had.
            now: When it ended.
        """
        each = max(seconds, 0.0) / items
        known = self._known(now)
        # The mean of the first results, then one that follows: what the first one took would weigh for long.
        weight = max(_WEIGHT, items / (known + items))
        self._mean += (each - self._mean) * weight
        self._results, self._last = known + items, now

    def seconds(self, now: float) -> float | None:
        """Return how long an item takes; `None` if too little is known, or it was long ago."""
        return self._mean if self._known(now) >= LEAST_RESULTS else None

    def _known(self, now: float) -> float:
        quiet = now - self._last
        return self._results if quiet <= _HALF_LIFE_SECONDS else self._results * 0.5 ** (quiet / _HALF_LIFE_SECONDS)
