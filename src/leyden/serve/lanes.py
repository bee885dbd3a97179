"""The tables of the router: a `Lane` for each API, with what waits, and a `Worker` for each that serves it.

Queues keep calls that ended while they waited until these reach the head, or until they are the larger part: so
dropping a call costs nothing, and the memory stays in proportion to what waits.
"""

import math
from collections import deque
from typing import Generic, final

from leyden.serve.batching import LONGEST_RUN_SECONDS, due_at, staged_items
from leyden.serve.effects import CallState, CallT, WorkerId, WorkerShape
from leyden.serve.estimate import Estimate
from leyden.serve.limits import Limits, easy_queue

QUEUED, STAGED, RUNNING = CallState.QUEUED, CallState.STAGED, CallState.RUNNING  # a global is read faster than an enum's member
SPARE = 64  # ended calls that a queue may keep before it is worth a copy


@final
class Worker(Generic[CallT]):
    """What one worker holds. It runs its batches in order, so a staged batch begins when the last item before it ended.

    Args:
        name: Its id.
        shape: What it said of itself.
    """

    __slots__ = ("id", "is_doomed", "num_running", "shape", "slots", "staged")

    def __init__(self, name: WorkerId, shape: WorkerShape) -> None:
        self.id = name
        self.shape = shape
        self.slots: dict[int, CallT] = {}  # by call id: every item that it has not ended, of ended calls too
        self.staged: deque[CallT] = deque()
        self.num_running = 0
        self.is_doomed = False  # somebody was told to end it

    def has_room(self, num_waiting: int, num_staged: int) -> bool:
        """Whether this worker, busy or not, takes a batch of what waits, where so many may be staged."""
        shape = self.shape
        if not shape.takes_work:
            return False
        size = shape.max_batch_size
        if num_waiting < size:  # only a full batch is sent ahead: a part would be computed as a part, though more may come
            return False
        if shape.concurrency > 1:
            return len(self.slots) + size <= shape.concurrency
        return len(self.slots) - self.num_running + size <= num_staged

    def hold(self, call: CallT, now: float, *, is_staged: bool) -> None:
        """Take over a call that is sent to this worker."""
        self.slots[call.id] = call
        call.worker = self.id
        if is_staged:
            call.state = STAGED
            self.staged.append(call)
        else:
            self._begin(call, now)

    def release(self, call: CallT, now: float) -> None:
        """Note that the item of a call, already out of `slots`, has ended; begin the next batch after the last."""
        if call.state is RUNNING:
            self.num_running -= 1
        call.state = CallState.ENDED
        while not self.num_running and self.staged:
            for _ in range(min(self.shape.max_batch_size, len(self.staged))):
                if (following := self.staged.popleft()).state is STAGED:
                    self._begin(following, now)

    def is_stuck_with(self, call_id: int) -> bool:
        """Whether it computes a call, given up by now, and nobody waits for anything that it began before or with that."""
        call = self.slots[call_id]
        if call.state is not RUNNING:  # it waits for its turn: then it is skipped
            return False
        return not any(each.is_open and each.state is RUNNING and each.since <= call.since for each in self.slots.values())

    def _begin(self, call: CallT, now: float) -> None:
        call.state = RUNNING
        call.since = now
        self.num_running += 1


@final
class Lane(Generic[CallT]):
    """One API: its queue, its workers and what is known of their speed.

    Args:
        limits: Of this API.
        deadline: Seconds that a call may take in all; `inf` for as long as it takes.

    Attributes:
        is_failing: Set by the front end when the API's workers die again and again: new calls are refused.
        cap: Most calls that wait.
        timeout: Seconds that a call may wait; `inf` for as long as it takes.
        patience: Seconds after which a call that waits is over, one way or the other.
        num_waiting: Calls in the queue.
        width: Calls that its workers compute at once.
        easy: With fewer calls that wait, one more is welcome, as far as the speed of the workers was known in the last turn.
        wake_at: When something may be sent; `inf` until something changes.
        has_called: Whether somebody was told that a call waits and there is no worker.
    """

    __slots__ = (
        "_fresh",
        "_is_slow",
        "_lost",
        "_staged_items",
        "cap",
        "easy",
        "has_called",
        "idle",
        "is_failing",
        "item_seconds",
        "limits",
        "num_concurrent",
        "num_waiting",
        "patience",
        "run_seconds",
        "timeout",
        "wake_at",
        "width",
        "workers",
    )

    def __init__(self, limits: Limits, deadline: float = math.inf) -> None:
        self.limits = limits
        self.cap = limits.cap
        self.timeout = math.inf if limits.timeout is None else limits.timeout
        self.patience = min(self.timeout, deadline)
        self.is_failing = self.has_called = False
        self.workers: dict[WorkerId, Worker[CallT]] = {}
        self.idle: dict[WorkerId, Worker[CallT]] = {}  # the longest idle first
        self.width = self.easy = 0
        self.num_concurrent = 0
        self.num_waiting = 0
        self.wake_at = math.inf
        self.run_seconds = Estimate()  # of a batch, or of a call without batches
        self.item_seconds = Estimate()
        self._fresh: deque[CallT] = deque()
        self._is_slow, self._staged_items = True, dict[int, int]()  # of the last turn; by the size of batches
        self._lost: deque[CallT] = deque()  # those whose worker was lost: they go first, and wait anew, so both are in order of `since`

    @property
    def throughput(self) -> float | None:
        """Calls per second when all workers are busy with full batches; None while that is unknown."""
        seconds = self.run_seconds.value
        return self.width / seconds if seconds else None

    def judge_speed(self) -> None:
        """Find out anew with how many calls that wait one more is welcome, and how many a worker may have staged."""
        seconds = self.item_seconds.value
        self._is_slow = seconds is None or seconds > LONGEST_RUN_SECONDS
        self._staged_items.clear()
        self.easy = easy_queue(self.limits, self.width, self.throughput)

    def put(self, call: CallT, now: float) -> None:
        """Let a call wait: behind the others, or before them if it runs again."""
        call.state = QUEUED
        call.since = now
        (self._lost if call.is_retry else self._fresh).append(call)
        self.num_waiting += 1
        self.wake_at = now

    def take(self) -> CallT:
        """Return the first call that waits. There must be one."""
        self.num_waiting -= 1
        while True:
            call = (self._lost or self._fresh).popleft()
            if call.state is QUEUED:
                break
        if not self.num_waiting:
            self._lost.clear()
            self._fresh.clear()
        return call

    def forget(self) -> None:
        """Note that a call in the queue has ended."""
        self.num_waiting -= 1
        if not self.num_waiting:
            self._lost.clear()
            self._fresh.clear()
            self.has_called = False
        elif len(self._lost) + len(self._fresh) > SPARE + 2 * self.num_waiting:
            self._lost = deque(call for call in self._lost if call.state is QUEUED)
            self._fresh = deque(call for call in self._fresh if call.state is QUEUED)

    def waiting(self) -> list[CallT]:
        """Return the calls of the queue, in order."""
        return [call for calls in (self._lost, self._fresh) for call in calls if call.state is QUEUED]

    def overdue(self, now: float) -> list[CallT]:
        """Return the calls, queued or staged, that have waited for `timeout`."""
        found: list[CallT] = []
        for queue in (self._lost, self._fresh):
            for call in queue:
                if call.state is QUEUED:
                    if call.since + self.timeout > now:
                        break
                    found.append(call)
        found.extend(call for call in self._staged() if call.since + self.timeout <= now)
        return found

    def expires_at(self) -> float:
        """Return when the next call, queued or staged, will have waited for `timeout`."""
        first = math.inf
        for queue in (self._lost, self._fresh):
            first = min(first, next((call.since for call in queue if call.state is QUEUED), math.inf))
        return min(first, min((call.since for call in self._staged()), default=math.inf)) + self.timeout

    def choose(self, now: float) -> Worker[CallT] | None:
        """Return who takes the next batch of what waits; None, with `wake_at` set, if nobody does now.

        The longest idle worker comes first, then the one with the fewest items that has room.
        """
        if not self.idle:
            self.wake_at = math.inf
            return self._least_loaded()
        worker = next(iter(self.idle.values()))
        if not self.limits.batch_timeout:
            self.wake_at = now
            return worker
        # A queue that may not hold a full batch would wait in vain for one.
        full_at = min(worker.shape.max_batch_size, self.cap)
        first = self._skip_ended().arrival
        self.wake_at = due_at(self.num_waiting, first, full_at=full_at, batch_timeout=self.limits.batch_timeout)
        return worker if self.wake_at <= now else None

    def welcome(self, name: WorkerId, shape: WorkerShape, now: float) -> None:
        """Add a worker, or note that it changed what it takes."""
        worker = self.workers.setdefault(name, Worker(name, shape))
        worker.shape = shape
        self.has_called = False
        self._recount(now)

    def dismiss(self, name: WorkerId, now: float) -> Worker[CallT] | None:
        """Remove a worker and return it; None if it is unknown."""
        if worker := self.workers.pop(name, None):
            self._recount(now)
        return worker

    def _recount(self, now: float) -> None:
        working = [worker for worker in self.workers.values() if worker.shape.takes_work]
        self.width = sum(worker.shape.width for worker in working)
        self.judge_speed()
        self.num_concurrent = sum(worker.shape.concurrency > 1 for worker in working)
        idle = {worker.id: worker for worker in working if not worker.slots}
        kept = {name: worker for name, worker in self.idle.items() if name in idle}
        self.idle = kept | idle  # those that were idle keep their order
        self.wake_at = now

    def _staged(self) -> list[CallT]:
        return [call for worker in self.workers.values() for call in worker.staged if call.is_open and call.state is STAGED]

    def _skip_ended(self) -> CallT:
        while self._lost:
            if (call := self._lost[0]).state is QUEUED:
                return call
            self._lost.popleft()
        while (call := self._fresh[0]).state is not QUEUED:
            self._fresh.popleft()
        return call

    def _least_loaded(self) -> Worker[CallT] | None:
        # An API has few workers: looking at each costs less than keeping them sorted.
        if not self.num_concurrent and self._is_slow:
            return None
        best: Worker[CallT] | None = None
        for worker in self.workers.values():
            if best is None or len(worker.slots) < len(best.slots):
                size = worker.shape.max_batch_size
                staged = self._staged_items.get(size)
                if staged is None:
                    staged = self._staged_items[size] = staged_items(self.item_seconds.value, size)
                if worker.has_room(self.num_waiting, staged):
                    best = worker
        return best
