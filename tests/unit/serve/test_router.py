"""Each rule of the router by a plain example, on a fake clock."""

import subprocess
import sys

from leyden.serve.effects import CallState, Timing, WorkerId, WorkerShape
from leyden.serve.limits import Limits
from tests.support.routed_calls import Driver, RoutedCall, answers


class TestBatches:
    def test_an_idle_worker_starts_at_once(self) -> None:
        driver = Driver()
        driver.ready(max_batch_size=4)
        driver.submit()
        assert driver.sent == [(0, [1])]

    def test_calls_of_one_turn_leave_in_one_batch(self) -> None:
        driver = Driver()
        driver.ready(max_batch_size=4)
        driver.submit(3)
        assert driver.sent == [(0, [1, 2, 3])]
        assert driver.closings == [True]

    def test_a_batch_is_never_larger_than_the_worker_takes(self) -> None:
        driver = Driver()
        driver.ready(max_batch_size=4)
        driver.submit(6)
        assert driver.sent == [(0, [1, 2, 3, 4])]
        driver.end(1, 2, 3)
        assert len(driver.sent) == 1
        driver.end(4)
        assert driver.sent[1:] == [(0, [5, 6])]

    def test_a_full_batch_does_not_wait(self) -> None:
        driver = Driver(Limits(batch_timeout=0.5))
        driver.ready(max_batch_size=4)
        driver.submit(4)
        assert driver.sent == [(0, [1, 2, 3, 4])]

    def test_the_window_starts_with_the_first_request(self) -> None:
        driver = Driver(Limits(batch_timeout=0.5))
        driver.ready(max_batch_size=4)
        driver.submit()
        driver.at(0.25)
        driver.submit()
        assert driver.sent == []
        assert driver.router.next_wakeup() == 0.5
        driver.at(0.5)
        assert driver.sent == [(0, [1, 2])]

    def test_a_window_that_passed_while_no_worker_was_free_is_over(self) -> None:
        driver = Driver(Limits(batch_timeout=0.5))
        driver.submit()
        driver.at(0.5)
        assert driver.router.next_wakeup() == 30.0  # no worker is free: only expiry is left
        driver.now = 1.0
        driver.ready(max_batch_size=4)
        assert driver.sent == [(0, [1])]

    def test_the_window_follows_the_first_call_that_still_waits(self) -> None:
        driver = Driver(Limits(batch_timeout=0.5))
        driver.ready(max_batch_size=4)
        driver.submit()
        driver.now = 0.25
        driver.submit()
        driver.cancel(1)
        driver.at(0.5)
        assert driver.sent == []
        assert driver.router.next_wakeup() == 0.75

    def test_a_queue_too_short_for_a_full_batch_does_not_wait_for_one(self) -> None:
        driver = Driver(Limits(batch_timeout=0.5, max_queue_size=2))
        driver.ready(max_batch_size=4)
        driver.submit(2)
        assert driver.sent == [(0, [1, 2])]

    def test_apis_do_not_share_queues_or_workers(self) -> None:
        driver = Driver([Limits(), Limits(batch_timeout=1.0)])
        driver.ready(0, api=0)
        driver.ready(0, api=1, max_batch_size=2)
        driver.submit(api=1)
        assert driver.sent == []
        driver.submit(api=0)
        assert driver.sent == [(0, [2])]
        driver.submit(api=1)
        assert driver.sent == [(0, [2]), (0, [1, 3])]


class TestWorkers:
    def test_the_longest_idle_worker_comes_first(self) -> None:
        driver = Driver()
        driver.ready(0)
        driver.ready(1)
        driver.submit()
        driver.submit()
        driver.end(2, index=1)
        driver.end(1, index=0)
        driver.submit()
        assert driver.sent == [(0, [1]), (1, [2]), (1, [3])]

    def test_a_busy_worker_of_unknown_speed_gets_nothing(self) -> None:
        driver = Driver()
        driver.ready()
        driver.submit(2)
        assert driver.sent == [(0, [1])]

    def test_concurrent_workers_share_by_fewest_items(self) -> None:
        driver = Driver()
        driver.ready(0, concurrency=2)
        driver.ready(1, concurrency=2)
        driver.submit(5)
        assert driver.sent == [(0, [1, 3]), (1, [2, 4])]
        assert driver.closings == [False, False]
        driver.end(2, index=1)
        assert driver.sent[2:] == [(1, [5])]

    def test_a_draining_worker_finishes_and_gets_nothing_new(self) -> None:
        driver = Driver()
        driver.ready()
        (running,) = driver.submit()
        driver.ready(takes_work=False)
        driver.submit()
        driver.end(1)
        assert not running.is_open
        assert driver.sent == [(0, [1])]
        driver.ready(1)
        assert driver.sent[1:] == [(1, [2])]

    def test_what_a_worker_does_not_have_is_ignored(self) -> None:
        driver = Driver()
        driver.end(1)
        driver.gone()
        driver.cancel(1)
        driver.ready()
        driver.submit()
        driver.end(7)
        assert driver.failed == {}
        assert driver.cancelled == []


class TestStaging:
    def test_fast_calls_are_sent_ahead_in_one_dispatch(self) -> None:
        driver = Driver()
        driver.ready()
        driver.learn(0.0005)
        calls = driver.submit(10)
        assert [len(ids) for _, ids in driver.sent] == [1 + 4]
        assert [call.state for call in calls[:6]] == [CallState.RUNNING, *[CallState.STAGED] * 4, CallState.QUEUED]

    def test_a_staged_call_begins_when_the_one_before_it_ended(self) -> None:
        driver = Driver()
        driver.ready()
        driver.learn(0.0005)
        first, second, third = driver.submit(3)
        driver.end(first.id)
        assert (first.state, second.state, third.state) == (CallState.ENDED, CallState.RUNNING, CallState.STAGED)

    def test_nothing_is_sent_ahead_before_ten_results(self) -> None:
        driver = Driver()
        driver.ready()
        driver.learn(0.0005, count=9)
        driver.submit(3)
        assert [len(ids) for _, ids in driver.sent] == [1]

    def test_nothing_is_sent_ahead_of_slow_calls(self) -> None:
        driver = Driver()
        driver.ready()
        driver.learn(0.0051)
        driver.submit(3)
        assert [len(ids) for _, ids in driver.sent] == [1]

    def test_only_full_batches_are_sent_ahead(self) -> None:
        driver = Driver()
        driver.ready(max_batch_size=4)
        driver.learn(0.0005)  # a batch of four takes 2 ms: one is sent ahead
        start = driver.num_calls
        driver.submit(4)
        driver.submit(3)
        assert len(driver.sent) == 1
        driver.submit(6)
        assert driver.sent == [(0, [start + 1, start + 2, start + 3, start + 4]), (0, [start + 5, start + 6, start + 7, start + 8])]

    def test_a_staged_call_that_is_cancelled_early_does_not_shift_the_batches(self) -> None:
        driver = Driver()
        driver.ready(max_batch_size=2)
        driver.learn(0.0002)  # 5 batches
        calls = driver.submit(6)
        driver.cancel(calls[2].id)
        driver.end(calls[2].id)  # the worker skipped it at once
        driver.end(calls[0].id, calls[1].id)
        assert [call.state for call in calls[3:]] == [CallState.RUNNING, CallState.STAGED, CallState.STAGED]


class TestExpiry:
    def test_a_call_expires_in_the_queue_at_that_moment(self) -> None:
        driver = Driver(Limits(timeout=2.0))
        driver.submit()
        assert driver.router.next_wakeup() == 2.0
        driver.at(1.999)
        assert driver.failed == {}
        driver.at(2.0)
        assert answers(driver) == {1: (504, "queue.expired", None)}
        assert driver.failed[1].message == "Request timed out"
        assert driver.router.next_wakeup() is None

    def test_expiry_comes_before_sending(self) -> None:
        driver = Driver(Limits(timeout=2.0))
        driver.submit()
        driver.now = 2.0
        driver.ready()
        assert driver.sent == []
        assert 1 in driver.failed

    def test_a_running_call_is_not_bound_by_the_queue_timeout(self) -> None:
        driver = Driver(Limits(timeout=2.0))
        driver.ready()
        driver.submit()
        driver.at(60.0)
        assert driver.failed == {}

    def test_a_staged_call_expires_too(self) -> None:
        driver = Driver(Limits(timeout=2.0))
        driver.ready()
        driver.learn(0.0005)
        first, second = driver.submit(2)
        driver.at(driver.now + 2.0)
        assert list(driver.failed) == [second.id]
        assert driver.cancelled == [(0, second.id, "deadline")]
        assert first.is_open

    def test_no_timeout_waits_for_ever(self) -> None:
        driver = Driver(Limits(timeout=None))
        driver.submit()
        assert driver.router.next_wakeup() is None
        driver.at(1e9)
        assert driver.failed == {}

    def test_the_deadline_answers_while_the_item_keeps_its_slot(self) -> None:
        driver = Driver(deadline=5.0)
        driver.ready()
        driver.submit(2)
        assert driver.router.next_wakeup() == 5.0
        driver.at(5.0)
        assert answers(driver) == {1: (504, "deadline.exceeded", None), 2: (504, "deadline.exceeded", None)}
        assert driver.cancelled == [(0, 1, "deadline")]
        driver.submit()
        assert driver.sent == [(0, [1])]
        driver.end(1)
        assert driver.sent[1:] == [(0, [3])]

    def test_a_client_may_shorten_the_deadline_only(self) -> None:
        driver = Driver(deadline=5.0)
        driver.submit(deadline=100.0)
        driver.submit(deadline=3.0)
        driver.submit(deadline=2.0)
        driver.at(2.0)
        assert driver.router.next_wakeup() == 3.0
        driver.at(3.0)
        assert list(driver.failed) == [3, 2]
        assert driver.router.next_wakeup() == 5.0
        driver.at(5.0)
        assert list(driver.failed) == [3, 2, 1]

    def test_a_deadline_that_passed_on_arrival_is_never_sent(self) -> None:
        driver = Driver()
        driver.ready()
        driver.now = 10.0
        driver.submit(deadline=9.0)
        assert driver.sent == []
        assert answers(driver) == {1: (504, "deadline.exceeded", None)}


class TestCancelling:
    def test_a_queued_call_is_dropped(self) -> None:
        driver = Driver()
        driver.submit(2)
        driver.cancel(1)
        driver.ready()
        assert driver.sent == [(0, [2])]
        assert driver.cancelled == []
        assert driver.failed == {}

    def test_a_running_call_is_cancelled_on_its_worker_and_keeps_its_slot(self) -> None:
        driver = Driver()
        driver.ready()
        driver.submit(2)
        driver.cancel(1)
        assert driver.cancelled == [(0, 1, "disconnect")]
        assert driver.sent == [(0, [1])]
        driver.end(1)
        assert driver.sent[1:] == [(0, [2])]

    def test_shutdown_answers_what_is_left(self) -> None:
        driver = Driver()
        driver.ready()
        driver.submit(2)
        for number in list(driver.router.open_calls):
            driver.cancel(number, "shutdown")
        assert answers(driver) == {1: (503, "server.draining", 1), 2: (503, "server.draining", 1)}
        assert driver.cancelled == [(0, 1, "shutdown")]

    def test_cancelled_calls_do_not_pile_up_behind_one_that_waits(self) -> None:
        driver = Driver(Limits(timeout=None))
        driver.submit()
        for number in range(2, 1002):
            driver.submit(deadline=1e6)
            driver.cancel(number)
        router = driver.router
        assert len(router.lanes[0]._fresh) < 100
        assert len(router._deadlines) < 100
        assert router.lanes[0].num_waiting == 1
        assert router.inflight_bytes == 1


class TestLostWorkers:
    def test_what_it_had_is_answered_and_the_queue_is_not_touched(self) -> None:
        driver = Driver()
        driver.ready()
        driver.submit(2)
        driver.gone()
        assert answers(driver) == {1: (503, "worker.lost", 1)}
        assert "killed by SIGKILL" in driver.failed[1].message
        driver.ready(1)
        assert driver.sent[1:] == [(1, [2])]

    def test_an_idempotent_call_runs_again_once_before_the_others(self) -> None:
        driver = Driver()
        driver.ready()
        driver.submit(is_idempotent=True)
        driver.submit()
        driver.gone()
        assert driver.failed == {}
        driver.ready(1)
        assert driver.sent[1:] == [(1, [1])]
        driver.gone(1)
        assert answers(driver) == {1: (503, "worker.lost", 1)}

    def test_a_call_whose_answer_has_begun_never_runs_again(self) -> None:
        driver = Driver()
        driver.ready()
        (call,) = driver.submit(is_idempotent=True)
        call.is_answering = True
        driver.gone()
        assert answers(driver) == {1: (503, "worker.lost", 1)}

    def test_a_retry_has_a_queue_timeout_of_its_own(self) -> None:
        driver = Driver(Limits(timeout=2.0))
        driver.ready()
        driver.submit(is_idempotent=True)
        driver.now = 10.0
        driver.gone()
        assert driver.failed == {}
        assert driver.router.next_wakeup() == 12.0
        driver.at(12.0)
        assert answers(driver) == {1: (504, "queue.expired", None)}

    def test_a_worker_back_in_the_same_turn_gets_a_new_dispatch(self) -> None:
        driver = Driver()
        worker = WorkerId(0, 0)
        driver.router.worker_ready(worker, WorkerShape(), 0.0)
        driver.router.submit(RoutedCall(1, is_idempotent=True), 0.0)
        driver.router.tick(0.0)
        driver.router.worker_gone(worker, "killed", 0.0)
        driver.router.worker_ready(worker, WorkerShape(), 0.0)
        driver.turn()
        assert driver.sent == [(0, [1]), (0, [1])]

    def test_nobody_is_answered_twice(self) -> None:
        driver = Driver()
        driver.ready()
        driver.submit(is_idempotent=True)
        driver.cancel(1)
        driver.gone()
        driver.ready(1)
        driver.submit()
        driver.cancel(2)
        driver.gone(1)
        assert driver.failed == {}
        assert driver.sent == [(0, [1]), (1, [2])]
        assert driver.router.lanes[0].num_waiting == 0
        assert driver.router.next_wakeup() is None

    def test_calls_wait_for_the_first_worker(self) -> None:
        driver = Driver()
        driver.submit(3)
        assert driver.failed == {}
        driver.ready(max_batch_size=8)
        assert driver.sent == [(0, [1, 2, 3])]


class TestWakingUp:
    def test_events_ask_for_a_tick_at_once(self) -> None:
        driver = Driver()
        driver.ready()
        (call,) = driver.submit()
        driver.now = 1.0
        driver.router.submit(type(call)(id=2), driver.now)
        assert driver.router.next_wakeup() == 1.0

    def test_a_queue_without_a_free_worker_does_not_spin(self) -> None:
        driver = Driver(Limits(timeout=None, batch_timeout=0.1))
        driver.ready(max_batch_size=2)
        driver.submit(2)
        driver.submit(5)
        driver.at(50.0)
        assert driver.router.next_wakeup() is None

    def test_no_open_call_needs_no_wakeup(self) -> None:
        driver = Driver(deadline=5.0)
        driver.ready()
        driver.submit()
        driver.end(1)
        assert driver.router.next_wakeup() is None


def test_same_events_same_effects() -> None:
    def play() -> list[tuple[int, list[int]]]:
        driver = Driver(Limits(batch_timeout=0.1))
        driver.ready(0, max_batch_size=2)
        driver.ready(1, max_batch_size=2)
        driver.submit(7)
        driver.end(1, 2, timing=Timing(2, 0.01))
        driver.at(0.2)
        return driver.sent

    assert play() == play()


def test_the_router_needs_the_standard_library_only() -> None:
    code = "import sys, leyden.serve.router; print({m.partition('.')[0] for m in sys.modules if m[0] != '_'} - {*sys.stdlib_module_names})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "{'leyden'}"
