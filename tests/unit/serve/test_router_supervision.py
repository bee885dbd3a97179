"""What the router asks of whoever starts workers: to end those that go on with what was given up, and to wake APIs that sleep."""

from leyden.serve.effects import CallState
from leyden.serve.limits import Limits
from tests.support.routed_calls import Driver, answers


class TestWorkersThatGoOn:
    """With `kill_after`, a worker that does not let go of what was given up is ended."""

    def test_one_that_goes_on_after_the_deadline_is_ended(self) -> None:
        driver = Driver(deadline=2.0, kill_after=1.0)
        driver.ready()
        driver.submit()
        driver.at(2.0)
        assert answers(driver) == {1: (504, "deadline.exceeded", None)}
        assert driver.router.next_wakeup() == 3.0
        driver.at(2.9)
        assert driver.killed == []
        driver.at(3.0)
        assert driver.killed == [0]
        driver.submit()
        assert driver.sent == [(0, [1])], "it gets nothing more"
        driver.gone()
        driver.cancel(2)
        assert driver.router.next_wakeup() is None

    def test_one_that_lets_go_in_time_is_not(self) -> None:
        driver = Driver(kill_after=1.0)
        driver.ready()
        driver.submit()
        driver.cancel(1)
        driver.end(1)
        driver.submit()
        driver.at(1.0)
        assert driver.killed == []
        assert driver.router.next_wakeup() is None

    def test_not_while_somebody_waits_for_what_began_before(self) -> None:
        driver = Driver(kill_after=1.0)
        driver.ready(max_batch_size=2)
        driver.submit(2)
        driver.cancel(1)
        driver.at(1.0)
        assert driver.killed == [], "one client that leaves does not end the batch of the others"
        driver.cancel(2)
        driver.at(2.0)
        assert driver.killed == [0]

    def test_what_began_later_is_lost_with_it(self) -> None:
        driver = Driver(kill_after=1.0)
        driver.ready(concurrency=4)
        driver.submit()
        driver.at(0.1)
        driver.submit()
        driver.cancel(1)
        driver.at(1.1)
        assert driver.killed == [0]
        driver.gone()
        assert answers(driver) == {2: (503, "worker.lost", 1)}

    def test_what_is_staged_is_not_held_against_it(self) -> None:
        driver = Driver(kill_after=1.0)
        driver.ready()
        driver.learn(0.0001)
        first, staged = driver.submit(2)
        assert [first.state, staged.state] == [CallState.RUNNING, CallState.STAGED]
        driver.cancel(staged.id)
        driver.at(driver.now + 1.0)
        assert driver.killed == []

    def test_by_default_it_is_waited_for(self) -> None:
        driver = Driver()
        driver.ready()
        driver.submit()
        driver.cancel(1)
        assert driver.router.next_wakeup() is None


class TestWake:
    """Who starts workers is told that one is waited for."""

    def test_once_until_one_comes(self) -> None:
        driver = Driver([Limits(), Limits()])
        driver.submit(2, api=1)
        driver.submit(api=1)
        assert driver.woken == [1]
        driver.ready(api=1)
        driver.gone(api=1)
        driver.submit(api=1)
        assert driver.woken == [1, 1]

    def test_again_when_those_that_waited_are_gone(self) -> None:
        driver = Driver(Limits(timeout=1.0))
        driver.submit()
        driver.at(1.0)
        driver.submit()
        assert driver.woken == [0, 0]

    def test_not_for_a_worker_that_is_there_and_busy(self) -> None:
        driver = Driver()
        driver.ready()
        driver.submit(3)
        assert driver.woken == []
