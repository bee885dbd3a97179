"""What a step weighs, counted and not timed: calls in the main thread, collectives between ranks. The benchmarks' own runs."""

from collections.abc import Callable
from functools import cache

import pytest

from benchmarks import trainer_ddp, trainer_log, trainer_step
from benchmarks.ranks import on_ranks

Measure = Callable[..., dict[str, float]]


@cache
def calls(measure: Measure) -> float:
    return measure(steps=3)["calls"]


@pytest.mark.parametrize(
    ("measure", "most"),
    [(trainer_step.leyden, 230), (trainer_step.leyden_by_hand, 260), (trainer_log.leyden, 330)],
    ids=["quiet", "by hand", "logging, bar and CSV"],
)
def test_a_step_makes_few_calls(measure: Measure, most: int) -> None:
    assert calls(measure) <= most


def test_the_loop_adds_at_most_ten_calls_to_a_step() -> None:
    assert calls(trainer_step.leyden) - calls(trainer_step.raw) <= 10


def test_ten_empty_callbacks_add_no_call() -> None:
    assert calls(trainer_step.leyden_with_callbacks) == calls(trainer_step.leyden)


@pytest.mark.parametrize(("num_logged", "extra"), [(0, 0), (2, 1)], ids=["quiet", "two reduced values in each row"])
def test_a_ddp_step_reduces_its_gradients_and_each_row_once(num_logged: int, extra: int) -> None:
    results = on_ranks(trainer_ddp.leyden_rank, 3, num_logged)
    assert [result["collectives"] for result in results] == [1 + extra, 1 + extra]
