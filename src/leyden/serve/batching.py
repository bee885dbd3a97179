"""When waiting requests become a batch, and how many a worker may hold. Pure rules of numbers."""

import math
from dataclasses import dataclass

STAGED_SECONDS, MOST_STAGED, SLOW_ITEM_SECONDS = 0.002, 64, 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRule:
    """How an API's requests are batched.

    Args:
        max_batch_size: The most items.
        batch_timeout: For how long a batch may wait to become full, from its first request on; 0 does not wait.
    """

    max_batch_size: int = 1
    batch_timeout: float = 0.0

    def due_at(self, first_arrived: float, waiting: int) -> float:
        """Return when the waiting requests are a batch for a worker that has nothing to do.

        Args:
            first_arrived: When the first of them came.
            waiting: How many they are.

        Example:
            >>> rule = BatchRule(max_batch_size=4, batch_timeout=0.05)
            >>> rule.due_at(10.0, waiting=3), rule.due_at(10.0, waiting=4)
            (10.05, -inf)
        """
        if waiting >= self.max_batch_size or not self.batch_timeout:
            return -math.inf
        return first_arrived + self.batch_timeout

    def window(self, item_seconds: float | None) -> int:
        """Return how many items a worker may hold: a batch, and what keeps it busy while the next one is on its way.

        Args:
            item_seconds: How long one takes, if that is known. What takes long is not staged: another worker may be free before.

        Example:
            >>> BatchRule(max_batch_size=4).window(None), BatchRule(max_batch_size=4).window(0.0001), BatchRule().window(0.01)
            (4, 24, 1)
        """
        if item_seconds is None or item_seconds > SLOW_ITEM_SECONDS:
            return self.max_batch_size
        staged = MOST_STAGED if item_seconds <= STAGED_SECONDS / MOST_STAGED else int(STAGED_SECONDS / item_seconds)
        return self.max_batch_size + staged // self.max_batch_size * self.max_batch_size
