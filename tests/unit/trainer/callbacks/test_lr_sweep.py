"""A sweep suggests the rate at which the loss falls most steeply."""

import math

import pytest
import torch

from leyden.trainer.callbacks.lr_sweep import LearningRateSweep, rates, set_rate


def swept(losses: list[float], mode: str = "exponential") -> LearningRateSweep:
    sweep = LearningRateSweep(mode, 1e-4, 1.0, len(losses))
    sweep.results = {"lr": rates(1e-4, 1.0, len(losses), mode), "loss": losses}
    return sweep


def falling_at(place: int, count: int = 60) -> list[float]:
    return [1 / (1 + math.exp(step - place)) for step in range(count)]


@pytest.mark.parametrize("mode", ["exponential", "linear"])
@pytest.mark.parametrize("place", [20, 35, 50])
def test_the_suggestion_is_where_the_loss_falls_most(mode: str, place: int) -> None:
    sweep = swept(falling_at(place), mode)
    assert sweep.suggestion() == sweep.results["lr"][place]


def test_points_at_both_ends_are_left_out() -> None:
    losses = falling_at(40)
    losses[:5] = [9.0, 7.0, 5.0, 3.0, 1.0]
    sweep = swept(losses)
    assert sweep.suggestion() == sweep.results["lr"][40]
    assert sweep.suggestion(skip_begin=0) in sweep.results["lr"][:6]
    assert sweep.suggestion(skip_end=25) < sweep.results["lr"][36]


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_losses_that_are_not_finite_are_left_out(odd: float) -> None:
    losses = falling_at(40)
    losses[-5:] = [odd] * 5
    losses[12] = odd
    assert swept(losses).suggestion() == swept(falling_at(40)).suggestion()


def test_two_points_are_needed(caplog: pytest.LogCaptureFixture) -> None:
    assert swept([1.0] * 12).suggestion() is None
    assert "not enough points: 1 of 12" in caplog.text
    assert swept([1.0] * 12).suggestion(skip_end=0) is not None


def test_a_rate_that_is_a_tensor_stays_one() -> None:
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=rate, capturable=True)
    set_rate([optimizer], 0.5)
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == 0.5
