"""Which calls are refused, with what answer, and which are not."""

import pytest

from leyden.serve.limits import Limits, share
from tests.support.routed_calls import Driver, answers


def test_a_full_queue_refuses() -> None:
    driver = Driver(Limits(max_queue_size=2))
    driver.submit(3)
    assert answers(driver) == {3: (429, "queue.full", 1)}
    assert "max_queue_size=2" in driver.failed[3].message


def test_calls_that_a_worker_takes_at_once_do_not_fill_the_queue() -> None:
    driver = Driver(Limits(max_queue_size=1))
    driver.ready(0, max_batch_size=4)
    driver.ready(1, max_batch_size=4)
    driver.submit(4)
    assert sum(len(ids) for _, ids in driver.sent) + driver.router.lanes[0].num_waiting == 3
    assert list(driver.failed) == [4]


def test_expired_calls_do_not_fill_the_queue() -> None:
    driver = Driver(Limits(max_queue_size=2, timeout=1.0))
    driver.submit(2)
    driver.now = 1.0
    driver.submit()
    assert {fail.code for fail in driver.failed.values()} == {"queue.expired"}


def test_bodies_beyond_the_bound_are_refused_until_others_end() -> None:
    driver = Driver(max_bytes=100)
    driver.ready()
    driver.submit(num_bytes=60)
    driver.submit(num_bytes=41)
    assert answers(driver) == {2: (429, "queue.full", 1)}
    driver.end(1)
    driver.submit(num_bytes=100)
    assert 3 not in driver.failed


def test_auto_refuses_what_would_wait_longer_than_timeout() -> None:
    driver = Driver(Limits(timeout=10.0))
    driver.ready()
    driver.learn(1.0)
    driver.submit(13)  # one runs; ten wait for at most 10 s; two are too many
    start = driver.num_calls - 13
    assert list(driver.failed) == [start + 13]
    assert driver.failed[start + 13].retry_after == 11
    assert "timeout of 10 s" in driver.failed[start + 13].message


def test_auto_refuses_nothing_before_ten_results() -> None:
    driver = Driver(Limits(timeout=10.0))
    driver.ready()
    driver.learn(1.0, count=9)
    driver.submit(200)
    assert driver.failed == {}


def test_auto_counts_on_full_batches() -> None:
    driver = Driver(Limits(timeout=10.0))
    driver.ready(max_batch_size=8)
    driver.learn(1.0)
    driver.submit(80)
    assert driver.failed == {}


def test_waiting_in_the_queue_does_not_make_a_model_slow() -> None:
    driver = Driver(Limits(timeout=None))
    driver.ready()
    driver.submit(20)
    for number in range(1, 21):
        driver.now += 2.0
        driver.end(number)
    assert driver.router.lanes[0].throughput == 0.5


def test_auto_has_a_hard_cap() -> None:
    driver = Driver(Limits(timeout=None, hard_cap=3))
    driver.submit(4)
    assert list(driver.failed) == [4]


def test_a_number_is_the_only_bound() -> None:
    driver = Driver(Limits(timeout=10.0, max_queue_size=100))
    driver.ready()
    driver.learn(1.0)
    driver.submit(50)
    assert driver.failed == {}


@pytest.mark.parametrize(("seconds", "expected"), [(0.01, 1), (3.0, 30), (100.0, 60)])
def test_retry_after_is_the_time_the_queue_takes(seconds: float, expected: int) -> None:
    driver = Driver(Limits(max_queue_size=10, timeout=None))
    driver.ready()
    driver.learn(seconds)
    driver.submit(200)
    assert {fail.retry_after for fail in driver.failed.values()} == {expected}


def test_draining_refuses_and_finishes() -> None:
    driver = Driver()
    driver.ready()
    driver.submit(2)
    driver.router.is_draining = True
    driver.submit()
    assert answers(driver) == {3: (503, "server.draining", 1)}
    driver.end(1)
    assert driver.sent == [(0, [1]), (0, [2])]


def test_a_failing_api_refuses_and_answers_what_waits() -> None:
    driver = Driver([Limits(), Limits()])
    driver.submit()
    driver.submit(api=1)
    driver.router.lanes[0].is_failing = True
    driver.turn()
    driver.submit()
    assert answers(driver) == {1: (503, "server.not_ready", 10), 3: (503, "server.not_ready", 10)}


def test_several_front_ends_share_the_bounds() -> None:
    assert Limits(max_queue_size=10).shared_by(4).cap == 3
    assert Limits().shared_by(4).cap == 2_500
    assert share(1, 4) == 1


def test_bodies_on_their_way_count_and_one_that_is_too_large_for_all_is_taken_alone() -> None:
    router = Driver(max_bytes=100).router
    assert router.reserve(500)
    assert not router.reserve(1)
    router.release(500)
    assert router.reserve(60)
    assert router.reserve(40)
    assert not router.reserve(1)
    router.release(100)
    assert router.inflight_bytes == 0
