"""Zips: datasets side by side, going round as often as it takes, the same for any ranks."""

import itertools
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, ConflictError
from leyden.data.read.zipped import ParallelStreamingDataset
from tests.support.array_dataset import numbers


def pairs(dataset: Any, count: int | None = None) -> list[tuple[int, ...]]:
    return [tuple(int(sample["x"]) for sample in each) for each in itertools.islice(dataset, count)]


def test_without_a_length_the_shortest_ends_it() -> None:
    dataset = ParallelStreamingDataset([numbers(5), numbers(3)])
    assert pairs(dataset) == [(0, 0), (1, 1), (2, 2)]
    assert len(dataset) == 3


def test_with_a_length_each_goes_round_and_the_next_epoch_goes_on() -> None:
    dataset = ParallelStreamingDataset([numbers(5), numbers(3)], length=7)
    assert pairs(dataset) == [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1), (0, 2), (1, 0)]
    dataset.set_epoch(2)
    assert pairs(dataset, 3) == [(2, 1), (3, 2), (4, 0)]
    anew = ParallelStreamingDataset([numbers(5), numbers(3)], length=7, resume=False)
    anew.set_epoch(2)
    assert pairs(anew, 2) == [(0, 0), (1, 1)]


def test_an_endless_zip_has_no_length_and_shuffles_each_round_anew() -> None:
    dataset = ParallelStreamingDataset([numbers(5, shuffle=True), numbers(3)], length=float("inf"))
    found = [first for first, _ in pairs(dataset, 15)]
    assert [sorted(found[start : start + 5]) for start in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert len({tuple(found[start : start + 5]) for start in (0, 5, 10)}) > 1
    with pytest.raises(TypeError, match="has no end"):
        len(dataset)


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3), length=st.integers(1, 60), world=st.integers(1, 3), steps=st.integers(0, 9)
)
def test_ranks_share_the_zip_and_a_state_goes_on(sizes: list[int], length: int, world: int, steps: int) -> None:
    def make(rank: int, size: int) -> ParallelStreamingDataset:
        dataset = ParallelStreamingDataset([numbers(each, 2, shuffle=True, lanes=2) for each in sizes], length=length)
        dataset.set_placement(rank, size)
        return dataset

    assume(world <= length)  # else nobody would get any, which is refused
    alone = pairs(make(0, 1))
    steps = min(steps, length // world)
    found: list[tuple[int, ...]] = []
    for rank in range(world):
        dataset = make(rank, world)
        iterator = iter(dataset)
        found += pairs(iterator, steps)
        state = dataset.state_dict()
    rest = make(0, 1)
    rest.load_state_dict(state)
    assert sorted(found) == sorted(alone[: steps * world])
    assert pairs(rest) == alone[steps * world :]


def test_transforms_get_generators_that_depend_on_the_position_alone() -> None:
    def noisy(samples: tuple[Any, ...], rngs: dict[str, Any]) -> Any:
        return ({"x": samples[0]["x"]}, {"x": rngs["numpy"].integers(10**6)}, {"x": rngs["random"].randrange(10**6)})

    dataset = ParallelStreamingDataset([numbers(4), numbers(4)], transform=noisy)
    first = pairs(dataset)
    assert pairs(dataset) == first
    assert len(set(first)) == 4
    dataset.set_epoch(2)
    assert pairs(dataset) != first
    same = ParallelStreamingDataset([numbers(4), numbers(4)], transform=noisy, reset_rngs=True)
    before = pairs(same)
    same.set_epoch(2)
    assert pairs(same) == before


def test_the_datasets_own_transforms_come_first() -> None:
    double = numbers(3, transform=lambda sample: {"x": 2 * sample["x"]})
    dataset = ParallelStreamingDataset(
        [double, numbers(3)], transform=lambda samples: (samples[0], {"x": samples[0]["x"] + samples[1]["x"]})
    )
    assert pairs(dataset) == [(0, 0), (2, 3), (4, 6)]


def test_wrong_arguments_and_states_are_refused() -> None:
    for length in (0, 1.5, True):
        with pytest.raises(ConfigError, match="length="):
            ParallelStreamingDataset([numbers(3)], length=length)
    for wrong in ([], [[1]]):
        with pytest.raises(ConfigError, match="a list of StreamingDataset"):
            ParallelStreamingDataset(wrong)
    state = ParallelStreamingDataset([numbers(3)]).state_dict()
    with pytest.raises(ConflictError, match="other datasets"):
        ParallelStreamingDataset([numbers(4)]).load_state_dict(state)


def test_the_epoch_before_the_first_is_another_one() -> None:
    dataset = ParallelStreamingDataset([numbers(20, shuffle=True), numbers(20)])
    found = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        found.append([first for first, _ in pairs(dataset)])
    alone = numbers(20, shuffle=True)
    alone.set_epoch(0)
    assert found[0] == [int(sample["x"]) for sample in alone]
    assert found[0] != found[1]


def test_the_share_that_the_datasets_were_given_is_read() -> None:
    zipped = ParallelStreamingDataset([numbers(20, rank=1, world_size=2), numbers(20, rank=1, world_size=2)])
    assert pairs(zipped) == [(number, number) for number in range(1, 20, 2)]
    with pytest.raises(ConfigError, match=r"different shares \(rank, world_size\): \[\(1, 2\), None\]"):
        ParallelStreamingDataset([numbers(20, rank=1, world_size=2), numbers(20)])


def test_a_batch_transform_of_one_dataset_is_refused() -> None:
    with pytest.raises(ConfigError, match="has a batch_transform, and a batch of several datasets is not its own"):
        ParallelStreamingDataset([numbers(20, batch_transform=dict), numbers(20)])
