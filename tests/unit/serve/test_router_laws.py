"""The router under anything that can happen in any order, on a clock of the test."""

import math
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from leyden.serve.batching import MOST_STAGED, BatchRule
from leyden.serve.limits import Limits
from leyden.serve.router import Call, CancelOnWorker, Dispatch, Fail, Router, WorkerId

TIMES = st.sampled_from([0.0, 0.0001, 0.001, 0.01, 0.1, 0.7, 2.0])


class Routing(RuleBasedStateMachine):
    """Two APIs, up to three workers each; `running` is what each worker was sent and has not ended."""

    @initialize(
        sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        waits=st.tuples(st.sampled_from([0.0, 0.05, 0.5]), st.sampled_from([0.0, 0.05, 0.5])),
        timeouts=st.tuples(st.sampled_from([0.3, 2.0, math.inf]), st.sampled_from([0.3, 2.0, math.inf])),
        queue=st.sampled_from([None, 0, 1, 5]),
        held_bytes=st.sampled_from([50, 10**6]),
    )
    def begin(self, sizes: Any, waits: Any, timeouts: Any, queue: Any, held_bytes: int) -> None:
        self.rules = [BatchRule(max_batch_size=size, batch_timeout=wait) for size, wait in zip(sizes, waits, strict=True)]
        self.timeouts = timeouts
        self.limits = Limits(max_queue_size=queue, max_inflight_bytes=held_bytes)
        self.router = Router(self.rules, timeouts, self.limits)
        self.now, self.number = 0.0, 0
        self.open: dict[int, Call] = {}
        self.ended: dict[int, str] = {}
        self.running: dict[WorkerId, list[int]] = {}
        self.last_sent = [-1, -1]
        self.again: set[int] = set()

    # -- what happens ----------------------------------------------------------------------------------------------

    @rule(api=st.integers(0, 1), size=st.integers(0, 30), left=st.none() | st.sampled_from([0.05, 1.0]), idempotent=st.booleans())
    def submit(self, api: int, size: int, left: float | None, idempotent: bool) -> None:
        self.number += 1
        call = Call(self.number, api, size, deadline=math.inf if left is None else self.now + left, idempotent=idempotent)
        self.open[call.id] = call
        self.router.submit(call, self.now)
        self.act()

    @rule(api=st.integers(0, 1), index=st.integers(0, 2))
    def worker_ready(self, api: int, index: int) -> None:
        worker = WorkerId(api, index)
        if worker not in self.running:
            self.running[worker] = []
            self.router.worker_ready(worker, self.now)
            self.act()

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data())
    def item_ended(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([worker for worker, items in self.running.items() if items]))
        number = self.running[worker].pop(0)
        if number in self.open:
            self.end(number, "done")
        self.router.item_ended(worker, number, self.now)
        self.act()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def worker_gone(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.running)))
        self.again |= {number for number in self.running.pop(worker) if number in self.open}
        self.last_sent = [-1, -1]  # what runs again is older than what was sent since
        self.router.worker_gone(worker, "killed", self.now)
        self.act()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        self.router.cancel(number, "disconnect", self.now)
        self.end(number, "cancelled")
        self.act()

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (wakeup := self.router.next_wakeup()) is not None and wakeup <= until:
            self.now = max(self.now, wakeup)
            self.router.tick(self.now)
            self.act()
        self.now = until

    @rule(seconds=TIMES)
    def the_timer_is_late(self, seconds: float) -> None:
        self.now += seconds

    # -- what must be so -------------------------------------------------------------------------------------------

    def act(self) -> None:
        for effect in self.router.take_effects():
            if isinstance(effect, Dispatch):
                self.check_dispatch(effect)
                self.running[effect.worker] += [call.id for call in effect.calls]
            elif isinstance(effect, Fail):
                self.end(effect.call.id, effect.code)
            else:
                assert isinstance(effect, CancelOnWorker)
                assert effect.call.id in self.running[effect.worker]
                assert effect.call.id not in self.open or effect.why == "disconnect"

    def check_dispatch(self, effect: Dispatch) -> None:
        batching = self.rules[effect.worker.api]
        assert 1 <= len(effect.calls) <= batching.max_batch_size
        assert len(self.running[effect.worker]) + len(effect.calls) <= batching.max_batch_size + MOST_STAGED
        for call in effect.calls:
            assert call.id in self.open
            assert call.api == effect.worker.api
            assert call.deadline > self.now
            assert call.arrived + self.timeouts[call.api] > self.now
            assert call.id > self.last_sent[call.api] or call.id in self.again
            if call.id not in self.again:
                self.last_sent[call.api] = call.id

    def end(self, number: int, how: str) -> None:
        assert number not in self.ended
        self.ended[number] = how
        del self.open[number]

    @invariant()
    def counts_agree(self) -> None:
        router = self.router
        assert router.open_calls == len(self.open)
        assert router.held_bytes == sum(call.size for call in self.open.values())
        for api in (0, 1):
            assert router.held(api) == sum(len(items) for worker, items in self.running.items() if worker.api == api)
            held = {number for items in self.running.values() for number in items}
            assert router.waiting(api) == sum(call.api == api and number not in held for number, call in self.open.items())
            assert router.waiting(api) <= self.limits.queue_size + len(self.again)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """A free worker and a call that may run: it was sent, or there is a moment at which it will be."""
        for api in (0, 1):
            if self.router.waiting(api) and any(worker.api == api and not items for worker, items in self.running.items()):
                wakeup = self.router.next_wakeup()
                assert wakeup is not None
                assert wakeup <= self.now + self.rules[api].batch_timeout

    def teardown(self) -> None:
        if not hasattr(self, "router"):
            return
        self.router.stop()
        self.act()
        for worker, items in self.running.items():
            for number in items:
                self.router.item_ended(worker, number, self.now)
        assert self.router.take_effects() == []
        assert not self.open
        assert self.router.open_calls == self.router.held_bytes == self.router.held(0) == self.router.held(1) == 0
        assert self.router.next_wakeup() is None


TestRouting = Routing.TestCase
TestRouting.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
