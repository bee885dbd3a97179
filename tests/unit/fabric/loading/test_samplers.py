import random
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler, SubsetRandomSampler

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.loading.samplers import DistributedSamplerWrapper, EpochSampler

LENGTHS = st.integers(1, 40)
WORLDS = st.integers(1, 6)


def union(length: int, world: int, **kwargs: object) -> list[int]:
    return [index for rank in range(world) for index in EpochSampler(length, rank=rank, num_replicas=world, **kwargs)]  # type: ignore[arg-type]


@given(LENGTHS, WORLDS, st.booleans(), st.booleans(), st.integers(0, 5))
def test_the_order_is_that_of_torch(length: int, world: int, shuffle: bool, drop_last: bool, epoch: int) -> None:
    for rank in range(world):
        theirs = DistributedSampler(range(length), world, rank, shuffle, 3, drop_last)  # type: ignore[arg-type]
        theirs.set_epoch(epoch)
        ours = EpochSampler(length, shuffle, 3, epoch, rank=rank, num_replicas=world, drop_last=drop_last)
        assert list(ours) == list(theirs)
        assert len(ours) == len(theirs)
        assert ours.total_size == theirs.total_size


@given(LENGTHS, WORLDS, st.booleans(), st.integers(0, 45))
def test_the_shares_are_the_dataset_and_at_most_one_repeat_per_other_rank(length: int, world: int, shuffle: bool, start: int) -> None:
    left = Counter(list(EpochSampler(length, shuffle, 1))[start:])
    shares = Counter(union(length, world, shuffle=shuffle, seed=1, start=start))
    extra = shares - left
    assert left <= shares
    assert sum(extra.values()) < world
    assert Counter(union(length, world, shuffle=shuffle, seed=1, start=start, pad=False)) == left
    dropped = left - Counter(union(length, world, shuffle=shuffle, seed=1, start=start, drop_last=True))
    assert sum(dropped.values()) < world


@given(LENGTHS, st.integers(0, 3))
def test_a_global_batch_is_the_same_at_every_world_size(length: int, epoch: int) -> None:
    size = 12
    order = list(EpochSampler(length, True, 5, epoch))
    for world in (1, 2, 3, 4, 6):
        shares = [list(EpochSampler(length, True, 5, epoch, rank=rank, num_replicas=world)) for rank in range(world)]
        share = size // world
        for batch in range(length // size):
            together = [index for mine in shares for index in mine[batch * share : (batch + 1) * share]]
            assert sorted(together) == sorted(order[batch * size : (batch + 1) * size])


@given(LENGTHS, WORLDS, st.integers(0, 10))
def test_starting_later_yields_the_rest(length: int, world: int, steps: int) -> None:
    for rank in range(world):
        whole = list(EpochSampler(length, True, 2, rank=rank, num_replicas=world))
        rest = EpochSampler(length, True, 2, rank=rank, num_replicas=world, start=steps * world)
        assert list(rest) == whole[steps:]
        assert len(rest) == len(whole)


def test_epochs_differ_and_come_back() -> None:
    sampler = EpochSampler(20)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_the_dataset_itself_can_be_given() -> None:
    assert list(EpochSampler([5, 6, 7], shuffle=False)) == [0, 1, 2]


@pytest.mark.parametrize("length", [0, 1])
def test_tiny_datasets_are_shared_out_too(length: int) -> None:
    shares = [list(EpochSampler(length, rank=rank, num_replicas=3)) for rank in range(3)]
    assert shares == [[0] * length] * 3


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_of_the_world_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ConfigError, match="ranks go from 0"):
        EpochSampler(3, rank=rank, num_replicas=world)
    with pytest.raises(ConfigError, match="ranks go from 0"):
        DistributedSamplerWrapper([1], world, rank)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="can be negative"):
        EpochSampler(3, start=-1)


class OwnShuffle:
    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[int]:
        order = list(range(100, 110))
        random.shuffle(order)
        return iter(order)


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("sampler", [OwnShuffle(), SubsetRandomSampler(range(100, 110))], ids=["own", "torch"])
def test_ranks_share_one_order_of_a_foreign_sampler_whatever_they_drew_before(sampler: OwnShuffle, world: int) -> None:
    def share(rank: int) -> list[int]:
        random.seed(rank)
        torch.manual_seed(rank)
        return list(DistributedSamplerWrapper(sampler, world, rank, seed=1, pad=False))

    shares = [share(rank) for rank in range(world)]
    assert sorted(index for mine in shares for index in mine) == list(range(100, 110))
    assert share(0) == shares[0]


def test_a_foreign_sampler_leaves_the_process_generators_alone() -> None:
    random.seed(3)
    expected = random.random()
    random.seed(3)
    list(DistributedSamplerWrapper(OwnShuffle()))
    assert random.random() == expected


def test_a_wrapped_sampler_draws_anew_in_each_epoch_and_hears_of_it() -> None:
    class Hears(OwnShuffle):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    wrapper = DistributedSamplerWrapper(Hears(), 2)
    first = list(wrapper)
    wrapper.set_epoch(4)
    assert wrapper.sampler.epoch == 4  # type: ignore[attr-defined]
    assert list(wrapper) != first


@pytest.mark.parametrize(("pad", "drop_last", "counts"), [(True, False, [4, 4, 4]), (False, False, [4, 3, 3]), (True, True, [3, 3, 3])])
def test_lengths_are_those_of_the_shares(pad: bool, drop_last: bool, counts: list[int]) -> None:
    wrappers = [DistributedSamplerWrapper(range(10), 3, rank, pad=pad, drop_last=drop_last) for rank in range(3)]
    assert [len(wrapper) for wrapper in wrappers] == counts
    assert [len(list(wrapper)) for wrapper in wrappers] == counts


def test_a_sampler_without_length_is_refused_with_both_remedies() -> None:
    with pytest.raises(ConfigTypeError, match=r"has no length.*__len__.*use_distributed_sampler=False"):
        DistributedSamplerWrapper(iter([1, 2]), 2)


def test_a_sampler_that_goes_on_after_its_length_is_refused() -> None:
    class Endless(OwnShuffle):
        def __iter__(self) -> Iterator[int]:
            while True:
                yield 0

    with pytest.raises(ConfigTypeError, match="has length 10 but goes on"):
        list(DistributedSamplerWrapper(Endless(), 2))
