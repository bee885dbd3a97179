"""`Router`: which call goes to which worker, when, and which calls are refused, expire or are lost.

It does no I/O and reads no clock: the front end tells it what happened and at what time, then carries out the effects.
One turn of the event loop is: tell everything that happened, `tick` once, `take_effects`, and set a timer for
`next_wakeup`. Sending happens in `tick`, so calls that arrive in one turn leave in one batch.

What always holds:

- A call that was submitted ends exactly once: by `item_ended`, by `cancel`, or by a `Fail`.
- What expired or was cancelled is never sent to a worker. Expiry comes before sending.
- Calls of an API are sent in the order they came; one whose worker was lost goes before them, once.
- A worker never holds more than it can compute at once, plus what is staged (`batching.py`).
- The effects depend on what was told, and on nothing else.

A call costs the same however many wait. `timeout` and `deadline` are one value for all calls of a queue, so the oldest
expires first; only deadlines that clients name need a heap.
"""

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic, final

from leyden.serve.effects import CallState, CallT, CancelOnWorker, Dispatch, Effect, Fail, Kill, Timing, Wake, Why, WorkerId, WorkerShape
from leyden.serve.lanes import QUEUED, RUNNING, SPARE, Lane
from leyden.serve.limits import DRAINING, FAILING, MIN_RETRY_AFTER, Limits, Refusal, bytes_refusal, queue_refusal

GIB = 1 << 30


@final
class Router(Generic[CallT]):
    """The queues and workers of one front end. Not thread safe; `now` never goes back.

    Args:
        apis: The limits of each API, in their order.
        deadline: Seconds that a call may take in all; None for as long as it takes. `Call.deadline` may only shorten it.
        max_inflight_bytes: Bytes of all bodies held.
        kill_after: Seconds after which a worker is ended that goes on with what it was told to leave; None for never.

    Attributes:
        lanes: The queue and the workers of each API, for metrics; the front end sets `is_failing` there.
        is_draining: Set by the front end when it shuts down: new calls are refused, accepted ones go on.
        inflight_bytes: Bytes of the bodies held now.

    Example:
        >>> from types import SimpleNamespace
        >>> router = Router([Limits()])
        >>> call = SimpleNamespace(id=1, api=0, num_bytes=2, deadline=math.inf, is_idempotent=False, is_answering=False)
        >>> router.worker_ready(WorkerId(0, 0), WorkerShape(), now=0.0)
        >>> router.submit(call, now=0.0)
        >>> router.tick(now=0.0)
        >>> [type(effect).__name__ for effect in router.take_effects()]
        ['Dispatch']
    """

    def __init__(
        self, apis: Sequence[Limits], *, deadline: float | None = None, max_inflight_bytes: int = GIB, kill_after: float | None = None
    ) -> None:
        self._deadline = math.inf if deadline is None else deadline
        self.lanes: tuple[Lane[CallT], ...] = tuple(Lane(limits, self._deadline) for limits in apis)
        self.is_draining = False
        self.inflight_bytes = 0
        self._max_inflight_bytes = max_inflight_bytes
        self._kill_after = math.inf if kill_after is None else kill_after
        self._given_up: deque[tuple[float, WorkerId, int]] = deque()  # when to look whether a worker has let go of a call
        self._calls: dict[int, CallT] = {}  # the open ones, in order of arrival
        self._deadlines: list[tuple[float, int]] = []  # a heap of those that clients named, with ids
        self._num_deadlines = 0
        self._expires_at = math.inf  # a lower bound, exact after `_expire`
        self._effects: list[Effect[CallT]] = []
        self._outgoing: dict[WorkerId, list[CallT]] = {}  # the calls of a `Dispatch` that may still grow

    @property
    def open_calls(self) -> Mapping[int, CallT]:
        """The calls that have not ended, by id, in order of arrival."""
        return MappingProxyType(self._calls)

    def submit(self, call: CallT, now: float) -> None:
        """Take in a call, or refuse it with a `Fail`.

        Args:
            call: A new one.
            now: The time.
        """
        lane = self.lanes[call.api]
        call.arrival = now
        call.worker = None
        call.is_retry = False
        is_close_to_limits = (  # then more has to be thought of than of nearly all calls
            self.is_draining
            or lane.is_failing
            or lane.num_waiting >= lane.easy
            or self.inflight_bytes + call.num_bytes > self._max_inflight_bytes
        )
        if is_close_to_limits and (refusal := self._refusal(lane, call, now)):
            call.state, call.is_open, call.since = CallState.ENDED, False, now
            self._effects.append(Fail(call, *refusal))
            return
        call.is_open = True
        self._calls[call.id] = call
        self.inflight_bytes += call.num_bytes
        lane.put(call, now)
        if now + lane.patience < self._expires_at:
            self._expires_at = now + lane.patience
        if call.deadline != math.inf:
            self._wake_for_expiry(call.deadline)
            self._num_deadlines += 1
            heapq.heappush(self._deadlines, (call.deadline, call.id))

    def cancel(self, call_id: int, why: Why, now: float) -> None:
        """End a call from the client's side.

        Args:
            call_id: Which; one that has ended is ignored.
            why: `"shutdown"` answers it with 503; otherwise nobody is there to be answered.
            now: The time.
        """
        if not (call := self._calls.get(call_id)):
            return
        if why == "shutdown":
            self._fail(call, DRAINING, now, why)
        else:
            self._abandon(call, now, why)

    def worker_ready(self, worker: WorkerId, shape: WorkerShape, now: float) -> None:
        """Add a worker; one that is known changes its shape, and so begins to drain.

        Args:
            worker: Which.
            shape: What it takes.
            now: The time.
        """
        self.lanes[worker.api].welcome(worker, shape, now)

    def worker_gone(self, worker: WorkerId, why: str, now: float) -> None:
        """Remove a worker. Its calls are lost: answered with 503, or run again once if they may.

        Args:
            worker: Which; an unknown one is ignored.
            why: What happened to it, for the message.
            now: The time.
        """
        lane = self.lanes[worker.api]
        if not (gone := lane.dismiss(worker, now)):
            return
        self._outgoing.pop(worker, None)
        lost = Refusal(503, "worker.lost", f"The worker that had this request was lost: {why}.", MIN_RETRY_AFTER)
        for call in gone.slots.values():
            call.state = CallState.ENDED
            if not call.is_open:
                continue
            if call.is_idempotent and not call.is_answering and not call.is_retry:
                self._requeue(lane, call, now)
            else:
                self._fail(call, lost, now)

    def item_ended(self, worker: WorkerId, call_id: int, timing: Timing | None, now: float) -> None:
        """Free the slot of an item: its answer came, or its worker skipped it.

        Args:
            worker: Who had it.
            call_id: Which; one that the worker does not have is ignored.
            timing: What the worker measured, with the last item of a batch.
            now: The time.
        """
        lane = self.lanes[worker.api]
        owner = lane.workers.get(worker)
        if owner is None or (call := owner.slots.pop(call_id, None)) is None:
            return
        if call.is_open:
            self._close(call)
            if call.state is RUNNING and (owner.num_running == 1 or owner.shape.concurrency > 1):
                lane.run_seconds.add(now - call.since, 1, now)
        if timing is not None:
            lane.item_seconds.add(timing.seconds, timing.num_items, now)
        owner.release(call, now)
        if not owner.slots and owner.shape.takes_work:
            lane.idle[worker] = owner
        lane.wake_at = now

    def tick(self, now: float) -> None:
        """Expire what waited too long, then send what can be sent."""
        if now >= self._expires_at:
            self._expire(now)
        for api, lane in enumerate(self.lanes):
            if lane.is_failing and not lane.workers and lane.num_waiting:
                for call in lane.waiting():
                    self._fail(call, FAILING, now)
            elif lane.wake_at <= now:
                self._send(lane, now)
                if lane.num_waiting and not lane.workers and not lane.has_called:
                    lane.has_called = True
                    self._effects.append(Wake(api))

    def next_wakeup(self) -> float | None:
        """Return when to call `tick` if nothing happens before; None if nothing waits.

        After a `tick` it lies in the future; after other events it may lie in the past: tick at once. It may be earlier
        than needed, never later, so a timer that is set already and is due earlier can stay.
        """
        if not self._calls and not self._given_up:
            return None
        wake = self._expires_at
        for lane in self.lanes:
            if lane.num_waiting and lane.wake_at < wake:
                wake = lane.wake_at
        return None if wake == math.inf else wake

    def take_effects(self) -> list[Effect[CallT]]:
        """Return what is to be done, in this order, and forget it."""
        effects = self._effects
        self._effects = []
        self._outgoing.clear()
        return effects

    def _refusal(self, lane: Lane[CallT], call: CallT, now: float) -> Refusal | None:
        if self.is_draining:
            return DRAINING
        if lane.is_failing:
            return FAILING
        if not self._bound(lane, call):
            return None
        self.tick(now)  # what has expired, and what a worker can take, is no longer in the way
        return self._bound(lane, call)

    def reserve(self, num_bytes: int) -> bool:
        """Count bytes of a body that is still on its way, if there is room; before it is submitted, `release` them.

        A body that is larger than all the room there is is welcome while nothing else is held: else it never would be.
        """
        if self._is_too_much(num_bytes):
            return False
        self.inflight_bytes += num_bytes
        return True

    def release(self, num_bytes: int) -> None:
        """Count bytes no longer that were reserved."""
        self.inflight_bytes -= num_bytes

    def _is_too_much(self, num_bytes: int) -> bool:
        return self.inflight_bytes > 0 and self.inflight_bytes + num_bytes > self._max_inflight_bytes

    def _bound(self, lane: Lane[CallT], call: CallT) -> Refusal | None:
        if self._is_too_much(call.num_bytes):
            return bytes_refusal(self._max_inflight_bytes, lane.num_waiting, lane.throughput)
        if lane.num_waiting < lane.cap and lane.num_waiting < 2 * lane.width:
            return None
        return queue_refusal(lane.limits, lane.num_waiting, lane.width, lane.throughput)

    def _send(self, lane: Lane[CallT], now: float) -> None:
        lane.judge_speed()
        while lane.num_waiting:
            if (worker := lane.choose(now)) is None:
                return
            lane.idle.pop(worker.id, None)
            size = worker.shape.max_batch_size
            is_staged = worker.num_running > 0 and worker.shape.concurrency == 1
            if size == 1:
                call = lane.take()
                self._singles(worker.id).append(call)
                worker.hold(call, now, is_staged=is_staged)
                continue
            batch = [lane.take() for _ in range(min(size, lane.num_waiting))]
            for call in batch:
                worker.hold(call, now, is_staged=is_staged)
            self._effects.append(Dispatch(worker.id, batch, closes_batch=True))
        lane.wake_at = math.inf

    def _singles(self, worker: WorkerId) -> list[CallT]:
        """Return the list of this turn's `Dispatch` of single calls to a worker: one write for all of them."""
        if (calls := self._outgoing.get(worker)) is not None:
            return calls
        fresh: list[CallT] = []
        self._outgoing[worker] = fresh
        self._effects.append(Dispatch(worker, fresh, closes_batch=False))
        return fresh

    def _requeue(self, lane: Lane[CallT], call: CallT, now: float) -> None:
        call.is_retry = True
        call.worker = None
        lane.put(call, now)
        self._wake_for_expiry(now + lane.timeout)

    def _wake_for_expiry(self, when: float) -> None:
        if when < self._expires_at:
            self._expires_at = when

    def _expire(self, now: float) -> None:
        self._end_the_stuck(now)
        late = Refusal(504, "deadline.exceeded", "The deadline of this request has passed.")
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][1] not in self._calls):
            if call := self._calls.get(heapq.heappop(self._deadlines)[1]):
                self._fail(call, late, now, "deadline")
        for call in self._older_than(self._deadline, now):
            self._fail(call, late, now, "deadline")
        for lane in self.lanes:
            for call in lane.overdue(now):
                self._fail(call, Refusal(504, "queue.expired", "Request timed out"), now, "deadline")
        self._expires_at = min((lane.expires_at() for lane in self.lanes), default=math.inf)
        if self._deadlines:
            self._wake_for_expiry(self._deadlines[0][0])
        if self._calls:
            self._wake_for_expiry(next(iter(self._calls.values())).arrival + self._deadline)
        if self._given_up:
            self._wake_for_expiry(self._given_up[0][0])

    def _end_the_stuck(self, now: float) -> None:
        """End workers that go on with what was given up `kill_after` seconds ago; later, if somebody waits for what began before."""
        while self._given_up and self._given_up[0][0] <= now:
            _, name, call_id = self._given_up.popleft()
            lane = self.lanes[name.api]
            worker = lane.workers.get(name)
            if worker is None or worker.is_doomed or call_id not in worker.slots:
                continue
            if worker.is_stuck_with(call_id):
                worker.is_doomed = True
                lane.welcome(name, worker.shape._replace(takes_work=False), now)
                self._effects.append(Kill(name))
            else:
                self._given_up.append((now + self._kill_after, name, call_id))

    def _older_than(self, seconds: float, now: float) -> list[CallT]:
        found: list[CallT] = []
        for call in self._calls.values():
            if call.arrival + seconds > now:
                break
            found.append(call)
        return found

    def _fail(self, call: CallT, reason: Refusal, now: float, why: Why | None = None) -> None:
        self._effects.append(Fail(call, *reason))
        self._abandon(call, now, why)

    def _abandon(self, call: CallT, now: float, why: Why | None) -> None:
        """End an open call whose item may be anywhere; `why` tells the worker that has it, if any."""
        self._close(call)
        if call.state is QUEUED:
            call.state = CallState.ENDED
            self.lanes[call.api].forget()
        elif why is not None and call.worker is not None:
            self._effects.append(CancelOnWorker(call.worker, call, why))
            if self._kill_after != math.inf:
                self._given_up.append((now + self._kill_after, call.worker, call.id))
                self._wake_for_expiry(now + self._kill_after)

    def _close(self, call: CallT) -> None:
        """Free all that an open call holds here but the slot of its worker."""
        call.is_open = False
        del self._calls[call.id]
        self.inflight_bytes -= call.num_bytes
        if call.deadline == math.inf:
            return
        self._num_deadlines -= 1
        if len(self._deadlines) > SPARE + 2 * self._num_deadlines:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._calls]
            heapq.heapify(self._deadlines)
        elif not self._num_deadlines:
            self._deadlines.clear()
