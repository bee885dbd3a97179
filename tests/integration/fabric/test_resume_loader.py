"""Loaders with real worker processes: a run cut anywhere goes on bit for bit, random augmentation included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, WeightedRandomSampler

from leyden.fabric import rng
from leyden.fabric.loading.loader import wrap_loader
from leyden.fabric.loading.sharding import Placement
from tests.support.datasets import BatchedDataset, EpochDataset, NoisyDataset, NoisyStream

LENGTH, BATCH, EPOCHS = 11, 2, 2
Make = Callable[..., DataLoader[Any]]

MAKES: dict[str, Make] = {
    "shuffle": lambda **kw: DataLoader(NoisyDataset(LENGTH), BATCH, shuffle=True, **kw),
    "weighted": lambda **kw: DataLoader(NoisyDataset(LENGTH), BATCH, sampler=WeightedRandomSampler([1.0] * LENGTH, LENGTH), **kw),
    "generator": lambda **kw: DataLoader(NoisyDataset(LENGTH), BATCH, shuffle=True, generator=torch.Generator().manual_seed(4), **kw),
    "fetches batches": lambda **kw: DataLoader(BatchedDataset(LENGTH), BATCH, shuffle=True, **kw),
}


class ListDataset(NoisyDataset):
    """Takes a whole list as its index, as unbatched loaders hand it over."""

    def __getitem__(self, index: Any) -> Any:
        samples = [super(ListDataset, self).__getitem__(each) for each in index]
        return [torch.tensor(column) for column in zip(*samples, strict=True)]


MAKES["no batches"] = lambda **kw: DataLoader(
    ListDataset(LENGTH), batch_size=None, sampler=BatchSampler(RandomSampler(range(LENGTH)), BATCH, drop_last=False), **kw
)


def run(loader: DataLoader[Any], saved: Any = None, *, stop: int | None = None, epochs: int = EPOCHS) -> tuple[list[Any], Any]:
    """Iterate to the end of `epochs`, or until `stop` batches were seen; also draw as a model with dropout does."""
    rng.seed_everything(1, verbose=False)
    made = wrap_loader(loader, Placement())
    if saved is not None:
        made.load_state_dict(saved[0])
        rng.restore(saved[1])
    seen: list[Any] = []
    while made.state_dict()["epoch"] < epochs:
        for batch in made:
            seen.append((*(tensor.tolist() for tensor in batch), torch.rand(()).item()))
            if len(seen) == stop:
                return seen, (made.state_dict(), rng.capture())
    return seen, (made.state_dict(), rng.capture())


def assert_cut_runs_go_on(make: Callable[[], DataLoader[Any]], stops: tuple[int, ...]) -> None:
    whole, _ = run(make())
    for stop in stops:
        begun, saved = run(make(), stop=stop)
        rest, _ = run(make(), saved)
        assert begun + rest == whole, f"cut after {stop} batches"


@pytest.mark.parametrize("name", MAKES)
def test_two_workers_cut_inside_and_at_the_end_of_an_epoch(name: str) -> None:
    assert_cut_runs_go_on(lambda: MAKES[name](num_workers=2), (1, 6, 9))


@pytest.mark.parametrize("name", ["shuffle", "weighted"])
def test_persistent_workers(name: str) -> None:
    assert_cut_runs_go_on(lambda: MAKES[name](num_workers=1, persistent_workers=True), (4, 6, 8))


def test_a_run_cut_between_epochs_with_persistent_workers() -> None:
    def make() -> DataLoader[Any]:
        return MAKES["weighted"](num_workers=1, persistent_workers=True)

    whole, _ = run(make(), epochs=3)
    begun, saved = run(make(), epochs=1)
    rest, _ = run(make(), saved, epochs=3)
    assert begun + rest == whole


def test_spawned_workers_see_the_same_as_forked_ones() -> None:
    whole, _ = run(MAKES["shuffle"](num_workers=1), epochs=1)
    begun, saved = run(MAKES["shuffle"](num_workers=1), stop=3)
    rest, _ = run(MAKES["shuffle"](num_workers=1, multiprocessing_context="spawn"), saved, epochs=1)
    assert begun + rest == whole


def test_augmentation_does_not_depend_on_the_number_of_workers() -> None:
    one, two = (run(MAKES["shuffle"](num_workers=number), epochs=1)[0] for number in (1, 2))
    assert one == two
    begun, saved = run(MAKES["shuffle"](num_workers=1), stop=3)
    rest, _ = run(MAKES["shuffle"](num_workers=2), saved, epochs=1)
    assert begun + rest == one


def test_epochs_ranks_and_batches_have_different_noise() -> None:
    rng.seed_everything(1, verbose=False)
    noise = []
    for rank in range(2):
        loader = wrap_loader(DataLoader(NoisyDataset(4), 1, num_workers=1), Placement(rank=rank, num_replicas=2))
        for _ in range(2):
            noise += [batch[1].item() for batch in loader]
    assert len(set(noise)) == 8


def test_the_epoch_reaches_persistent_workers() -> None:
    loader = wrap_loader(DataLoader(EpochDataset(), 4, num_workers=1, persistent_workers=True), Placement())
    assert [batch.tolist() for _ in range(3) for batch in loader] == [[0] * 4, [1] * 4, [2] * 4]


def test_unseeded_workers_are_left_to_torch() -> None:
    loader = wrap_loader(DataLoader(NoisyDataset(4), 2, num_workers=1), Placement(), seed_workers=False)
    torch.manual_seed(3)
    ours = [batch[1].tolist() for batch in loader]
    torch.manual_seed(3)
    assert ours == [batch[1].tolist() for batch in DataLoader(NoisyDataset(4), 2, num_workers=1)]


def test_a_worker_init_function_of_the_user_is_kept_and_finds_its_dataset() -> None:
    loader = wrap_loader(DataLoader(NoisyDataset(4), 2, num_workers=1, worker_init_fn=shorten), Placement())
    assert loader.worker_init_fn is shorten
    assert [batch[0].tolist() for batch in loader] == [[0, 1], [2, 3]]


def shorten(worker: int) -> None:
    info = torch.utils.data.get_worker_info()
    assert info is not None
    assert info.dataset.length == 4  # type: ignore[attr-defined]


def test_an_iterable_in_workers_is_read_again_with_the_same_noise() -> None:
    def make() -> DataLoader[Any]:
        return DataLoader(NoisyStream(12), BATCH, num_workers=2)

    whole, _ = run(make())
    begun, saved = run(make(), stop=8)
    with pytest.warns(UserWarning, match="re-reads 2 batches"):
        rest, _ = run(make(), saved)
    assert begun + rest == whole
