"""What always holds of the router, whatever happens in whatever order, on a fake clock."""

import math
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from leyden.serve.batching import MAX_STAGED
from leyden.serve.effects import CallState, CancelOnWorker, Dispatch, Fail, Kill, Timing, Wake, WorkerId, WorkerShape
from leyden.serve.limits import Limits
from leyden.serve.router import Router
from tests.support.routed_calls import RoutedCall

NUM_APIS, NUM_WORKERS = 2, 3
MAX_BYTES = 60
APIS = st.integers(0, NUM_APIS - 1)
SHAPES = st.sampled_from([WorkerShape(), WorkerShape(max_batch_size=3), WorkerShape(concurrency=3)])
LIMITS = st.builds(
    Limits,
    timeout=st.sampled_from([None, 1.0, 4.0]),
    max_queue_size=st.sampled_from(["auto", 1, 6, 50]),
    batch_timeout=st.sampled_from([0.0, 0.5]),
)


class RouterLaws(RuleBasedStateMachine):
    """A front end and its workers, with a plain record of what must be true of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.calls: dict[int, RoutedCall] = {}
        self.endings: dict[int, list[str]] = {}
        self.shapes: dict[WorkerId, WorkerShape] = {}
        self.held: dict[WorkerId, list[int]] = {}  # what each worker was sent and has not ended, in order
        self.num_sent: dict[int, int] = {}
        self.ended_at: dict[int, float] = {}  # of calls that were sent and given up
        self.last_sent = [0] * NUM_APIS
        self.has_ticked = True

    @initialize(
        limits=st.lists(LIMITS, min_size=NUM_APIS, max_size=NUM_APIS),
        deadline=st.sampled_from([None, 3.0]),
        shapes=st.lists(SHAPES, min_size=NUM_APIS, max_size=NUM_APIS),
        seconds=st.sampled_from([None, 0.0005, 0.02]),
        kill_after=st.sampled_from([None, 0.6]),
    )
    def start(
        self, limits: list[Limits], deadline: float | None, shapes: list[WorkerShape], seconds: float | None, kill_after: float | None
    ) -> None:
        """Begin with a worker for each API, and with what it has shown of its speed."""
        self.limits = limits
        self.deadline = math.inf if deadline is None else deadline
        self.shape_of = shapes
        self.kill_after = math.inf if kill_after is None else kill_after
        self.router: Router[RoutedCall] = Router(limits, deadline=deadline, max_inflight_bytes=MAX_BYTES, kill_after=kill_after)
        for api in range(NUM_APIS):
            self.ready(api, 0, takes_work=True, then_tick=True)
            for _ in range(10 if seconds else 0):
                self.submit(api, 1, 0, None, again=False, then_tick=True)
                self.wait(limits[api].batch_timeout)
                self.end_first(WorkerId(api, 0), Timing(1, seconds or 0.0))

    @rule(
        api=APIS,
        count=st.integers(1, 8),
        num_bytes=st.sampled_from([0, 1, 9]),
        wait=st.sampled_from([None, None, None, 0.0, 0.7, 2.0]),
        again=st.booleans(),
        then_tick=st.booleans(),
    )
    def submit(self, api: int, count: int, num_bytes: int, wait: float | None, again: bool, then_tick: bool) -> None:
        for _ in range(count):
            call = RoutedCall(len(self.calls) + 1, api, num_bytes, math.inf if wait is None else self.now + wait, again)
            self.calls[call.id], self.endings[call.id] = call, []
            self.router.submit(call, self.now)
            self.take(may_refuse=call.id)
        self.happened(then_tick)

    @rule(api=APIS, index=st.integers(0, NUM_WORKERS - 1), takes_work=st.sampled_from([True, True, True, False]), then_tick=st.booleans())
    def ready(self, api: int, index: int, takes_work: bool, then_tick: bool) -> None:
        worker = WorkerId(api, index)
        self.shapes[worker] = self.shape_of[api]._replace(takes_work=takes_work)
        self.held.setdefault(worker, [])
        self.router.worker_ready(worker, self.shapes[worker], self.now)
        self.happened(then_tick)

    @precondition(lambda self: self.shapes)
    @rule(data=st.data(), then_tick=st.booleans())
    def gone(self, data: st.DataObject, then_tick: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.shapes)))
        del self.shapes[worker]
        lost = self.held.pop(worker)
        self.router.worker_gone(worker, "gone", self.now)
        self.take()
        for number in lost:
            assert self.endings[number] or self.calls[number].is_retry
        self.happened(then_tick)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), seconds=st.sampled_from([None, 0.0005, 0.001, 0.02]), count=st.integers(1, 12), then_tick=st.booleans())
    def end(self, data: st.DataObject, seconds: float | None, count: int, then_tick: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(worker for worker, ids in self.held.items() if ids)))
        for _ in range(min(count, len(self.held[worker]))):
            self.end_first(worker, None if seconds is None else Timing(1, seconds))
        self.happened(then_tick)

    def end_first(self, worker: WorkerId, timing: Timing | None) -> None:
        number = self.held[worker].pop(0)
        if self.calls[number].is_open:
            self.endings[number].append("answered")
        self.router.item_ended(worker, number, timing, self.now)
        self.take()
        self.has_ticked = False

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), why=st.sampled_from(["disconnect", "shutdown"]))
    def cancel(self, data: st.DataObject, why: Any) -> None:
        number = data.draw(st.integers(max(1, len(self.calls) - 20), len(self.calls)))
        if why == "disconnect" and self.calls[number].is_open:
            self.endings[number].append("cancelled")
        self.router.cancel(number, why, self.now)
        self.take()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def answer_begins(self, data: st.DataObject) -> None:
        call = self.calls[data.draw(st.integers(max(1, len(self.calls) - 20), len(self.calls)))]
        if call.state is CallState.RUNNING:
            call.is_answering = True

    def happened(self, then_tick: bool) -> None:
        self.has_ticked = False
        if then_tick:
            self.tick()

    @rule()
    def tick(self) -> None:
        self.router.tick(self.now)
        self.take()
        self.has_ticked = True

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass as an event loop does: tick at every wake-up on the way."""
        self.tick()
        until = self.now + seconds
        while (wake := self.router.next_wakeup()) is not None and wake <= until:
            assert wake > self.now, "a tick must leave nothing to do at once, or the loop spins"
            self.now = wake
            self.tick()
        self.now = until
        self.tick()

    def take(self, may_refuse: int | None = None) -> None:
        self.sent_now: list[RoutedCall] = []
        for effect in self.router.take_effects():
            if isinstance(effect, Dispatch):
                self.sent(effect)
            elif isinstance(effect, Fail):
                self.failed(effect, may_refuse)
            elif isinstance(effect, CancelOnWorker):
                self._asked_to_cancel(effect)
            elif isinstance(effect, Kill):
                self._asked_to_kill(effect)
            else:
                self._asked_to_wake(effect)
        for api in range(NUM_APIS):
            # One turn sends the first that wait, whichever worker each of them goes to.
            ids = sorted(call.id for call in self.sent_now if call.api == api and not call.is_retry)
            assert not ids or ids[0] > self.last_sent[api], "first come, first served"
            self.last_sent[api] = max([self.last_sent[api], *ids])

    def sent(self, effect: Dispatch[RoutedCall]) -> None:
        shape = self.shapes[effect.worker]
        assert shape.takes_work
        assert effect.calls
        assert effect.closes_batch == (shape.max_batch_size > 1)
        assert shape.max_batch_size == 1 or len(effect.calls) <= shape.max_batch_size
        for call in effect.calls:
            assert call.is_open, "nothing that ended is sent"
            assert self.now < min(call.deadline, call.arrival + self.deadline), "nothing expired is sent"
            self.num_sent[call.id] = self.num_sent.get(call.id, 0) + 1
            assert self.num_sent[call.id] <= (2 if call.is_idempotent else 1)
            if not call.is_retry:
                assert self.now < call.arrival + (self.limits[call.api].timeout or math.inf)
            self.held[effect.worker].append(call.id)
        self.sent_now.extend(effect.calls)
        assert [call.id for call in effect.calls] == sorted(call.id for call in effect.calls) or any(call.is_retry for call in effect.calls)

    def failed(self, effect: Fail[RoutedCall], may_refuse: int | None) -> None:
        self.endings[effect.call.id].append(effect.code)
        assert effect.status in (429, 503, 504)
        assert effect.status != 429 or effect.call.id == may_refuse, "an accepted call is never refused later"
        assert effect.retry_after is None or 1 <= effect.retry_after <= 60

    def _asked_to_cancel(self, effect: CancelOnWorker[RoutedCall]) -> None:
        assert effect.call.id in self.held[effect.worker]
        assert not effect.call.is_open
        self.ended_at[effect.call.id] = self.now

    def _asked_to_kill(self, effect: Kill) -> None:
        held = [self.calls[number] for number in self.held[effect.worker] if self.calls[number].state is CallState.RUNNING]
        ignored = [call for call in held if self.now >= self.ended_at.get(call.id, math.inf) + self.kill_after]
        assert ignored, "it goes on with nothing that was given up long ago"
        last = max(call.since for call in ignored)
        assert not any(call.is_open and call.since < min(last, *(call.since for call in ignored)) for call in held)

        self.shapes[effect.worker] = self.shapes[effect.worker]._replace(takes_work=False)

    def _asked_to_wake(self, effect: Wake) -> None:
        assert not any(worker.api == effect.api for worker in self.shapes)
        assert any(call.api == effect.api and call.is_open for call in self.calls.values())

    @invariant()
    def each_call_ends_once(self) -> None:
        for number, call in self.calls.items():
            assert len(self.endings[number]) == (not call.is_open)

    @invariant()
    def windows_and_bounds_hold(self) -> None:
        for worker, held in self.held.items():
            shape = self.shapes[worker]
            assert len(held) <= shape.width + (MAX_STAGED if shape.concurrency == 1 else 0)
            assert len(self.router.lanes[worker.api].workers[worker].slots) == len(held)
        opened = [call for call in self.calls.values() if call.is_open]
        assert self.router.inflight_bytes == sum(call.num_bytes for call in opened) <= MAX_BYTES
        assert list(self.router.open_calls) == [call.id for call in opened]
        for api, lane in enumerate(self.router.lanes):
            waiting = [call for call in opened if call.api == api and call.state is CallState.QUEUED]
            assert lane.num_waiting == len(waiting)
            fresh = [call.id for call in waiting if not call.is_retry]
            assert len(fresh) <= lane.cap
            assert not fresh or fresh[0] > self.last_sent[api], "nobody is overtaken"

    @invariant()
    def no_call_waits_in_vain(self) -> None:
        if not hasattr(self, "router"):
            return
        wake = self.router.next_wakeup()
        for call in self.calls.values():
            if call.is_open and (when := self.must_act_at(call)) < math.inf:
                assert wake is not None
                assert wake <= max(when, self.now), "a wake-up was lost"
                assert not self.has_ticked or when > self.now, "nobody may wait past this"

    @invariant()
    def who_waits_for_a_worker_has_called_for_one(self) -> None:
        if self.has_ticked and hasattr(self, "router"):
            for api, lane in enumerate(self.router.lanes):
                assert lane.has_called or not lane.num_waiting or any(worker.api == api for worker in self.shapes)

    def must_act_at(self, call: RoutedCall) -> float:
        """When at the latest something must happen to an open call."""
        limits = self.limits[call.api]
        when = min(call.deadline, call.arrival + self.deadline)
        if call.state in (CallState.QUEUED, CallState.STAGED):
            when = min(when, call.since + (limits.timeout or math.inf))
        is_free = any(worker.api == call.api and shape.takes_work and not self.held[worker] for worker, shape in self.shapes.items())
        if call.state is CallState.QUEUED and is_free:
            when = min(when, call.arrival + limits.batch_timeout)
        return when

    def teardown(self) -> None:
        if not hasattr(self, "router"):
            return
        for worker in sorted(self.held):
            while self.held[worker]:
                self.end_first(worker, None)
        self.tick()
        for worker in sorted(self.shapes):
            self.router.worker_gone(worker, "gone", self.now)
            self.take()
        for number in list(self.router.open_calls):
            self.router.cancel(number, "shutdown", self.now)
        self.take()
        self.each_call_ends_once()
        if self.kill_after < math.inf:
            self.now += self.kill_after
            self.tick()
        assert self.router.next_wakeup() is None
        assert (self.router.inflight_bytes, self.router._calls, self.router._deadlines, self.router._outgoing) == (0, {}, [], {})
        for lane in self.router.lanes:
            assert (lane.num_waiting, lane.width, lane.workers, lane.idle) == (0, 0, {}, {})
            assert not lane._fresh
            assert not lane._lost


RouterLaws.TestCase.settings = settings(max_examples=120, stateful_step_count=30, report_multiple_bugs=False)
TestRouterLaws = RouterLaws.TestCase
