"""The fleet: what is started, started again, given up, drained; and that it comes to rest whatever happens."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from leyden.serve.effects import WorkerId
from leyden.serve.fleet import CRASHES, FAILING_SECONDS, Drain, Failing, Fleet, GiveUp, Start

ONE, TWO = WorkerId(0, 0), WorkerId(0, 1)


def start(fleet: Fleet, now: float, *, ready: bool = True) -> list[WorkerId]:
    """Start what is to be started; return it."""
    found = [action.worker for action in fleet.reconcile(now) if isinstance(action, Start)]
    for worker in found:
        fleet.started(worker, now)
        if ready:
            fleet.ready(worker, now)
    return found


def test_what_is_wanted_is_started_once() -> None:
    fleet = Fleet([2, 1])
    assert start(fleet, 0.0, ready=False) == [ONE, TWO, WorkerId(1, 0)]
    assert fleet.reconcile(0.0) == []
    assert not fleet.is_ready()
    fleet.ready(ONE, 1.0)
    fleet.ready(WorkerId(1, 0), 1.0)
    assert fleet.is_ready()
    assert not fleet.is_whole()
    fleet.ready(TWO, 1.5)
    assert fleet.is_whole()


def test_a_dead_worker_is_started_again_after_a_wait_that_doubles() -> None:
    fleet, now = Fleet([2]), 0.0
    start(fleet, now)
    waits = []
    for _ in range(4):
        fleet.request_finished(TWO)
        fleet.gone(ONE, "SIGKILL", now)
        assert fleet.reconcile(now) == []
        wakeup = fleet.next_wakeup()
        assert wakeup is not None
        waits.append(round(wakeup - now, 3))
        now = wakeup
        assert start(fleet, now) == [ONE]
    assert waits == [0.1, 0.2, 0.4, 0.8]
    now += 61.0
    fleet.gone(ONE, "SIGKILL", now)
    assert fleet.next_wakeup() == now + 0.1, "a minute of health"


def test_a_crash_loop_makes_its_api_failing_until_a_start_succeeds() -> None:
    fleet, now = Fleet([1, 1]), 0.0
    start(fleet, now)
    for _ in range(CRASHES - 1):
        fleet.gone(ONE, "SIGSEGV", now)
        now = fleet.next_wakeup() or now
        start(fleet, now, ready=False)
    fleet.gone(ONE, "SIGSEGV", now)
    (failing,) = fleet.reconcile(now)
    assert isinstance(failing, Failing)
    assert failing.api == 0
    assert "SIGSEGV" in failing.message
    assert fleet.reconcile(now) == []
    assert fleet.next_wakeup() == now + FAILING_SECONDS
    assert not fleet.is_ready()
    now += FAILING_SECONDS
    assert start(fleet, now) == [ONE]
    assert fleet.reconcile(now) == [Failing(0, "")]
    assert fleet.is_ready()


def test_deaths_between_requests_that_finish_are_no_crash_loop() -> None:
    fleet, now = Fleet([1]), 0.0
    start(fleet, now)
    for _ in range(3 * CRASHES):
        fleet.request_finished(ONE)
        fleet.gone(ONE, "SIGKILL", now)
        now = fleet.next_wakeup() or now
        start(fleet, now)
    assert fleet.is_ready()


def test_a_server_whose_workers_never_start_gives_up() -> None:
    fleet = Fleet([2])
    start(fleet, 0.0, ready=False)
    fleet.gone(ONE, "ValueError: no weights", 0.1)
    assert fleet.reconcile(0.1) == [], "the other one may be better"
    fleet.gone(TWO, "ValueError: no weights", 0.1)
    assert fleet.reconcile(0.1) == [GiveUp(0, "ValueError: no weights")]
    assert fleet.reconcile(9.0) == []
    assert fleet.next_wakeup() is None
    assert fleet.is_gone()


def test_without_restarts_the_first_death_ends_the_fleet() -> None:
    fleet = Fleet([2], restarts=False)
    start(fleet, 0.0)
    fleet.gone(ONE, "SIGKILL", 1.0)
    assert fleet.is_broken
    assert fleet.reconcile(5.0) == [Drain(TWO)]


def test_scaling_starts_and_drains_and_sleeps() -> None:
    fleet = Fleet([1])
    start(fleet, 0.0)
    fleet.set_desired(0, 3)
    assert start(fleet, 1.0) == [TWO, WorkerId(0, 2)]
    fleet.set_desired(0, 0)
    assert fleet.reconcile(2.0) == [Drain(ONE), Drain(TWO), Drain(WorkerId(0, 2))]
    assert fleet.reconcile(2.0) == []
    for index in range(3):
        fleet.gone(WorkerId(0, index), "drained", 2.5)
    assert fleet.is_gone()
    assert fleet.is_ready(), "asleep is well"
    fleet.set_desired(0, 1)
    assert start(fleet, 3.0) == [ONE]


def test_a_worker_that_is_wanted_again_while_it_drains_comes_back_when_it_is_gone() -> None:
    fleet = Fleet([1])
    start(fleet, 0.0)
    fleet.set_desired(0, 0)
    assert fleet.reconcile(1.0) == [Drain(ONE)]
    fleet.set_desired(0, 1)
    assert fleet.reconcile(1.0) == []
    fleet.gone(ONE, "drained", 2.0)
    assert start(fleet, 2.0) == [ONE]


def test_draining_ends_everything_for_good() -> None:
    fleet = Fleet([2])
    start(fleet, 0.0)
    fleet.drain()
    assert fleet.reconcile(1.0) == [Drain(ONE), Drain(TWO)]
    fleet.gone(ONE, "ended", 1.1)
    fleet.gone(TWO, "SIGKILL", 1.2)
    assert fleet.reconcile(99.0) == []
    assert fleet.is_gone()


class Fleeting(RuleBasedStateMachine):
    """Workers live, die and are scaled in any order; `alive` is what the operating system would say."""

    @initialize(desired=st.integers(0, 3), restarts=st.booleans())
    def begin(self, desired: int, restarts: bool) -> None:
        self.fleet, self.now, self.desired = Fleet([desired], restarts=restarts), 0.0, desired
        self.alive: dict[WorkerId, str] = {}
        self.is_over = False
        self.act()

    def act(self) -> None:
        for action in self.fleet.reconcile(self.now):
            if isinstance(action, Start):
                assert action.worker not in self.alive, "never two of one"
                assert not self.is_over
                self.alive[action.worker] = "starting"
                self.fleet.started(action.worker, self.now)
            elif isinstance(action, Drain):
                assert self.alive[action.worker] != "draining"
                self.alive[action.worker] = "draining"

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_worker_is_ready(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.alive)))
        if self.alive[worker] == "starting":
            self.alive[worker] = "ready"
            self.fleet.ready(worker, self.now)
        self.act()

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_worker_is_gone(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.alive)))
        del self.alive[worker]
        self.fleet.gone(worker, "killed", self.now)
        self.act()

    @rule(count=st.integers(0, 3))
    def it_is_scaled(self, count: int) -> None:
        self.desired = count
        self.fleet.set_desired(0, count)
        self.act()

    @rule()
    def it_is_drained(self) -> None:
        self.is_over = True
        self.fleet.drain()
        self.act()

    @rule(seconds=st.sampled_from([0.05, 0.3, 11.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (wakeup := self.fleet.next_wakeup()) is not None and wakeup <= until:
            self.now = max(self.now, wakeup)
            before = dict(self.alive)
            self.act()
            if before == self.alive:
                raise AssertionError("woken for nothing")
        self.now = until
        self.act()

    @invariant()
    def no_more_than_wanted_are_kept(self) -> None:
        kept = [worker for worker, state in self.alive.items() if state != "draining"]
        assert len(kept) <= self.desired
        assert self.fleet.is_gone() == (not self.alive)
        if self.is_over:
            assert not kept

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        self.it_is_drained()
        for worker in list(self.alive):
            self.fleet.gone(worker, "drained", self.now)
        assert self.fleet.is_gone()
        assert self.fleet.reconcile(self.now + 1000) == []
        assert self.fleet.next_wakeup() is None


TestFleeting: Any = Fleeting.TestCase
TestFleeting.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
