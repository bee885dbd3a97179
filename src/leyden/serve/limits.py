"""How much a server takes on: a request beyond it is refused at once, while it is cheap."""

import math
from dataclasses import dataclass

HARD_QUEUE = 10_000
MOST_RETRY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Of one front end; what users give is divided among them.

    Args:
        max_queue_size: Waiting requests of an API; `None` refuses what would wait longer than its time-out.
        max_inflight_bytes: Of all request bodies that are held.
    """

    max_queue_size: int | None = None
    max_inflight_bytes: int = 2**30

    @property
    def queue_size(self) -> int:
        """The most waiting requests of an API, whatever is estimated."""
        return HARD_QUEUE if self.max_queue_size is None else min(self.max_queue_size, HARD_QUEUE)

    def shared(self, front_ends: int) -> "Limits":
        """Return the part of each of several front ends, rounded up.

        Example:
            >>> Limits(max_queue_size=5).shared(2).max_queue_size
            3
        """
        queue = None if self.max_queue_size is None else -(-self.max_queue_size // front_ends)
        return Limits(max_queue_size=queue, max_inflight_bytes=-(-self.max_inflight_bytes // front_ends))


def retry_seconds(queued: int, per_second: float | None) -> int:
    """Return when it is worth to try again, in whole seconds between 1 and 60.

    Example:
        >>> retry_seconds(100, 10.0), retry_seconds(3, None), retry_seconds(10_000, 1.0)
        (10, 1, 60)
    """
    if not per_second:
        return 1
    return math.ceil(min(max(queued / per_second, 1.0), MOST_RETRY_SECONDS))
