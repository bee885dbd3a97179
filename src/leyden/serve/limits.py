"""What an API takes in, and what it answers when it takes no more.

A queue is there to smooth bursts, not to hold work that will time out: `max_queue_size="auto"` refuses a call that
would wait longer than `timeout` at the present speed, at once, with the seconds after which to try again.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

HARD_CAP = 10_000
RETRY_AFTER_FAILING = 10  # seconds: how often a failing API is tried again
MIN_RETRY_AFTER, MAX_RETRY_AFTER = 1, 60


class Refusal(NamedTuple):
    """Why a call is not taken in: the answer it gets, and what it counts as where the code does not tell."""

    status: int
    code: str
    message: str
    retry_after: int | None = None
    reason: str = ""


DRAINING = Refusal(503, "server.draining", "This server is shutting down and takes no more requests.", MIN_RETRY_AFTER)
FAILING = Refusal(503, "server.not_ready", "The workers of this API cannot be started; see /health/ready.", RETRY_AFTER_FAILING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of one API.

    Args:
        timeout: Seconds a call may wait until its computation starts; None for as long as it takes.
        max_queue_size: Most calls that wait; `"auto"` refuses those that would wait longer than `timeout`, with a cap
            of `hard_cap`.
        hard_cap: Most calls that wait where `max_queue_size` is `"auto"`.
        batch_timeout: Seconds that the first call of a batch may wait for others.

    Example:
        >>> Limits(max_queue_size=100).shared_by(8).max_queue_size
        13
    """

    timeout: float | None = 30.0
    max_queue_size: int | Literal["auto"] = "auto"
    hard_cap: int = HARD_CAP
    batch_timeout: float = 0.0

    @property
    def cap(self) -> int:
        """Most calls that wait, whatever the speed."""
        return self.hard_cap if self.max_queue_size == "auto" else self.max_queue_size

    def shared_by(self, num_front_ends: int) -> "Limits":
        """Return the part of one of several front ends, rounded up."""
        queue = self.max_queue_size if self.max_queue_size == "auto" else share(self.max_queue_size, num_front_ends)
        return replace(self, max_queue_size=queue, hard_cap=share(self.hard_cap, num_front_ends))


def share(total: int, num_front_ends: int) -> int:
    """Return the part of one of several front ends in a bound, rounded up.

    Example:
        >>> share(1000, 3)
        334
    """
    return -(-total // num_front_ends)


def queue_refusal(limits: Limits, num_waiting: int, width: int, throughput: float | None) -> Refusal | None:
    """Judge whether a queue takes one more call.

    Args:
        limits: Of this API.
        num_waiting: Calls that wait now.
        width: Calls that its workers compute at once; 0 without workers, when calls wait for one.
        throughput: Calls per second of all its workers; None while that is unknown.

    Returns:
        The answer for a call that is one too many; None if it is welcome.

    Example:
        >>> queue_refusal(Limits(max_queue_size=4), 4, 1, throughput=2.0).retry_after
        2
        >>> queue_refusal(Limits(timeout=30), 400, 8, throughput=10.0).retry_after
        40
        >>> queue_refusal(Limits(timeout=30), 400, 8, throughput=None) is None
        True
    """
    if num_waiting >= limits.cap:
        message = f"{num_waiting} requests wait already, as many as this API holds (max_queue_size={limits.max_queue_size!r})."
        return Refusal(429, "queue.full", message, retry_after(num_waiting, throughput))
    if limits.max_queue_size != "auto" or limits.timeout is None or not throughput or not width or num_waiting < 2 * width:
        return None
    wait = num_waiting / throughput
    if wait <= limits.timeout:
        return None
    message = f"This request would wait about {wait:.0f} s, longer than the timeout of {limits.timeout:g} s."
    return Refusal(429, "queue.full", message, retry_after(num_waiting, throughput), "wait")


def easy_queue(limits: Limits, width: int, throughput: float | None) -> int:
    """Return with fewer calls than how many that wait `queue_refusal` finds nothing, as long as the speed is the same.

    Example:
        >>> easy_queue(Limits(timeout=30), 8, throughput=10.0), easy_queue(Limits(timeout=30), 8, throughput=None)
        (300, 10000)
    """
    if limits.max_queue_size != "auto" or limits.timeout is None or not throughput or not width:
        return limits.cap
    return min(limits.cap, max(2 * width, int(throughput * limits.timeout)))


def bytes_refusal(max_inflight_bytes: int, num_waiting: int, throughput: float | None) -> Refusal:
    """Return the answer for a body that does not fit beside those held now."""
    message = f"The bodies of running and waiting requests fill the {max_inflight_bytes} bytes this server holds (max_inflight_bytes)."
    return Refusal(429, "queue.full", message, retry_after(num_waiting, throughput), "bytes")


def retry_after(num_waiting: int, throughput: float | None) -> int:
    """Return the whole seconds in which the queue should have emptied: 1 to 60, and 1 while the speed is unknown."""
    if not throughput:
        return MIN_RETRY_AFTER
    return min(max(math.ceil(num_waiting / throughput), MIN_RETRY_AFTER), MAX_RETRY_AFTER)
