"""Under torch's own `DataLoader` a dataset is iterable-style: every sample once, for any workers, forked or spawned."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from leyden.core.errors import StateError
from leyden.core.storage import open_storage
from leyden.data import CombinedStreamingDataset, ParallelStreamingDataset, StreamingDataset, StreamingRawDataset, optimize
from tests.support.array_dataset import numbers


def plain(samples: list[dict[str, int]]) -> list[int]:
    return [sample["x"] for sample in samples]


def read(loader: "DataLoader[list[int]]") -> list[list[int]]:
    return list(loader)


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.long)])
def test_every_sample_comes_once(workers: int, method: str | None) -> None:
    dataset = numbers(50)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=method, collate_fn=plain)
    assert sorted(itertools.chain.from_iterable(read(loader))) == list(range(50))


def test_with_its_batch_size_batches_are_in_order() -> None:
    dataset = numbers(50, batch_size=4)
    batches = read(DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="fork", collate_fn=plain))
    assert list(itertools.chain.from_iterable(batches)) == list(range(50))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_the_state_is_not_guessed_when_workers_iterated(method: str) -> None:
    dataset = numbers(20, batch_size=4)
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=method, collate_fn=plain)
    list(loader)
    with pytest.raises(StateError, match=r"state_dict\(num_samples_yielded=…"):
        dataset.state_dict()
    assert dataset.state_dict(num_samples_yielded=8, num_workers=2, batch_size=4)["consumed"] == 8


def test_it_is_an_iterable_dataset_and_collates_to_tensors() -> None:
    dataset = numbers(6, output="torch")
    assert isinstance(dataset, IterableDataset)
    assert [batch["x"].tolist() for batch in DataLoader(dataset, batch_size=3)] == [[0, 1, 2], [3, 4, 5]]
    assert torch.is_tensor(dataset.take([0])["x"])


def test_a_dataset_made_before_torch_says_so() -> None:
    script = (
        "from tests.support.array_dataset import numbers\n"
        "dataset = numbers(6)\n"
        "import sys; assert 'torch' not in sys.modules\n"
        "from torch.utils.data import DataLoader\n"
        "next(iter(DataLoader(dataset, batch_size=2)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert "Import torch before creating it" in ended.stderr


@pytest.mark.parametrize("method", [None, "fork", "spawn"])
def test_only_the_first_epoch_goes_on_from_a_loaded_state(method: str | None) -> None:
    dataset = numbers(20, batch_size=4)
    dataset.load_state_dict(numbers(20, batch_size=4).state_dict(num_samples_yielded=8))
    loader = DataLoader(dataset, batch_size=4, num_workers=2 if method else 0, multiprocessing_context=method, collate_fn=plain)
    epochs = [list(itertools.chain.from_iterable(read(loader))) for _ in range(2)]
    assert epochs == [list(range(8, 20)), list(range(20))]
    dataset.set_epoch(2)  # without a warning that the position is dropped
    assert sorted(itertools.chain.from_iterable(read(loader))) == list(range(20))


def test_a_state_within_a_step_is_gone_on_with_by_the_worker_that_has_the_step() -> None:
    dataset, later = numbers(20, batch_size=4), numbers(20, batch_size=4)
    seen = [sample["x"] for sample in itertools.islice(dataset, 6)]
    later.load_state_dict(dataset.state_dict())
    loader = DataLoader(later, batch_size=4, num_workers=2, multiprocessing_context="fork", collate_fn=plain)
    assert sorted(seen + list(itertools.chain.from_iterable(read(loader)))) == list(range(20))


@pytest.mark.parametrize("kind", [CombinedStreamingDataset, ParallelStreamingDataset])
def test_the_state_of_several_datasets_is_not_guessed_either(kind: Any) -> None:
    dataset = kind([numbers(20), numbers(20)])
    list(DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="fork", collate_fn=len))
    with pytest.raises(StateError, match=r"state_dict\(num_samples_yielded=…"):
        dataset.state_dict()


def test_a_dataset_that_has_fetched_is_forked_and_fetches_there(tmp_path: Path) -> None:
    optimize(one, list(range(40)), str(tmp_path / "data"), num_workers=0, verbose=False, chunk_size=10)
    store = open_storage("memory://forked")
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            store.write(path.relative_to(tmp_path / "data").as_posix(), path.read_bytes())
    dataset = StreamingDataset("memory://forked", cache_dir=tmp_path / "cache")
    raw = StreamingRawDataset("memory://forked", cache_dir=tmp_path / "raw")
    assert (dataset[0]["x"], bool(raw[0])) == (0, True), "threads that fetch have begun"
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="fork", collate_fn=plain)
    assert sorted(itertools.chain.from_iterable(read(loader))) == list(range(40))
    assert sum(DataLoader(raw, batch_size=2, num_workers=2, multiprocessing_context="fork", collate_fn=len)) == len(raw)


def one(number: int) -> dict[str, int]:
    return {"x": number}
