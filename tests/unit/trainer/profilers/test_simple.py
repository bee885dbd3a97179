"""Durations by action, on a fake clock."""

import pytest

from leyden.core.errors import ConfigError
from leyden.trainer.profilers.simple import SimpleProfiler
from tests.support.fake_clock import FakeClock


def measured(*, extended: bool = True) -> SimpleProfiler:
    clock = FakeClock()
    profiler = SimpleProfiler(extended=extended, clock=clock)
    for seconds in (1.0, 3.0):
        with profiler.profile("outer"):
            clock.advance(seconds)
            with profiler.profile("inner"):
                clock.advance(0.5)
    clock.advance(5.0)
    return profiler


def test_durations_are_kept_for_each_call() -> None:
    assert measured().recorded_durations == {"outer": [1.5, 3.5], "inner": [0.5, 0.5]}


def test_the_report_shows_calls_and_shares_longest_first() -> None:
    assert measured().summary().splitlines()[2:] == [
        "Action | Mean duration (s) | Num calls | Total time (s) | Percentage %",
        "-----------------------------------------------------------------------",
        "Total  | -                 | 4         | 10             | 100",
        "outer  | 2.5               | 2         | 5              | 50",
        "inner  | 0.5               | 2         | 1              | 10",
        "-----------------------------------------------------------------------",
    ]


def test_the_short_report_has_no_shares() -> None:
    assert measured(extended=False).summary().splitlines()[2] == "Action | Mean duration (s) | Total time (s)"


def test_the_report_names_the_entry_point() -> None:
    profiler = measured()
    profiler.setup("validate")
    assert profiler.summary().startswith("VALIDATE Profiler Report")


def test_starting_twice_and_stopping_what_never_began_are_refused() -> None:
    profiler = SimpleProfiler()
    profiler.start("a")
    with pytest.raises(ConfigError, match="Attempted to start a which has already started"):
        profiler.start("a")
    with pytest.raises(ConfigError, match=r"Attempting to stop recording an action \(b\) which was never started"):
        profiler.stop("b")


def test_a_profiler_without_actions_reports() -> None:
    assert "Profiler Report" in SimpleProfiler(clock=FakeClock()).summary()
