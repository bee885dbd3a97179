import cProfile
import gc
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset, WeightedRandomSampler

from leyden.fabric import rng
from leyden.fabric.loading.loader import FabricDataLoader, wrap_loader
from leyden.fabric.loading.samplers import EpochSampler
from leyden.fabric.loading.sharding import Placement
from leyden.fabric.loading.transfer import move_data_to_device
from tests.support.datasets import NoisyDataset, StatefulLoader, StatefulStream
from tests.support.loaders import loaders, numbers, seeded


def run(loader: Any, saved: Any = None, *, stop: int | None = None, epochs: int = 2, world: int = 1) -> tuple[list[Any], Any]:
    """Iterate to the end of `epochs`, or until `stop` batches were seen; also draw as a model with dropout does."""
    made = wrap_loader(loader, Placement(num_replicas=world))
    if saved is not None:
        made.load_state_dict(saved[0])
        rng.restore(saved[1])
    seen = []
    while made.state_dict()["epoch"] < epochs:
        for batch in made:
            seen.append((*(tensor.tolist() for tensor in batch), torch.rand(()).item(), random.random()))
            if len(seen) == stop:
                return seen, (made.state_dict(), rng.capture())
    return seen, (made.state_dict(), rng.capture())


class PairsFirst(BatchSampler):
    """Yields the batches of even position first: it looks at the whole epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        batches = list(super().__iter__())
        yield from batches[::2]
        yield from batches[1::2]


class OwnShuffle:
    """A sampler with a generator of its own, which a checkpoint of the process's generators does not know."""

    def __init__(self) -> None:
        self.random = random.Random(5)

    def __len__(self) -> int:
        return 9

    def __iter__(self) -> Iterator[int]:
        yield from self.random.sample(range(9), 9)


KINDS: dict[str, Any] = {
    "shuffle": lambda: DataLoader(NoisyDataset(9), 2, shuffle=True),
    "sequential": lambda: DataLoader(NoisyDataset(9), 2, drop_last=True),
    "single": lambda: DataLoader(NoisyDataset(9), 1, shuffle=True),
    "weighted": lambda: DataLoader(NoisyDataset(9), 2, sampler=WeightedRandomSampler([1.0] * 9, 9)),
    "generator": lambda: DataLoader(NoisyDataset(9), 2, shuffle=True, generator=torch.Generator().manual_seed(4)),
    "own generator": lambda: DataLoader(NoisyDataset(9), 2, sampler=OwnShuffle()),  # type: ignore[arg-type]
    "batch sampler": lambda: DataLoader(NoisyDataset(9), batch_sampler=PairsFirst(RandomSampler(range(9)), 2, drop_last=False)),  # type: ignore[arg-type]
    "stateful dataset": lambda: DataLoader(StatefulStream(10), 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_cut_anywhere_goes_on_bit_for_bit(kind: str) -> None:
    seeded()
    whole, _ = run(KINDS[kind]())
    for stop in range(1, len(whole) + 1):
        seeded()
        first, saved = run(KINDS[kind](), stop=stop)
        rest, _ = run(KINDS[kind](), saved)
        assert first + rest == whole, f"cut after {stop}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_cut_between_epochs_goes_on_bit_for_bit(kind: str) -> None:
    seeded()
    whole, _ = run(KINDS[kind](), epochs=3)
    seeded()
    first, saved = run(KINDS[kind](), epochs=2)
    assert saved[0]["epoch"] == 2
    rest, _ = run(KINDS[kind](), saved, epochs=3)
    assert first + rest == whole


def test_states_survive_a_restricted_load_twice_over(tmp_path: Any) -> None:
    for kind, make in KINDS.items():
        seeded()
        _, saved = run(make(), stop=3)
        torch.save(saved, tmp_path / "state.pt")
        again = torch.load(tmp_path / "state.pt", weights_only=True)
        loader = wrap_loader(make(), Placement())
        loader.load_state_dict(again[0])
        assert str(loader.state_dict()) == str(saved[0]), kind


def test_a_map_style_resume_reads_one_batch() -> None:
    seeded()
    saved, dataset = run(DataLoader(NoisyDataset(1000), 10, shuffle=True), stop=90)[1], NoisyDataset(1000)
    loader = wrap_loader(DataLoader(dataset, 10, shuffle=True), Placement())
    loader.load_state_dict(saved[0])
    next(iter(loader))
    assert dataset.reads == 10
    weighted = [WeightedRandomSampler([1.0] * 1000, 1000) for _ in range(2)]
    saved, dataset = run(DataLoader(NoisyDataset(1000), 10, sampler=weighted[0]), stop=90)[1], NoisyDataset(1000)
    loader = wrap_loader(DataLoader(dataset, 10, sampler=weighted[1]), Placement())
    loader.load_state_dict(saved[0])
    next(iter(loader))
    assert dataset.reads == 10


@given(st.integers(1, 50), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.booleans(), st.data())
def test_another_world_and_batch_size_go_on_with_each_sample_once(
    length: int, world: int, new_world: int, size: int, new_size: int, shuffle: bool, data: st.DataObject
) -> None:
    seeded(11)
    made = loaders(DataLoader(range(length), size, shuffle=shuffle), world)  # type: ignore[arg-type]
    epoch = data.draw(st.integers(0, 3))
    for one in made:
        one.set_epoch(epoch)
    stop = data.draw(st.integers(1, len(made[0])))
    seen: Counter[int] = Counter()
    for one in made:
        batches = iter(one)
        for _ in range(stop):
            seen.update(numbers([next(batches)]))
    states = [one.state_dict() for one in made]
    assert all(state == states[0] for state in states)
    assert (states[0]["rank_invariant"], states[0]["epoch"]) == (True, epoch)
    went_on: Counter[int] = Counter()
    for rank in range(new_world):
        one = wrap_loader(DataLoader(range(length), new_size, shuffle=shuffle), Placement(rank=rank, num_replicas=new_world))  # type: ignore[arg-type]
        one.load_state_dict(states[0])
        went_on.update(numbers(one))
        assert one.state_dict()["epoch"] == epoch + 1
    both = seen + went_on
    assert set(both) == set(range(length))
    repeats = sum(both.values()) - length
    assert repeats < world if not went_on else repeats < new_world


def test_iterables_are_read_again_with_a_warning_and_the_same_noise() -> None:
    class Stream(StatefulStream):
        state_dict = None  # type: ignore[assignment]

    seeded()
    whole, _ = run(DataLoader(Stream(9), 2))
    seeded()
    first, saved = run(DataLoader(Stream(9), 2), stop=7)
    assert saved[0]["kind"] == "iterable"
    stream = Stream(9)
    with pytest.warns(UserWarning, match="re-reads 2 batches"):
        rest, _ = run(DataLoader(stream, 2), saved)
    assert first + rest == whole


def test_a_stateful_loader_keeps_its_own_state_and_is_told_its_place() -> None:
    mine = StatefulLoader(5)
    loader = wrap_loader(mine, Placement(rank=1, num_replicas=2))
    assert mine.placement == (1, 2)
    batches = iter(loader)
    next(batches), next(batches)
    state = loader.state_dict()
    assert (state["kind"], state["inner"]["next"], state["rank_invariant"]) == ("stateful", 2, True)
    again = wrap_loader(StatefulLoader(5), Placement())
    again.load_state_dict(state)
    assert len(list(again)) == 3
    assert len(list(again)) == 5
    assert again.state_dict()["epoch"] == 2


def test_a_stateful_dataset_resumes_without_reading() -> None:
    seeded()
    _, saved = run(DataLoader(StatefulStream(10), 2), stop=3)
    stream = StatefulStream(9)
    loader = wrap_loader(DataLoader(stream, 2), Placement(rank=1, num_replicas=2))
    assert stream.placement == (1, 2)
    loader.load_state_dict(saved[0])
    next(iter(loader))
    assert stream.reads == 2


def test_a_stateful_dataset_hears_its_epoch_before_its_place() -> None:
    heard: list[Any] = []

    class PlaceOfAnEpoch(StatefulStream):
        def set_epoch(self, epoch: int) -> None:
            heard.append(epoch)

        def load_state_dict(self, state: dict[str, Any]) -> None:
            heard.append(state["next"])
            super().load_state_dict(state)

    _, saved = run(DataLoader(StatefulStream(10), 2), stop=7)
    loader = wrap_loader(DataLoader(PlaceOfAnEpoch(10), 2), Placement())
    loader.load_state_dict(saved[0])
    assert numbers(batch[0] for batch in loader) == [4, 5, 6, 7, 8, 9]
    list(loader)
    assert heard == [1, 4, 2]


def test_only_the_latest_iterator_counts() -> None:
    loader = wrap_loader(DataLoader(range(8), 2), Placement())  # type: ignore[arg-type]
    old = iter(loader)
    next(old)
    new = iter(loader)
    next(new)
    assert [int(batch[0]) for batch in old] == [2, 4, 6]
    state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (1, 1)


def test_the_saved_seed_makes_the_saved_order() -> None:
    seeded(1)
    whole, _ = run(DataLoader(NoisyDataset(9), 2, shuffle=True), epochs=1)
    seeded(1)
    _, saved = run(DataLoader(NoisyDataset(9), 2, shuffle=True), stop=2)
    seeded(99)
    rest, _ = run(DataLoader(NoisyDataset(9), 2, shuffle=True), saved, epochs=1)
    assert [batch[0] for batch in rest] == [batch[0] for batch in whole[2:]]


def test_the_global_batch_and_the_samples_count_all_ranks() -> None:
    loader = wrap_loader(DataLoader(range(20), 3), Placement(rank=1, num_replicas=2))  # type: ignore[arg-type]
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    assert {key: state[key] for key in ("format", "kind", "epoch", "batches", "samples", "length", "global_batch", "world_size")} == {
        "format": 1,
        "kind": "map",
        "epoch": 0,
        "batches": 1,
        "samples": 6,
        "length": 20,
        "global_batch": 6,
        "world_size": 2,
    }
    assert loader.batch_indices == [1, 3, 5]


def test_a_single_rank_loop_is_the_raw_loop_with_the_same_sampler() -> None:
    seeded()
    raw = []
    sampler = EpochSampler(9, seed=1)
    loader = DataLoader(NoisyDataset(9), 2, sampler=sampler)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        raw += [(*(tensor.tolist() for tensor in batch), torch.rand(()).item(), random.random()) for batch in loader]
    seeded()
    assert run(DataLoader(NoisyDataset(9), 2, shuffle=True))[0] == raw


def test_strict_false_starts_the_epoch_again_on_other_data() -> None:
    seeded()
    _, saved = run(DataLoader(NoisyDataset(9), 2), stop=2)
    loader = wrap_loader(DataLoader(NoisyDataset(12), 2), Placement())
    with pytest.warns(UserWarning, match="had 9 samples"):
        loader.load_state_dict(saved[0], strict=False)
    assert len(list(loader)) == 6


def test_the_type_says_that_states_differ_per_rank() -> None:
    assert FabricDataLoader.per_rank is True
    assert not isinstance(wrap_loader(DataLoader(range(3)), Placement()), Dataset)  # type: ignore[arg-type]


def test_a_subclass_may_wrap_the_iterator_of_its_parent() -> None:
    class Doubling(DataLoader[Any]):
        def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
            for batch in super().__iter__():
                yield batch[0] * 2, batch[1]

    seeded()
    whole, _ = run(Doubling(NoisyDataset(9), 2, sampler=WeightedRandomSampler([1.0] * 9, 9)), epochs=1)
    seeded()
    first, saved = run(Doubling(NoisyDataset(9), 2, sampler=WeightedRandomSampler([1.0] * 9, 9)), stop=3)
    rest, _ = run(Doubling(NoisyDataset(9), 2, sampler=WeightedRandomSampler([1.0] * 9, 9)), saved, epochs=1)
    assert first + rest == whole


def test_two_loops_at_once_are_two_epochs() -> None:
    seeded()
    made = wrap_loader(DataLoader(range(6), 1, shuffle=True), Placement())  # type: ignore[arg-type]
    pairs = [(int(one), int(other)) for one, other in zip(made, made, strict=True)]
    assert [one for one, _ in pairs] == list(EpochSampler(6, seed=1, epoch=0))
    assert [other for _, other in pairs] == list(EpochSampler(6, seed=1, epoch=1))


def calls_per_batch(make: Any) -> float:
    """Return how many calls an epoch makes per batch: the difference of two lengths, so that set-up does not count."""

    def calls(batches: int) -> int:
        loader, profile = make(DataLoader(TensorDataset(torch.zeros(batches, 2), torch.zeros(batches)), 1)), cProfile.Profile()
        gc.disable()  # whatever listens to the collector would be counted too
        profile.enable()
        for _ in loader:
            pass
        profile.disable()
        gc.enable()
        return sum(entry.callcount for entry in profile.getstats())

    calls(100)  # what the first epoch of a process sets up is not counted either
    return (calls(200) - calls(100)) / 100


def test_a_batch_costs_few_calls_more_than_in_the_raw_loop() -> None:
    cpu = torch.device("cpu")

    def move(batch: Any) -> Any:
        return move_data_to_device(batch, cpu)

    raw = calls_per_batch(lambda loader: loader)
    still, moved = (calls_per_batch(lambda loader, move=move: wrap_loader(loader, Placement(move=move))) for move in (None, move))
    assert still <= raw + 6
    assert moved <= raw + 9
