"""Functions by action; actions inside others count for both."""

import pstats
from pathlib import Path

import pytest

from leyden.core.errors import ConfigError
from leyden.trainer.profilers.advanced import AdvancedProfiler


def first() -> None:
    sorted(range(3))


def second() -> None:
    sum(range(3))


def names(stats: pstats.Stats) -> dict[str, int]:
    return {function: calls[1] for (_, _, function), calls in stats.stats.items()}  # type: ignore[attr-defined]


def test_an_inner_action_counts_for_the_outer_one_too() -> None:
    profiler = AdvancedProfiler()
    for _ in range(2):
        with profiler.profile("outer"):
            first()
            with profiler.profile("inner"):
                second()
            first()
    outer, inner = names(profiler.stats("outer")), names(profiler.stats("inner"))
    assert (outer["first"], outer["second"]) == (4, 2)
    assert inner["second"] == 2
    assert "first" not in inner


def test_an_action_inside_two_others_adds_up() -> None:
    profiler = AdvancedProfiler()
    for outer in ("a", "b"):
        with profiler.profile(outer), profiler.profile("shared"):
            first()
    assert names(profiler.stats("shared"))["first"] == 2
    assert names(profiler.stats("a"))["first"] == 1


def test_actions_may_end_in_another_order() -> None:
    profiler = AdvancedProfiler()
    profiler.start("a")
    profiler.start("b")
    profiler.stop("a")
    first()
    profiler.stop("b")
    assert names(profiler.stats("b"))["first"] == 1
    assert "first" not in names(profiler.stats("a"))


def test_stopping_what_never_began_is_refused_and_breaks_nothing() -> None:
    profiler = AdvancedProfiler()
    with profiler.profile("a"):
        with pytest.raises(ConfigError, match=r"Attempting to stop recording an action \(b\) which was never started"):
            profiler.stop("b")
        first()
    assert names(profiler.stats("a"))["first"] == 1


def test_the_report_is_restricted() -> None:
    profiler = AdvancedProfiler(line_count_restriction=1)
    with profiler.profile("a"):
        first()
        second()
    profiler.setup("fit")
    report = profiler.summary()
    assert report.startswith("FIT Profiler Report\n\nProfile stats for: a\n")
    assert "due to restriction <1>" in report


def test_profiles_are_dumped_for_viewers(tmp_path: Path) -> None:
    profiler = AdvancedProfiler(tmp_path, "perf", dump_stats=True)
    profiler.setup("fit")
    with profiler.profile("[Callback]A/b.on_fit_start"):
        first()
    profiler.describe()
    assert {path.name for path in tmp_path.iterdir()} == {"fit-perf.txt", "fit-perf-_Callback_A_b.on_fit_start.prof"}
    assert names(pstats.Stats(str(tmp_path / "fit-perf-_Callback_A_b.on_fit_start.prof")))["first"] == 1


def test_teardown_forgets() -> None:
    profiler = AdvancedProfiler()
    profiler.start("a")
    profiler.teardown("fit")
    assert profiler.summary() == ""
