"""The clock of this computer and its fake speak the same protocol."""

import pytest

from leyden.core.clock import Clock, SystemClock
from tests.support.fake_clock import FakeClock


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()])
def test_sleeping_lets_time_pass(clock: Clock) -> None:
    before = clock.monotonic(), clock.time()
    clock.sleep(0.001)
    assert clock.monotonic() - before[0] >= 0.001
    assert clock.time() > before[1]


def test_the_fake_moves_only_when_told() -> None:
    clock = FakeClock(start=10.0)
    assert (clock.time(), clock.monotonic()) == (10.0, 10.0)
    clock.advance(5.0)
    clock.sleep(3600.0)
    assert clock.time() == 3615.0
    assert clock.slept == [3600.0]


def test_the_fake_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-1.0)
