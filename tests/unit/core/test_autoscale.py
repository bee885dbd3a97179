"""The autoscaling rule: its laws for any policy and load, and the numbers of some days."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.autoscale import AutoscalePolicy, AutoscaleState, LoadSample, desired_replicas
from leyden.core.errors import ConfigError


@st.composite
def policies(draw: st.DrawFn, **fixed: Any) -> AutoscalePolicy:
    least = draw(st.integers(0, 4))
    values = {
        "min_replicas": least,
        "max_replicas": draw(st.integers(max(1, least), 12)),
        "buffer": draw(st.integers(0, 2)),
        "target_ongoing_requests": draw(st.floats(0.1, 10)),
        "look_back_seconds": draw(st.floats(0, 60)),
        "upscale_delay_seconds": draw(st.floats(0, 60)),
        "downscale_delay_seconds": draw(st.floats(0, 600)),
        "downscale_to_zero_delay_seconds": draw(st.none() | st.floats(0, 900)),
        "upscaling_factor": draw(st.floats(0.1, 2)),
        "downscaling_factor": draw(st.floats(0.1, 1)),
    }
    return AutoscalePolicy(**{**values, **fixed})


def run(policy: AutoscalePolicy, loads: list[float], step: float = 5.0, start: int | None = None) -> list[int]:
    """Return what is desired after each of a sequence of loads, a step apart."""
    state, samples, found = AutoscaleState(desired=start), list[LoadSample](), list[int]()
    for number, load in enumerate(loads):
        desired = state.desired if state.desired is not None else policy.first_replicas
        samples.append(LoadSample(number * step, load, 0.0, desired, desired))
        count, state = desired_replicas(policy, samples, state)
        found.append(count)
    return found


@given(policies(), st.lists(st.floats(0, 200), min_size=1, max_size=40))
def test_the_number_is_always_within_its_bounds(policy: AutoscalePolicy, loads: list[float]) -> None:
    assert all(policy.min_replicas <= count <= policy.max_replicas for count in run(policy, loads))


@given(policies(), st.floats(0, 100), st.floats(0, 100), st.integers(1, 12))
def test_more_load_never_wants_fewer(policy: AutoscalePolicy, one: float, other: float, start: int) -> None:
    at_once = {"upscale_delay_seconds": 0.0, "downscale_delay_seconds": 0.0, "downscale_to_zero_delay_seconds": None}
    eager = AutoscalePolicy(**{name: at_once.get(name, getattr(policy, name)) for name in policy.__slots__})
    low, high = sorted([one, other])
    assert run(eager, [low], start=start) <= run(eager, [high], start=start)


@given(policies(upscaling_factor=1.0, downscaling_factor=1.0), st.floats(0, 100))
def test_a_constant_load_comes_to_rest(policy: AutoscalePolicy, load: float) -> None:
    found = run(policy, [load] * 600)
    assert len(set(found[-100:])) == 1


@given(policies(), st.lists(st.floats(0, 100), min_size=2, max_size=60), st.integers(1, 12))
def test_fewer_come_only_after_fewer_were_wanted_for_the_delay(policy: AutoscalePolicy, loads: list[float], start: int) -> None:
    found = [min(max(start, policy.min_replicas), policy.max_replicas), *run(policy, loads, start=start)]
    last_rise = 0
    delays = [policy.downscale_delay_seconds, policy.downscale_to_zero_delay_seconds or policy.downscale_delay_seconds]
    for place in range(1, len(found)):
        if found[place] > found[place - 1]:
            last_rise = place
        elif found[place] < found[place - 1]:
            assert 5.0 * (place - max(1, last_rise)) >= min(delays) - 5.0


def test_a_service_goes_to_sleep_and_one_request_wakes_it() -> None:
    policy = AutoscalePolicy(
        min_replicas=0, max_replicas=4, initial_replicas=2, downscale_delay_seconds=20, downscale_to_zero_delay_seconds=60
    )
    found = run(policy, [1.0] + [0.0] * 40 + [1.0])
    assert found[0] == 2
    assert found[12 + 7] in {0, 1}  # after the look-back of 30 s, 20 s more leave one
    assert found[-2] == 0
    assert found[-1] == 2
    assert found.index(1) < found.index(0)


def test_upscaling_waits_and_takes_what_is_wanted_then() -> None:
    policy = AutoscalePolicy(max_replicas=10, target_ongoing_requests=1, look_back_seconds=0, upscale_delay_seconds=10)
    assert run(policy, [4, 6, 8, 8], start=1) == [1, 1, 8, 8]
    assert run(policy, [4, 1, 8, 8], start=1) == [1, 1, 1, 1], "a break begins the wait anew"


def test_downscaling_takes_the_most_that_was_wanted_meanwhile() -> None:
    policy = AutoscalePolicy(max_replicas=10, target_ongoing_requests=1, look_back_seconds=0, downscale_delay_seconds=10)
    assert run(policy, [2, 5, 3, 3], start=8) == [8, 8, 5, 5]


def test_factors_slow_the_way_and_the_buffer_is_there_under_load_only() -> None:
    quick = {"max_replicas": 20, "target_ongoing_requests": 1.0, "look_back_seconds": 0.0, "upscale_delay_seconds": 0.0}
    assert run(AutoscalePolicy(**quick, upscaling_factor=0.5), [9], start=1) == [5]
    assert run(AutoscalePolicy(**quick, buffer=2), [3], start=1) == [5]
    idle = AutoscalePolicy(**quick, min_replicas=0, buffer=2, downscale_delay_seconds=0, downscale_to_zero_delay_seconds=0)
    assert run(idle, [0], start=3) == [0]


def test_without_samples_nothing_changes() -> None:
    assert desired_replicas(AutoscalePolicy(max_replicas=4), [], AutoscaleState(desired=3)) == (3, AutoscaleState(desired=3))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"min_replicas": -1}, "min_replicas=-1"),
        ({"max_replicas": 0}, "max_replicas=0"),
        ({"min_replicas": 3, "max_replicas": 2}, "≥ 1 and min_replicas"),
        ({"initial_replicas": 5}, "more than max_replicas=1"),
        ({"target_ongoing_requests": 0}, "a number > 0"),
        ({"upscaling_factor": float("nan")}, "upscaling_factor=nan"),
        ({"downscale_delay_seconds": float("inf")}, "downscale_delay_seconds=inf"),
    ],
)
def test_numbers_out_of_range_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        AutoscalePolicy(**values)
