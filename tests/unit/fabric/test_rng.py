import contextlib
import io
import os
import random
from typing import Any

import numpy as np
import pytest
import torch

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric import rng


def draws() -> tuple[float, ...]:
    return (torch.rand(()).item(), random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()))


def test_the_same_seed_gives_the_same_numbers_in_all_generators() -> None:
    assert rng.seed_everything(7, verbose=False) == 7
    first = draws()
    rng.seed_everything(7, verbose=False)
    assert draws() == first
    rng.seed_everything(8, verbose=False)
    assert all(one != other for one, other in zip(draws(), first, strict=True))


def test_children_find_the_seed_in_the_environment() -> None:
    rng.seed_everything(7, workers=True, verbose=False)
    assert os.environ["PL_GLOBAL_SEED"] == "7"
    assert os.environ["PL_SEED_WORKERS"] == "1"
    assert rng.run_seed() == 7
    assert rng.seed_everything(verbose=False) == 7


def test_no_seed_anywhere_is_zero_with_a_warning() -> None:
    assert rng.run_seed() is None
    with pytest.warns(UserWarning, match="No seed found") as caught:
        assert rng.seed_everything() == 0
    assert caught[0].filename == __file__


def test_our_variable_is_read_first_and_never_contradicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    monkeypatch.setenv("LEYDEN_GLOBAL_SEED", "2")
    assert rng.seed_everything(verbose=False) == 2
    rng.seed_everything(5, verbose=False)
    assert rng.run_seed() == 5


@pytest.mark.parametrize(("seed", "advice"), [(-1, 1), (-7, 7), (2**32, 0), (2**32 + 5, 5)])
def test_a_seed_out_of_bounds_is_refused_with_one_that_is_not(seed: int, advice: int) -> None:
    with pytest.raises(ConfigError, match=f"is not in bounds.* Use seed={advice}\\.$"):
        rng.seed_everything(seed)
    assert rng.seed_everything(advice, verbose=False) == advice


@pytest.mark.parametrize("seed", [1.5, "7", True])
def test_a_seed_of_another_type_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigTypeError, match="a seed is an int"):
        rng.seed_everything(seed)


@pytest.mark.parametrize("text", ["hello", "1.5", "-3", "4294967296"])
def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", text)
    with pytest.raises(ConfigError, match=f"Invalid seed specified via PL_GLOBAL_SEED: '{text}'"):
        rng.seed_everything()


def test_reset_seed_starts_the_same_numbers_again() -> None:
    rng.seed_everything(7, workers=True, verbose=False)
    first = draws()
    rng.reset_seed()
    assert draws() == first


def test_reset_seed_without_a_seed_does_nothing() -> None:
    before = torch.get_rng_state()
    rng.reset_seed()
    assert torch.equal(before, torch.get_rng_state())


def test_fold_is_a_fixed_function_of_unambiguous_words() -> None:
    assert rng.fold(42, "worker", 0) == 12845660761235261504
    assert rng.fold(42, 1, 23) != rng.fold(42, 12, 3)
    assert rng.fold(42, "1") != rng.fold(42, 1)
    assert rng.fold(np.int64(42), np.int32(3)) == rng.fold(42, 3)  # pyrefly: ignore
    assert len({rng.fold(0, position) for position in range(1000)}) == 1000


def test_captured_state_is_restored_after_a_restricted_load() -> None:
    random.gauss(0, 1)  # leaves its twin behind, which is part of the state
    file = io.BytesIO()
    torch.save(rng.capture("cpu"), file)
    assert len(file.getvalue()) < 20_000
    expected = draws()
    file.seek(0)
    rng.restore(torch.load(file, weights_only=True))
    assert draws() == expected


def test_isolation_leaves_no_trace_even_after_an_exception() -> None:
    rng.seed_everything(3, verbose=False)
    expected = draws()
    rng.seed_everything(3, verbose=False)
    with contextlib.suppress(KeyError), rng.isolate_rng():
        draws()
        raise KeyError
    assert draws() == expected


@pytest.mark.parametrize(
    "generator",
    [torch.Generator(), random.Random(1), np.random.default_rng(1), np.random.RandomState(1), np.random.Generator(np.random.Philox(3))],
    ids=["torch", "random", "numpy", "numpy-old", "numpy-philox"],
)
def test_a_generator_object_is_captured_and_restored(generator: Any) -> None:
    def draw() -> float:
        if isinstance(generator, torch.Generator):
            return torch.rand((), generator=generator).item()
        return float(generator.random())

    assert rng.is_generator(generator)
    draw()
    file = io.BytesIO()
    torch.save(rng.capture_generator(generator), file)
    expected = [draw(), draw()]
    file.seek(0)
    rng.restore_generator(generator, torch.load(file, weights_only=True))
    assert [draw(), draw()] == expected


def test_workers_and_ranks_get_different_numbers() -> None:
    def seen(worker: int, rank: int) -> tuple[float, ...]:
        torch.manual_seed(100 + worker)  # what torch has done when a worker starts
        rng.pl_worker_init_function(worker, rank)
        return draws()

    all_seen = [seen(worker, rank) for worker in range(3) for rank in range(3)]
    for column in zip(*all_seen, strict=True):
        assert len(set(column)) == 9
    assert seen(1, 2) == all_seen[5]
