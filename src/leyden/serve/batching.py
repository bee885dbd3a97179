"""When a batch is full or due, and how much work is sent ahead to a worker that is still busy.

The window of a batch starts with its *first request*, not when a worker looks, so waiting for a full batch never adds
more than `batch_timeout`. Work sent ahead (staged) saves fast models the round trip between two batches; slow models
get none, because a staged call can no longer go to another worker that becomes free.
"""

import math

STAGED_SECONDS = 0.002
LONGEST_RUN_SECONDS = 0.005
MAX_STAGED = 64


def due_at(num_waiting: int, first_arrival: float, *, full_at: int, batch_timeout: float) -> float:
    """Return when a free worker should take what waits: `-inf` (now) if that is a full batch.

    Args:
        num_waiting: How many calls wait, at least 1.
        first_arrival: When the first of them was submitted.
        full_at: How many make a full batch.
        batch_timeout: Seconds that the first may wait for others.

    Example:
        >>> due_at(3, 10.0, full_at=8, batch_timeout=0.5)
        10.5
        >>> due_at(8, 10.0, full_at=8, batch_timeout=0.5)
        -inf
    """
    return -math.inf if num_waiting >= full_at else first_arrival + batch_timeout


def staged_items(item_seconds: float | None, max_batch_size: int) -> int:
    """Return how many calls a busy worker may hold beside those it runs: whole batches, about 2 ms of work, at most 64.

    Args:
        item_seconds: The estimate for one call; None while it is unknown.
        max_batch_size: Calls of a full batch.

    Example:
        >>> staged_items(0.0005, 1), staged_items(0.0001, 16), staged_items(0.02, 1), staged_items(None, 1)
        (4, 32, 0, 0)
    """
    if item_seconds is None or (run_seconds := item_seconds * max_batch_size) > LONGEST_RUN_SECONDS:
        return 0
    most = MAX_STAGED // max_batch_size
    batches = most if run_seconds * most <= STAGED_SECONDS else math.ceil(STAGED_SECONDS / run_seconds)
    return min(batches, most) * max_batch_size
