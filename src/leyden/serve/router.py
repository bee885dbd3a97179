"""`Router`: which request goes to which worker and when, in one front end. No sockets, and no clock of its own.

Everything that happens is told with the time it happened; what is to be done comes back as effects. So all of it can be
tried in any order, as the tests do.

```
submit ──► QUEUED ──► HELD (sent to a worker: its batch runs, or waits there) ──► ENDED
             │            item_ended                                                ▲
             └── expired, cancelled, deadline, the server stops ─────────────────────┘
```
A worker runs its batches in order: one begins when the last item of the one before it has ended, so nobody has to say so. An
item that its client no longer waits for keeps its place in the worker until it has really ended there.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, final

from leyden.serve.batching import BatchRule
from leyden.serve.estimate import ItemTime
from leyden.serve.limits import Limits, retry_seconds

QUEUED, HELD, ENDED = range(3)
Why = Literal["disconnect", "deadline", "shutdown"]


class WorkerId(NamedTuple):
    """A worker of this server.

    Args:
        api: The number of its API.
        index: Its own.
    """

    api: int
    index: int


@final
class Call:
    """A request, as far as the router knows it.

    Args:
        id: Of this front end; never one in use.
        api: The number of its API.
        size: Bytes of its body.
        deadline: When it must have ended; infinite if never.
        idempotent: Whether it may run again if its worker is lost.
    """

    __slots__ = ("api", "arrived", "batch", "deadline", "expires", "has_answered", "id", "idempotent", "size", "state", "worker")

    def __init__(self, id: int, api: int, size: int = 0, *, deadline: float = math.inf, idempotent: bool = False) -> None:
        self.id, self.api, self.size, self.deadline, self.idempotent = id, api, size, deadline, idempotent
        self.arrived = self.expires = 0.0
        self.state = QUEUED
        self.has_answered = False  # a byte of the answer was sent, or it has run before: it cannot run again
        self.worker: WorkerId | None = None
        self.batch: _Batch | None = None


class Dispatch(NamedTuple):
    """Send calls to a worker, as one batch."""

    worker: WorkerId
    calls: list[Call]


class Fail(NamedTuple):
    """Answer a call with an error; a `retry_after` of 0 is none."""

    call: Call
    status: int
    code: str
    message: str
    retry_after: int = 0


class CancelOnWorker(NamedTuple):
    """Tell a worker that nobody waits for a call any more."""

    worker: WorkerId
    call: Call
    why: Why


Effect = Dispatch | Fail | CancelOnWorker


@final
class _Batch:
    """Calls that were sent together; `left` have not ended in the worker."""

    __slots__ = ("began", "calls", "left")

    def __init__(self, calls: list[Call]) -> None:
        self.calls, self.left, self.began = calls, len(calls), 0.0


@final
class _Worker:
    """A worker that is ready, and what it holds, in the order in which it was sent."""

    __slots__ = ("batches", "calls", "idle_since")

    def __init__(self, now: float) -> None:
        self.batches: deque[_Batch] = deque()
        self.calls: dict[int, Call] = {}
        self.idle_since = now


@final
class _Api:
    """One API's requests and workers."""

    def __init__(self, number: int, rule: BatchRule, timeout: float) -> None:
        self.number, self.rule, self.timeout = number, rule, timeout
        self.queue: deque[Call] = deque()  # those that were given up stay in it until they are at its head
        self.waiting = 0
        self.workers: dict[WorkerId, _Worker] = {}
        self.item_time = ItemTime()
        self.failing = ""

    def head(self) -> Call | None:
        """Return the first call that waits."""
        queue = self.queue
        while queue and queue[0].state != QUEUED:
            queue.popleft()
        return queue[0] if queue else None

    def per_second(self, now: float) -> float | None:
        """Return how many items all workers do in a second, if that is known."""
        each = self.item_time.seconds(now)
        return None if not each or not self.workers else len(self.workers) / each


@final
class Router:
    """Sends requests to workers, and ends each exactly once.

    Args:
        rules: How each API batches.
        timeouts: For how long a request of each may wait until its computation starts; infinite if as long as it takes.
        limits: What is taken on.
    """

    def __init__(self, rules: Sequence[BatchRule], timeouts: Sequence[float], limits: Limits | None = None) -> None:
        self._apis = [_Api(number, rule, timeout) for number, (rule, timeout) in enumerate(zip(rules, timeouts, strict=True))]
        self._limits = limits or Limits()
        self._calls: dict[int, Call] = {}
        self._bytes = 0
        self._deadlines: list[tuple[float, int, Call]] = []
        self._effects: list[Effect] = []
        self._is_draining = False

    # -- requests --------------------------------------------------------------------------------------------------

    def submit(self, call: Call, now: float) -> None:
        """Take a request, or refuse it."""
        api = self._apis[call.api]
        refusal = self._refusal(api, call, now)
        if refusal is not None:
            call.state = ENDED
            self._effects.append(refusal)
            return
        call.arrived, call.expires, call.state = now, now + api.timeout, QUEUED
        self._calls[call.id] = call
        self._bytes += call.size
        if call.deadline != math.inf:
            heapq.heappush(self._deadlines, (call.deadline, call.id, call))
        api.queue.append(call)
        api.waiting += 1
        self._send(api, now)

    def cancel(self, call_id: int, why: Why, now: float) -> None:
        """Take note that nobody waits for a request any more."""
        call = self._calls.get(call_id)
        if call is not None:
            self._give_up(call, why)
            self._send(self._apis[call.api], now)

    def _refusal(self, api: _Api, call: Call, now: float) -> Fail | None:
        if self._is_draining:
            return Fail(call, 503, "server.draining", "The server is about to stop.", 1)
        if api.failing:
            return Fail(call, 503, "server.not_ready", api.failing, 10)
        if call.deadline <= now:
            return Fail(call, 504, "deadline.exceeded", "The deadline of this request was over when it arrived.")
        crowd = self._crowd(api, call, now)
        return None if not crowd else Fail(call, 429, "queue.full", crowd, retry_seconds(api.waiting, api.per_second(now)))

    def _crowd(self, api: _Api, call: Call, now: float) -> str:
        """Return what there is too much of; nothing if a request can be taken."""
        if api.waiting >= self._limits.queue_size:
            return f"{api.waiting:,} requests wait already."
        if self._bytes + call.size > self._limits.max_inflight_bytes and self._calls:
            return f"{self._bytes:,} bytes of requests are held already."
        per_second = api.per_second(now)
        if self._limits.max_queue_size is None and per_second and api.waiting >= 2 * api.rule.max_batch_size * len(api.workers):
            seconds = api.waiting / per_second
            return f"It would wait for about {seconds:.0f} s." if seconds > api.timeout else ""
        return ""

    # -- workers ---------------------------------------------------------------------------------------------------

    def worker_ready(self, worker: WorkerId, now: float) -> None:
        """Take note that a worker takes requests."""
        api = self._apis[worker.api]
        api.workers[worker] = _Worker(now)
        self._send(api, now)

    def worker_gone(self, worker: WorkerId, why: str, now: float) -> None:
        """Take note that a worker is gone, with all that it held."""
        api = self._apis[worker.api]
        gone = api.workers.pop(worker, None)
        if gone is None:
            return
        lost = [call for call in gone.calls.values() if call.state == HELD]
        for call in reversed(lost):  # so that those that run again stand before the others, in their order
            if call.idempotent and not call.has_answered:
                call.state, call.has_answered, call.worker, call.batch = QUEUED, True, None, None
                api.queue.appendleft(call)
                api.waiting += 1
        for call in lost:
            if call.state == HELD:
                self._fail(call, 503, "worker.lost", f"The worker was lost: {why}.", 1)
        self._send(api, now)

    def item_ended(self, worker: WorkerId, call_id: int, now: float) -> None:
        """Take note that a worker is done with an item, whether somebody waits for it or not."""
        api = self._apis[worker.api]
        holder = api.workers.get(worker)
        call = None if holder is None else holder.calls.pop(call_id, None)
        if holder is None or call is None or call.batch is None:
            return  # of a worker that is gone, or an answer that came twice
        call.batch.left -= 1
        call.batch = None
        if call.state == HELD:
            self._end(call)
        while holder.batches and not holder.batches[0].left:
            ended = holder.batches.popleft()
            api.item_time.learn(now - ended.began, len(ended.calls), now)
            if holder.batches:
                holder.batches[0].began = now
        if not holder.calls:
            holder.idle_since = now
        self._send(api, now)

    def set_failing(self, api: int, message: str) -> None:
        """Refuse an API's requests with this message; an empty one takes them again."""
        self._apis[api].failing = message

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """End what has waited for too long, and send what is due."""
        while self._deadlines and self._deadlines[0][0] <= now:
            call = heapq.heappop(self._deadlines)[2]
            if call.state != ENDED:
                self._fail(call, 504, "deadline.exceeded", "The deadline of this request is over.", cancels="deadline")
        for api in self._apis:
            for call in self._expired(api, now):
                self._fail(call, 504, "queue.expired", "Request timed out", cancels="deadline")
            self._send(api, now)

    def next_wakeup(self) -> float | None:
        """Return when `tick` has something to do, if nothing else happens before; `None` if never."""
        while self._deadlines and self._deadlines[0][2].state == ENDED:
            heapq.heappop(self._deadlines)
        found = self._deadlines[0][0] if self._deadlines else math.inf
        for api in self._apis:
            head = api.head()
            if head is not None:
                found = min(found, head.expires)
                if api.rule.batch_timeout and any(not worker.calls for worker in api.workers.values()):
                    found = min(found, api.rule.due_at(head.arrived, api.waiting))
            for call in _staged(api):
                found = min(found, call.expires)
        return None if found == math.inf else found

    def take_effects(self) -> list[Effect]:
        """Return what is to be done, in order."""
        effects, self._effects = self._effects, list[Effect]()
        return effects

    # -- the end ---------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Refuse what comes from now on."""
        self._is_draining = True

    def stop(self) -> None:
        """End everything that is left."""
        self._is_draining = True
        for call in list(self._calls.values()):
            self._fail(call, 503, "server.draining", "The server stopped before this request was done.", 1, cancels="shutdown")

    @property
    def open_calls(self) -> int:
        """How many requests have not ended."""
        return len(self._calls)

    @property
    def held_bytes(self) -> int:
        """How many bytes their bodies have."""
        return self._bytes

    def waiting(self, api: int) -> int:
        """Return how many requests of an API wait for a worker."""
        return self._apis[api].waiting

    def held(self, api: int) -> int:
        """Return how many items the workers of an API hold, those that nobody waits for included."""
        return sum(len(worker.calls) for worker in self._apis[api].workers.values())

    # -- inside ----------------------------------------------------------------------------------------------------

    def _send(self, api: _Api, now: float) -> None:
        """Give waiting calls to workers as long as both are there."""
        while api.waiting:
            head = api.head()
            if head is None or head.expires <= now:
                return  # the next tick ends it, before anything behind it is sent
            worker = self._free_worker(api, now)
            if worker is None:
                return
            holder, size = api.workers[worker], api.rule.max_batch_size
            if holder.calls:
                if api.waiting < size:
                    return  # only whole batches wait in a worker: what comes meanwhile may still join this one
            elif api.rule.due_at(head.arrived, api.waiting) > now:
                return
            calls = self._taken(api, size, now)
            if calls:
                batch = _Batch(calls)
                for call in calls:
                    call.state, call.worker, call.batch = HELD, worker, batch
                    holder.calls[call.id] = call
                if not holder.batches:
                    batch.began = now
                holder.batches.append(batch)
                self._effects.append(Dispatch(worker, calls))

    def _taken(self, api: _Api, most: int, now: float) -> list[Call]:
        """Take calls from the queue that may still be computed."""
        calls = list[Call]()
        while len(calls) < most and (head := api.head()) is not None:
            if head.deadline <= now:
                self._fail(head, 504, "deadline.exceeded", "The deadline of this request is over.")
                continue
            api.queue.popleft()
            api.waiting -= 1
            calls.append(head)
        return calls

    def _free_worker(self, api: _Api, now: float) -> WorkerId | None:
        """Return the worker that holds least and has room for a batch; of several the one that has been idle for longest."""
        window, size = api.rule.window(api.item_time.seconds(now)), api.rule.max_batch_size
        best, least = None, (window - size, math.inf)
        for worker, holder in api.workers.items():
            found = (len(holder.calls), holder.idle_since)
            if found < least:
                best, least = worker, found
        return best

    def _expired(self, api: _Api, now: float) -> Iterator[Call]:
        """Yield calls whose computation should have begun by now, each to be ended: heads of the queue, and what waits in workers."""
        while (head := api.head()) is not None and head.expires <= now:
            yield head
        yield from [call for call in _staged(api) if call.expires <= now]

    def _give_up(self, call: Call, why: Why) -> None:
        worker = call.worker
        if call.state == HELD and worker is not None:
            self._effects.append(CancelOnWorker(worker, call, why))
        elif call.state == QUEUED:
            self._apis[call.api].waiting -= 1
        self._end(call)

    def _fail(self, call: Call, status: int, code: str, message: str, retry_after: int = 0, *, cancels: Why | None = None) -> None:
        self._effects.append(Fail(call, status, code, message, retry_after))
        if call.state == QUEUED:
            self._apis[call.api].waiting -= 1
        if call.state == HELD and cancels is not None and call.worker is not None:
            self._effects.append(CancelOnWorker(call.worker, call, cancels))
        self._end(call)

    def _end(self, call: Call) -> None:
        call.state = ENDED
        if self._calls.pop(call.id, None) is not None:
            self._bytes -= call.size


def _staged(api: _Api) -> Iterator[Call]:
    """Yield calls that were sent to a worker, and whose batch has not begun."""
    for holder in api.workers.values():
        if len(holder.batches) > 1:
            for batch in list(holder.batches)[1:]:
                yield from (call for call in batch.calls if call.state == HELD)
