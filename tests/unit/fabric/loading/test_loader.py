import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, SequentialSampler, WeightedRandomSampler

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.loading.loader import prepare_loader, wrap_loader
from leyden.fabric.loading.samplers import DistributedSamplerWrapper, EpochSampler
from leyden.fabric.loading.sharding import Placement
from leyden.fabric.loading.transfer import move_data_to_device
from tests.support.datasets import NoisyDataset, StatefulLoader
from tests.support.loaders import loaders, numbers, seeded


class FakeStrategy:
    """Where a process stands, told by the test."""

    def __init__(self, rank: int = 0, num_replicas: int = 1, device: str = "cpu", lengths: list[int] | None = None) -> None:
        self.distributed_sampler_kwargs = {"rank": rank, "num_replicas": num_replicas}
        self.root_device = torch.device(device)
        self.lengths = lengths
        self.broadcasts = 0

    def batch_to_device(self, batch: Any, device: torch.device | None = None) -> Any:
        return move_data_to_device(batch, device or self.root_device)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        self.broadcasts += 1
        return obj

    def all_gather(self, tensor: Any) -> Any:
        return torch.tensor(self.lengths or [int(tensor)] * self.distributed_sampler_kwargs["num_replicas"])


# -- order and sharding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_order_is_that_of_the_epoch_sampler_at_every_world_size(world: int, shuffle: bool) -> None:
    seeded(5)
    for rank, loader in enumerate(loaders(DataLoader(range(10), 2, shuffle=shuffle), world)):  # type: ignore[arg-type]
        for epoch in range(2):
            assert numbers(loader) == list(EpochSampler(10, shuffle, 5, epoch, rank=rank, num_replicas=world))
            assert len(loader) == len(list(loader.batch_sampler))


def test_predict_sees_every_sample_once_and_drops_none() -> None:
    made = loaders(DataLoader(range(10), 2, drop_last=True), 3, mode="predict")  # type: ignore[arg-type]
    assert sorted(number for loader in made for number in numbers(loader)) == list(range(10))


def test_eval_gives_every_rank_the_same_number_of_batches() -> None:
    made = loaders(DataLoader(range(10), 2), 3, mode="eval")  # type: ignore[arg-type]
    assert [len(list(loader)) for loader in made] == [2, 2, 2]


def test_the_users_loader_is_left_alone() -> None:
    loader = DataLoader(range(10), 2, shuffle=True)  # type: ignore[arg-type]
    before = dict(vars(loader))
    list(wrap_loader(loader, Placement(rank=1, num_replicas=2)))
    assert vars(loader) == before


def test_attributes_are_those_of_the_users_loader() -> None:
    class Named(DataLoader[int]):
        name = "mine"

    loader = Named(range(10), 2, shuffle=True, num_workers=1)  # type: ignore[arg-type]
    single = wrap_loader(loader, Placement())
    assert (single.name, single.batch_size, single.num_workers) == ("mine", 2, 1)
    assert single.sampler is loader.sampler
    assert single.batch_sampler is loader.batch_sampler
    assert single.dataset is loader.dataset
    assert single.worker_init_fn is None
    several = wrap_loader(loader, Placement(rank=1, num_replicas=2))
    assert isinstance(several.sampler, EpochSampler)
    assert several.batch_sampler.sampler is several.sampler
    assert several.is_shared
    with pytest.raises(AttributeError, match="nothing"):
        _ = several.nothing


@pytest.mark.parametrize("sampler", [WeightedRandomSampler([1.0] * 10, 10), RandomSampler(range(10), replacement=True), [3, 1, 2]])  # type: ignore[arg-type]
def test_other_samplers_keep_their_order_on_one_rank(sampler: Any) -> None:
    torch.manual_seed(0)
    raw = numbers(DataLoader(range(10), 2, sampler=sampler))  # type: ignore[arg-type]
    torch.manual_seed(0)
    assert numbers(wrap_loader(DataLoader(range(10), 2, sampler=sampler), Placement())) == raw  # type: ignore[arg-type]


def test_other_samplers_are_shared_out_over_several_ranks() -> None:
    seeded()
    made = []
    for rank in range(2):  # each rank has its own generator, at the same seed
        loader = DataLoader(range(10), 2, sampler=RandomSampler(range(10), generator=torch.Generator()))  # type: ignore[arg-type]
        made.append(wrap_loader(loader, Placement(rank=rank, num_replicas=2)))
    assert isinstance(made[0].sampler, DistributedSamplerWrapper)
    assert sorted(number for one in made for number in numbers(one)) == list(range(10))


class Unsized:
    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


def test_a_sampler_without_length_is_refused_over_several_ranks_only() -> None:
    loader = DataLoader(range(10), 2, sampler=Unsized())  # type: ignore[arg-type]
    assert numbers(wrap_loader(loader, Placement())) == [0, 1, 2, 3]
    with pytest.raises(ConfigTypeError, match="use_distributed_sampler=False"):
        wrap_loader(loader, Placement(num_replicas=2))


class PairsFirst(BatchSampler):
    """Yields the batches of even position first: it looks at the whole epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        batches = list(super().__iter__())
        yield from batches[::2]
        yield from batches[1::2]


def test_a_batch_sampler_is_copied_with_the_shared_sampler_inside() -> None:
    mine = PairsFirst(SequentialSampler(range(12)), 2, drop_last=False)
    made = loaders(DataLoader(range(12), batch_sampler=mine), 2)  # type: ignore[arg-type]
    assert [[batch.tolist() for batch in one] for one in made] == [[[0, 2], [8, 10], [4, 6]], [[1, 3], [9, 11], [5, 7]]]
    assert isinstance(mine.sampler, SequentialSampler)


class NoSampler:
    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1], [2]])

    def __len__(self) -> int:
        return 2


def test_a_batch_sampler_without_sampler_is_refused_over_several_ranks_only() -> None:
    loader = DataLoader(range(3), batch_sampler=NoSampler())  # type: ignore[arg-type]
    assert numbers(wrap_loader(loader, Placement())) == [0, 1, 2]
    with pytest.raises(ConfigTypeError, match=r"no attribute `sampler`.*use_distributed_sampler=False"):
        wrap_loader(loader, Placement(num_replicas=2))


def test_a_batch_sampler_that_ignores_its_sampler_is_noticed_at_its_first_batch() -> None:
    class Ignores(BatchSampler):
        def __iter__(self) -> Iterator[list[int]]:
            return iter([[0, 1], [2]])

    loader = DataLoader(range(3), batch_sampler=Ignores(SequentialSampler(range(3)), 2, drop_last=False))  # type: ignore[arg-type]
    assert numbers(wrap_loader(loader, Placement())) == [0, 1, 2]
    with pytest.raises(ConfigError, match="without drawing from its sampler"):
        list(wrap_loader(loader, Placement(num_replicas=2)))
    assert numbers(wrap_loader(loader, Placement(num_replicas=2), use_distributed_sampler=False)) == [0, 1, 2]


class Own(DataLoader[int]):
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return iter(torch.arange(6).split(2))


def test_a_subclass_that_ignores_its_sampler_is_noticed_at_its_first_batch() -> None:
    with pytest.raises(ConfigError, match="Own yields batches without drawing"):
        list(wrap_loader(Own(range(6), 2), Placement(num_replicas=2)))  # type: ignore[arg-type]
    loader = wrap_loader(Own(range(6), 2), Placement())  # type: ignore[arg-type]
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    assert state["kind"] == "iterable"
    again = wrap_loader(Own(range(6), 2), Placement())  # type: ignore[arg-type]
    again.load_state_dict(state)
    with pytest.warns(UserWarning, match="re-reads 1 batches"):
        assert numbers(again) == [2, 3, 4, 5]


@pytest.mark.parametrize("keep", [slice(None, None, 2), None])
def test_a_subclass_that_yields_fewer_or_more_batches_is_noticed(keep: slice | None) -> None:
    class Uneven(DataLoader[int]):
        def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
            for number, batch in enumerate(super().__iter__()):
                if keep is None:
                    yield from (batch, batch)
                elif number % 2 == 0:
                    yield batch

    loader = wrap_loader(Uneven(range(8), 2), Placement())  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="does not yield one batch for each"):
        first = numbers(loader)
    assert numbers(loader) == first
    assert loader.state_dict()["kind"] == "iterable"


@pytest.mark.parametrize("batch_size", [2, None])
def test_a_distributed_sampler_of_the_user_is_left_as_it_is(batch_size: int | None) -> None:
    mine = DistributedSampler(range(10), 2, 1, shuffle=True)  # type: ignore[arg-type]
    loader = wrap_loader(DataLoader(range(10), batch_size, sampler=mine), Placement(rank=1, num_replicas=2))  # type: ignore[arg-type]
    assert loader.sampler is mine
    list(loader)
    list(loader)
    assert mine.epoch == 1
    assert not loader.is_shared


def test_an_epoch_sampler_of_the_user_is_shared_out_too() -> None:
    loader = DataLoader(range(10), 2, sampler=EpochSampler(10, seed=9))  # type: ignore[arg-type]
    made = loaders(loader, 2)
    assert numbers(made[1]) == list(EpochSampler(10, seed=9, rank=1, num_replicas=2))
    with pytest.raises(ConfigError, match="num_replicas=3, but this run has 2"):
        loaders(DataLoader(range(10), sampler=EpochSampler(10, num_replicas=3)), 2)  # type: ignore[arg-type]


def test_without_distributed_sampler_nothing_is_replaced() -> None:
    torch.manual_seed(3)
    raw = numbers(DataLoader(range(10), 2, shuffle=True))  # type: ignore[arg-type]
    torch.manual_seed(3)
    loader = wrap_loader(DataLoader(range(10), 2, shuffle=True), Placement(rank=1, num_replicas=2), use_distributed_sampler=False)  # type: ignore[arg-type]
    assert numbers(loader) == raw
    assert isinstance(loader.sampler, RandomSampler)


def test_a_dataset_that_shards_itself_gets_no_sampler_but_the_coordinates() -> None:
    class Sharded(NoisyDataset):
        is_sharded = True

        def set_placement(self, rank: int, world_size: int) -> None:
            self.placement = (rank, world_size)

    dataset = Sharded(4)
    loader = wrap_loader(DataLoader(dataset, 2), Placement(rank=1, num_replicas=2))
    assert len(list(loader)) == 2
    assert dataset.placement == (1, 2)


def test_the_epoch_is_told_to_the_dataset() -> None:
    dataset = NoisyDataset(4)
    loader = wrap_loader(DataLoader(dataset, 2), Placement())
    list(loader)
    list(loader)
    loader.set_epoch(7)
    list(loader)
    assert dataset.epochs == [0, 1, 7]


@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_sampler_given_as_sampler_is_shared_out_as_one(world: int) -> None:
    sampler = BatchSampler(SequentialSampler(range(8)), 2, drop_last=False)
    made = loaders(DataLoader(torch.arange(8), batch_size=None, sampler=sampler), world)  # type: ignore[arg-type]
    assert [one for loader in made for one in numbers(loader)] == ([*range(8)] if world == 1 else [0, 2, 4, 6, 1, 3, 5, 7])
    batches = iter(made[0])
    next(batches)
    state = made[0].state_dict()
    assert (state["kind"], state["samples"]) == ("map", 2 * world)


def test_without_batches_each_fetch_counts_one_sample() -> None:
    loader = wrap_loader(DataLoader(["a", "bb", "ccc"], batch_size=None), Placement())  # type: ignore[arg-type]
    batches = iter(loader)
    assert [next(batches), next(batches)] == ["a", "bb"]
    assert loader.state_dict()["samples"] == 2
    assert loader.batch_indices == 1


# -- seeds -------------------------------------------------------------------------------------------------------


def test_without_a_run_seed_rank_zero_draws_one_only_where_an_order_needs_it() -> None:
    before = torch.get_rng_state()
    strategy = FakeStrategy()
    prepare_loader(DataLoader(range(4)), strategy=strategy)  # type: ignore[arg-type]
    prepare_loader(DataLoader(range(4), sampler=[1, 2]), strategy=strategy)  # type: ignore[arg-type]
    assert strategy.broadcasts == 0
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(0)
    one = prepare_loader(DataLoader(range(40), shuffle=True), strategy=strategy)  # type: ignore[arg-type]
    other = prepare_loader(DataLoader(range(40), shuffle=True), strategy=strategy)  # type: ignore[arg-type]
    assert strategy.broadcasts == 2
    assert numbers(one) != numbers(other)


# -- moving ------------------------------------------------------------------------------------------------------


def test_batches_are_moved_unless_told_otherwise() -> None:
    moved = prepare_loader(DataLoader(range(4), 2), strategy=FakeStrategy(device="meta"))  # type: ignore[arg-type]
    assert [batch.device.type for batch in moved] == ["meta", "meta"]
    assert moved.device == torch.device("meta")
    left = prepare_loader(DataLoader(range(4), 2), strategy=FakeStrategy(device="meta"), move_to_device=False)  # type: ignore[arg-type]
    assert [batch.device.type for batch in left] == ["cpu", "cpu"]
    assert left.device is None


# -- what is refused or warned about -----------------------------------------------------------------------------


def test_a_loader_is_set_up_once() -> None:
    loader = wrap_loader(DataLoader(range(3)), Placement())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="passed only once"):
        prepare_loader(loader, strategy=FakeStrategy())


@pytest.mark.parametrize("loader", [range(3), [1, 2], "text", None, NoisyDataset(3)], ids=["range", "list", "str", "none", "dataset"])
def test_what_is_no_loader_is_refused(loader: Any) -> None:
    with pytest.raises(ConfigTypeError, match="Only PyTorch DataLoader are currently supported"):
        prepare_loader(loader, strategy=FakeStrategy())


def test_an_unknown_mode_is_refused_with_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"mode='trian'.*Did you mean 'train'"):
        prepare_loader(DataLoader(range(3)), strategy=FakeStrategy(), mode="trian")  # type: ignore[arg-type]


def test_loaders_of_different_lengths_are_reported_per_rank() -> None:
    strategy = FakeStrategy(num_replicas=2, lengths=[5, 3])
    with pytest.warns(UserWarning, match="rank 0: 5, rank 1: 3") as caught:
        prepare_loader(StatefulLoader(5), strategy=strategy)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_loader(StatefulLoader(5), strategy=FakeStrategy(num_replicas=2, lengths=[5, 5]))


def test_an_empty_loader_is_reported() -> None:
    with pytest.warns(UserWarning, match="no batches: rank 0: 0"):
        prepare_loader(DataLoader(range(3), 4, drop_last=True), strategy=FakeStrategy())  # type: ignore[arg-type]


def test_an_unknown_order_is_reported() -> None:
    with pytest.warns(UserWarning, match="in_order=False"):
        wrap_loader(DataLoader(range(3), num_workers=1, in_order=False), Placement())  # type: ignore[arg-type]
