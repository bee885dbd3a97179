"""Permutations and generators depend on their place alone, and stay what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.data.philox import SampleRng, perm, raw


def test_permutations_are_those_of_the_format() -> None:
    assert perm(42, 1, 1, 0, 10).tolist() == [6, 4, 3, 2, 8, 1, 7, 0, 5, 9]
    assert perm(42, 2, 1, 3 * 2**32 + 7, 8).tolist() == [5, 4, 1, 2, 3, 0, 7, 6]


@given(st.integers(-(2**70), 2**70), st.integers(0, 300))
def test_a_permutation_holds_each_number_once(seed: int, count: int) -> None:
    assert sorted(perm(seed, 1, 2, 3, count).tolist()) == list(range(count))


def test_places_differ_in_every_coordinate() -> None:
    places = [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)]
    assert len({int(raw(*place, 1)[0]) for place in places}) == len(places)


@pytest.mark.parametrize("kind", ["numpy", "python", "seed"])
def test_a_sample_draws_the_same_wherever_it_is_drawn(kind: str) -> None:
    draws = {
        "numpy": lambda rng: rng.numpy.random(),
        "python": lambda rng: rng.python.random(),
        "seed": lambda rng: rng.seed,
    }
    draw = draws[kind]
    assert draw(SampleRng(7, 1, 3, 0)) == draw(SampleRng(7, 1, 3, 0))
    others = {draw(SampleRng(*place)) for place in [(7, 1, 3, 0), (8, 1, 3, 0), (7, 2, 3, 0), (7, 1, 4, 0), (7, 1, 3, 1)]}
    assert len(others) == 5


def test_torch_draws_the_same_too() -> None:
    torch = pytest.importorskip("torch")
    first, second = (torch.rand(3, generator=SampleRng(7, 1, 3, 0).torch) for _ in range(2))
    assert np.array_equal(first.numpy(), second.numpy())
