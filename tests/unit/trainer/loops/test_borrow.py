"""Borrowed loaders are given back as they stood."""

from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler

from leyden.trainer.data import sources
from leyden.trainer.loops.borrow import BorrowedSource, num_samples


class Stateful:
    """A loader that keeps its place."""

    def __init__(self) -> None:
        self.place = 3

    def __iter__(self) -> Any:
        while self.place < 9:
            self.place += 1
            yield self.place

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


def borrowed(loader: Any) -> BorrowedSource:
    return BorrowedSource(sources.attach("fit", object(), train_dataloaders=loader))


def test_a_place_that_a_loader_keeps_is_put_back() -> None:
    loader = Stateful()
    source = borrowed(loader)
    for _ in range(2):
        list(source.load("train").flattened[0])
    source.give_back()
    assert loader.place == 3


def test_generators_of_loaders_and_samplers_are_put_back() -> None:
    of_loader, of_sampler = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    sampler = RandomSampler(range(9), generator=of_sampler)
    loader = DataLoader(range(9), sampler=sampler, generator=of_loader)  # type: ignore[arg-type] - a list of numbers will do
    before = [of_loader.get_state(), of_sampler.get_state()]
    source = borrowed(loader)
    list(source.load("train").flattened[0])
    assert not torch.equal(of_sampler.get_state(), before[1])
    source.give_back()
    assert torch.equal(of_loader.get_state(), before[0])
    assert torch.equal(of_sampler.get_state(), before[1])


def test_samples_are_counted_where_all_say() -> None:
    assert num_samples([DataLoader([1, 2, 3])]) == 3
    assert num_samples([DataLoader([1, 2, 3]), [1]]) is None
