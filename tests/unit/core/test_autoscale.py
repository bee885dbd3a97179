"""The rule of autoscaling: bounds, laws of how it moves, and what each setting does."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.autoscale import AutoscalePolicy, AutoscaleState, LoadSample, desired_replicas
from leyden.core.errors import ConfigError, ConfigTypeError

STEP = 5.0  # seconds between two looks


@st.composite
def policies(draw: st.DrawFn, **fixed: Any) -> AutoscalePolicy:
    least = draw(st.integers(0, 4))
    most = draw(st.integers(max(1, least), 20))
    values: dict[str, Any] = {
        "min_replicas": least,
        "max_replicas": most,
        "initial_replicas": draw(st.none() | st.integers(least, most)),
        "buffer": draw(st.integers(0, 3)),
        "target_ongoing_requests": draw(st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.3])),
        "look_back_seconds": draw(st.sampled_from([0, 5, 30])),
        "upscale_delay_seconds": draw(st.sampled_from([0, 12, 30])),
        "downscale_delay_seconds": draw(st.sampled_from([0, 12, 60])),
        "downscale_to_zero_delay_seconds": None if least else draw(st.sampled_from([None, 0, 20, 90])),
        "upscaling_factor": draw(st.sampled_from([0.1, 0.5, 1.0, 1.5, 3.0])),
        "downscaling_factor": draw(st.sampled_from([0.05, 0.3, 1.0])),
    }
    return AutoscalePolicy(**values | fixed)


loads = st.lists(st.integers(0, 60), min_size=1, max_size=60)


def follow(policy: AutoscalePolicy, load: list[int], state: AutoscaleState | None = None, start: float = 0.0) -> list[int]:
    """Return what was desired after each look, by a scaler that does what it is told."""
    return [desired for desired, _ in followed(policy, load, state or AutoscaleState(), start)]


def followed(policy: AutoscalePolicy, load: list[int], state: AutoscaleState, start: float = 0.0) -> list[tuple[int, AutoscaleState]]:
    desired, state = desired_replicas(policy, [], state)
    answers = []
    for turn, waiting in enumerate(load):
        sample = LoadSample(now=start + turn * STEP, ongoing=0, queued=waiting, ready=desired, desired=desired)
        desired, state = desired_replicas(policy, [sample], state)
        answers.append((desired, state))
    return answers


def seconds(count: float) -> int:
    """Return how many looks happen in so many seconds, the first of them at zero."""
    return math.ceil(count / STEP)


def hasty(**settings: Any) -> AutoscalePolicy:
    """Return a policy that acts at once, one request per replica."""
    quick = {"look_back_seconds": 0, "upscale_delay_seconds": 0, "downscale_delay_seconds": 0, "target_ongoing_requests": 1.0}
    return AutoscalePolicy(**quick | settings)  # pyrefly: ignore - any setting


# ---- laws


@given(policies(), loads)
def test_the_answer_is_within_the_bounds(policy: AutoscalePolicy, load: list[int]) -> None:
    assert all(policy.min_replicas <= desired <= policy.max_replicas for desired in follow(policy, load))


@given(policies(), loads, st.integers(0, 60), st.integers(0, 60), st.integers(0, 25))
def test_more_load_never_gives_fewer(policy: AutoscalePolicy, past: list[int], one: int, other: int, desired: int) -> None:
    _, state = followed(policy, past, AutoscaleState())[-1]
    now = len(past) * STEP
    few, many = (
        desired_replicas(policy, [LoadSample(now=now, ongoing=load, queued=0, ready=1, desired=desired)], state)[0]
        for load in sorted((one, other))
    )
    assert few <= many


@given(policies(), loads, st.integers(0, 60))
def test_a_constant_load_comes_to_rest(policy: AutoscalePolicy, past: list[int], load: int) -> None:
    answers = follow(policy, past + [load] * 1200)  # 20 steps, each as long as the longest delay and look-back
    assert len(set(answers[-200:])) == 1
    need = math.ceil(round(load / policy.target_ongoing_requests, 9)) + policy.buffer if load else 0
    assert answers[-1] >= min(max(need, policy.min_replicas), policy.max_replicas)


@given(policies(buffer=0), loads, st.integers(0, 60))
def test_it_rests_at_the_need_however_damped(policy: AutoscalePolicy, past: list[int], load: int) -> None:
    answers = follow(policy, past + [load] * 1200)
    need = math.ceil(round(load / policy.target_ongoing_requests, 9))
    assert answers[-1] == min(max(need, policy.min_replicas), policy.max_replicas)


@given(policies(), loads)
def test_nothing_is_given_up_early(policy: AutoscalePolicy, load: list[int]) -> None:
    answers = follow(policy, [*load, *[0] * 40])
    before = desired_replicas(policy, [], AutoscaleState())[0]
    raised = 0  # the look at which the number last rose, or was first seen
    for turn, desired in enumerate(answers):
        if desired < before:
            delay = policy.downscale_delay_seconds
            if before == 1 and policy.downscale_to_zero_delay_seconds is not None:
                delay = policy.downscale_to_zero_delay_seconds
            assert (turn - raised) * STEP >= delay
        if desired > before:
            raised = turn
        before = desired


@given(loads, st.sampled_from([0, 12, 60]), st.integers(1, 60))
def test_what_was_wanted_within_the_delay_is_kept(load: list[int], delay: float, most: int) -> None:
    answers = follow(hasty(max_replicas=most, downscale_delay_seconds=delay), load)
    for turn, desired in enumerate(answers):
        recent = load[max(0, turn - seconds(delay)) : turn + 1]
        assert desired == min(max(1, *recent), most)


@given(policies(min_replicas=0), st.integers(1, 60))
def test_from_zero_and_back(policy: AutoscalePolicy, load: int) -> None:
    policy = dataclasses.replace(policy, initial_replicas=None)
    idle = 20 * seconds(100)
    answers = follow(policy, [0] * 3 + [load] + [0] * idle)
    assert answers[:4] == [0, 0, 0, 1], "one look with a request is enough"
    assert answers[-1] == 0


@given(policies(), loads)
def test_old_samples_change_nothing(policy: AutoscalePolicy, load: list[int]) -> None:
    desired, state = desired_replicas(policy, [], AutoscaleState())
    told_again, memory, history = desired, state, []
    for turn, waiting in enumerate(load):
        history.append(LoadSample(now=turn * STEP, ongoing=waiting, queued=0, ready=0, desired=desired))
        desired, state = desired_replicas(policy, history[-1:], state)
        told_again, memory = desired_replicas(policy, history, memory)
        assert (told_again, memory) == (desired, state)


@given(policies(), loads)
def test_memory_stays_small(policy: AutoscalePolicy, load: list[int]) -> None:
    _, state = followed(policy, load * 5, AutoscaleState())[-1]
    assert len(state.window) <= policy.look_back_seconds / STEP + 1
    assert len(state.peaks) <= policy.max_replicas + 1
    assert [wanted for _, wanted in state.peaks] == sorted({wanted for _, wanted in state.peaks}, reverse=True)


# ---- examples


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 1), ({"min_replicas": 2}, 2), ({"min_replicas": 0}, 0), ({"min_replicas": 0, "initial_replicas": 3}, 3)],
)
def test_before_any_sample_it_is_the_initial_number(settings: dict[str, int], expected: int) -> None:
    assert desired_replicas(AutoscalePolicy(max_replicas=5, **settings), [], AutoscaleState())[0] == expected


@pytest.mark.parametrize(("load", "expected"), [(0, 1), (1, 1), (2, 1), (3, 2), (6, 3), (7, 4), (100, 10)])
def test_each_replica_gets_its_target(load: int, expected: int) -> None:
    assert follow(hasty(max_replicas=10, target_ongoing_requests=2.0), [load]) == [expected]


def test_rounding_of_the_machine_starts_no_replica() -> None:
    sample = LoadSample(now=0.0, ongoing=1.1, queued=0.0, ready=1, desired=1)
    assert desired_replicas(hasty(max_replicas=20, target_ongoing_requests=0.1), [sample], AutoscaleState())[0] == 11


def test_the_buffer_is_kept_while_there_is_load() -> None:
    assert follow(hasty(min_replicas=0, initial_replicas=1, max_replicas=10, buffer=2), [3, 3, 0, 0]) == [5, 5, 0, 0]


def test_the_load_is_averaged_over_the_look_back() -> None:
    policy = hasty(max_replicas=20, look_back_seconds=10)
    assert follow(policy, [0, 0, 12, 0, 0, 0]) == [1, 1, 4, 4, 4, 1]


def test_up_waits_until_more_was_wanted_without_a_break() -> None:
    policy = hasty(max_replicas=9, upscale_delay_seconds=10)
    assert follow(policy, [3, 3, 1, 4, 4, 5, 5]) == [1, 1, 1, 1, 1, 5, 5]


def test_down_goes_to_the_most_that_was_wanted_meanwhile() -> None:
    policy = hasty(max_replicas=9, downscale_delay_seconds=15)
    assert follow(policy, [9, 2, 4, 2, 2, 2, 2, 2]) == [9, 9, 9, 9, 4, 4, 2, 2]


def test_an_infinite_delay_never_gives_up_any() -> None:
    assert follow(hasty(max_replicas=9, downscale_delay_seconds=math.inf), [9, *[0] * 200])[-1] == 9


def test_the_last_replica_has_a_delay_of_its_own() -> None:
    policy = hasty(min_replicas=0, max_replicas=4, downscale_to_zero_delay_seconds=20)
    assert follow(policy, [4, 4, 0, 0, 0, 0, 0]) == [1, 4, 1, 1, 1, 1, 0]
    policy = hasty(min_replicas=0, max_replicas=4, downscale_delay_seconds=15, downscale_to_zero_delay_seconds=0)
    assert follow(policy, [4, 4, 4, 0, 0, 0, 0]) == [1, 4, 4, 4, 4, 4, 0]


def test_from_zero_it_comes_back_with_the_initial_number() -> None:
    policy = AutoscalePolicy(min_replicas=0, max_replicas=8, initial_replicas=3)
    asleep = AutoscaleState(window=((0.0, 0.0),), peaks=((0.0, 0),), desired=0)
    sample = LoadSample(now=5.0, ongoing=0, queued=1, ready=0, desired=0)
    desired, state = desired_replicas(policy, [sample], asleep)
    assert desired == 3, "at once, although upscale_delay_seconds is 30 and the look-back is nearly idle"
    assert follow(policy, [1] * seconds(600), state, start=10.0)[:-1] == [3] * (seconds(600) - 1), "and not given up early"


def test_a_number_set_by_somebody_else_is_kept_for_the_delay() -> None:
    policy = hasty(max_replicas=9, downscale_delay_seconds=10)
    _, state = followed(policy, [1] * 10, AutoscaleState())[-1]
    answers = []
    desired = 6
    for now in (50.0, 55.0, 60.0, 65.0):
        desired, state = desired_replicas(policy, [LoadSample(now=now, ongoing=1, queued=0, ready=6, desired=desired)], state)
        answers.append(desired)
    assert answers == [6, 6, 1, 1]


@pytest.mark.parametrize(("set_to", "expected"), [(50, 4), (0, 2)])
def test_a_number_outside_the_bounds_is_corrected_at_once(set_to: int, expected: int) -> None:
    policy = AutoscalePolicy(min_replicas=2, max_replicas=4)
    sample = LoadSample(now=0.0, ongoing=set_to, queued=0, ready=1, desired=set_to)
    assert desired_replicas(policy, [sample], AutoscaleState())[0] == expected


def test_a_factor_below_one_takes_part_of_the_way() -> None:
    damped = hasty(max_replicas=100, initial_replicas=1, upscaling_factor=0.5, downscaling_factor=0.5)
    assert follow(damped, [9, 9, 9, 9, 9]) == [5, 7, 8, 9, 9]
    assert follow(damped, [9] * 5 + [1] * 6)[5:] == [5, 3, 2, 1, 1, 1]


def test_a_damped_way_down_does_not_stop_at_rounding() -> None:
    policy = hasty(min_replicas=0, initial_replicas=10, max_replicas=10, downscaling_factor=0.1)
    assert follow(policy, [0] * 11) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]


def test_a_factor_above_one_starts_ahead_of_the_need() -> None:
    assert follow(hasty(max_replicas=100, upscaling_factor=2.0), [5, 5]) == [9, 5]


def test_without_a_new_sample_the_answer_stays() -> None:
    policy = hasty(max_replicas=9)
    desired, state = followed(policy, [5], AutoscaleState())[-1]
    assert desired_replicas(policy, [], state) == (desired, state)


# ---- what is refused

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"min_replicas": -1}, "min_replicas=-1 .*whole number ≥ 0: set min_replicas=0"),
    ({"max_replicas": 0}, "max_replicas=0 .*whole number ≥ 1: set max_replicas=1"),
    ({"min_replicas": 3}, "min_replicas=3 is above max_replicas=1.*set max_replicas=3"),
    ({"initial_replicas": 4, "max_replicas": 3}, "initial_replicas=4 is outside .*Set initial_replicas=3"),
    ({"buffer": -2}, "buffer=-2 .*set buffer=0"),
    ({"target_ongoing_requests": 0}, "target_ongoing_requests=0 .*> 0: set target_ongoing_requests=2.0"),
    ({"target_ongoing_requests": math.inf}, "target_ongoing_requests=inf .*finite"),
    ({"look_back_seconds": -1}, "look_back_seconds=-1 .*≥ 0"),
    ({"look_back_seconds": math.inf}, "look_back_seconds=inf .*finite"),
    ({"upscale_delay_seconds": math.nan}, "upscale_delay_seconds=nan .*≥ 0"),
    ({"downscale_delay_seconds": -0.1}, "downscale_delay_seconds=-0.1 .*≥ 0"),
    ({"downscale_to_zero_delay_seconds": -1, "min_replicas": 0}, "downscale_to_zero_delay_seconds=-1 .*=None"),
    ({"downscale_to_zero_delay_seconds": 5}, "no effect with min_replicas=1.*Set min_replicas=0"),
    ({"upscaling_factor": 0}, "upscaling_factor=0 .*> 0"),
    ({"downscaling_factor": 1.5}, "downscaling_factor=1.5 .*at most 1"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_a_value_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AutoscalePolicy(**settings)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AutoscalePolicy)])
@pytest.mark.parametrize("value", ["3", True])
def test_what_is_no_number_is_refused(name: str, value: object) -> None:
    build: Callable[..., AutoscalePolicy] = AutoscalePolicy
    with pytest.raises(ConfigTypeError, match=f"{name}={value!r} is no .*number.*set {name}="):
        build(**{name: value})
