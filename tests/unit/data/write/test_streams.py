"""Inputs that come one after another: iterators, queues, loaders; stopped and read again."""

import multiprocessing
import queue as queues
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leyden import data as ld
from leyden.core.errors import ConfigError
from leyden.core.failpoints import InjectedError, armed
from leyden.core.storage import open_storage
from leyden.data.errors import DatasetExistsError, UnitFailedError
from leyden.data.write.journal import Journal
from leyden.data.write.packed import PackedInputs, dumps, packed
from leyden.data.write.streaming import StreamedFeed
from leyden.data.write.streams import InputStream

COUNT = 1300  # two units and a part


def row(number: int) -> dict[str, int]:
    return {"id": number}


def of_batch(batch: dict[str, torch.Tensor]) -> Iterator[dict[str, int]]:
    for number in batch["id"]:
        yield {"id": int(number) + 1000}


def total(numbers: list[int]) -> dict[str, int]:
    return {"id": sum(numbers)}


def fails_at_600(number: int) -> dict[str, int]:
    if number == 600:
        raise ValueError("600")
    return {"id": number}


def optimize(folder: Path, inputs: Any = None, function: Any = row, **options: Any) -> ld.Report:
    return ld.optimize(function, inputs, str(folder), verbose=False, **{"num_workers": 0, **options})


def ids(folder: Path) -> list[int]:
    return [each["id"] for each in ld.StreamingDataset(str(folder))]


def journal(folder: Path) -> Path:
    (found,) = (folder / "_leyden/jobs").iterdir()
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_is_read_while_its_units_are_done(tmp_path: Path, workers: int) -> None:
    report = optimize(tmp_path, iter(range(COUNT)), num_workers=workers)
    assert (report.num_rows, report.version) == (COUNT, 1)
    assert ids(tmp_path) == list(range(COUNT))


def test_it_is_not_read_whole_before_work_begins(tmp_path: Path) -> None:
    done = threading.Event()

    def see(number: int) -> dict[str, int]:
        done.set()
        return {"id": number}

    def numbers() -> Iterator[int]:
        yield from range(512)
        assert done.wait(60), "the first unit is done before the second one is read"
        yield from range(512, 600)

    assert optimize(tmp_path, numbers(), see).num_rows == 600


def test_only_a_few_units_are_read_ahead(tmp_path: Path) -> None:
    seen, most = 0, 0

    def see(number: int) -> dict[str, int]:
        nonlocal most
        most = max(most, seen - number)
        return {"id": number}

    def numbers() -> Iterator[int]:
        nonlocal seen
        for seen in range(20_000):  # noqa: UP028 - it says how far it was read
            yield seen

    optimize(tmp_path, numbers(), see, fsync=False)
    assert most < 12 * 512


def test_groups_and_trial_runs(tmp_path: Path) -> None:
    assert optimize(tmp_path / "a", iter(range(10)), total, batch_size=4).num_rows == 3
    assert ids(tmp_path / "a") == [6, 22, 17]
    assert optimize(tmp_path / "b", iter(range(100)), fast_dev_run=True).num_rows == 10


@pytest.mark.parametrize("kind", [queues.Queue, multiprocessing.Queue], ids=["threads", "processes"])
def test_a_queue_ends_with_one_all_done(tmp_path: Path, kind: Any) -> None:
    given = kind()
    for number in range(COUNT):
        given.put(number)
    given.put(ld.ALL_DONE)
    assert optimize(tmp_path, queue=given).num_rows == COUNT
    assert ids(tmp_path) == list(range(COUNT))


def test_a_queue_whose_producer_is_gone_is_let_go_when_the_job_fails(tmp_path: Path) -> None:
    given = queues.Queue[int]()
    for number in range(1024):
        given.put(number)
    with pytest.raises(UnitFailedError, match="input number 600"):
        optimize(tmp_path, queue=given, function=fails_at_600)
    assert not [thread for thread in threading.enumerate() if thread.name == "leyden-inputs"]


@pytest.mark.parametrize("kind", ["ours", "torch"])
def test_batches_of_a_loader_are_inputs(tmp_path: Path, kind: str) -> None:
    optimize(tmp_path / "a", list(range(50)))
    dataset = ld.StreamingDataset(str(tmp_path / "a"))
    loader: Any = ld.StreamingDataLoader(dataset, batch_size=8) if kind == "ours" else torch.utils.data.DataLoader(dataset, batch_size=8)
    assert optimize(tmp_path / "b", loader, of_batch, num_workers=1).num_rows == 50
    assert ids(tmp_path / "b") == list(range(1000, 1050))
    for options in ({"batch_size": 2}, {"weights": [1.0] * 50}):
        with pytest.raises(ConfigError):
            optimize(tmp_path / "c", loader, of_batch, **options)


@pytest.mark.parametrize(
    "step", ["data.inputs.kept:2", "data.unit.written:2", "data.done.after:3", "data.finalise.before", "data.commit.between"]
)
def test_a_stopped_job_goes_on_with_the_same_iterator(tmp_path: Path, step: str) -> None:
    optimize(tmp_path / "whole", iter(range(COUNT)))
    with armed(f"{step}=raise"), pytest.raises((InjectedError, RuntimeError)):
        optimize(tmp_path / "out", iter(range(COUNT)))
    assert optimize(tmp_path / "out", iter(range(COUNT))).version == 1
    chunks = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.ldc")} for name in ("whole", "out")]
    assert chunks[0] == chunks[1]
    assert not list((tmp_path / "out/_leyden/jobs").rglob("input-*")), "inputs go with the commit"


def test_other_inputs_than_before_are_told(tmp_path: Path) -> None:
    with armed("data.finalise.before=raise"), pytest.raises(InjectedError):
        optimize(tmp_path, iter(range(COUNT)))
    with pytest.raises(ConfigError, match=r"the 512 from number 512 on are not what the iterator or queue gave then"):
        optimize(tmp_path, (number if number != 700 else 0 for number in range(COUNT)))
    assert optimize(tmp_path, iter(range(512)), resume=False).num_rows == 512


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    first = optimize(tmp_path, iter(range(COUNT)))
    again = optimize(tmp_path, iter(range(COUNT)))
    assert again._replace(seconds=0) == first._replace(seconds=0)
    assert optimize(tmp_path, list(range(COUNT)))._replace(seconds=0) == first._replace(seconds=0), "a list of the same is the same work"
    with pytest.raises(DatasetExistsError):
        optimize(tmp_path, iter(range(5)))
    assert optimize(tmp_path, iter(range(5)), mode="append").version == 2
    with pytest.warns(UserWarning, match="already appended"):
        assert optimize(tmp_path, iter(range(5)), mode="append").version == 2
    assert ids(tmp_path) == [*range(COUNT), *range(5)]


def test_what_the_iterator_raises_is_raised_and_the_rest_is_kept(tmp_path: Path) -> None:
    def numbers() -> Iterator[int]:
        yield from range(600)
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        optimize(tmp_path, numbers())
    assert (journal(tmp_path) / "done-00000000.json").exists()
    assert optimize(tmp_path, iter(range(COUNT))).num_rows == COUNT


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        optimize(tmp_path / "a", iter(()))
    with pytest.raises(ConfigError, match="cannot be pickled"):
        optimize(tmp_path / "b", iter([threading.Lock()]))
    with pytest.raises(ConfigError, match="weights= needs"):
        optimize(tmp_path / "c", iter(range(3)), weights=[1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match="several drivers"):
        optimize(tmp_path / "d", iter(range(3)), engine=ld.RayEngine(1))


def test_tensors_are_packed_alike_and_without_what_they_are_a_view_of() -> None:
    whole = torch.arange(100_000, dtype=torch.bfloat16)
    assert dumps({"a": whole[:4]}) == dumps({"a": whole[:4].clone()})
    assert len(packed([whole[:4]], 0)) < 500
    found = PackedInputs(packed([whole[1:3], torch.empty(0, 2), np.arange(3), torch.tensor(True)], 0))
    assert torch.equal(found[0], whole[1:3])
    assert found[1].shape == (0, 2)
    assert found[3].item() is True


def test_what_the_iterator_raised_comes_before_the_end_of_the_inputs(tmp_path: Path) -> None:
    def inputs() -> Iterator[int]:
        raise ValueError("torn")
        yield 1

    feed = StreamedFeed(Journal(open_storage(tmp_path), "job"), InputStream(inputs(), threading.Event()))
    feed.close()  # the thread has ended
    assert not feed.has_ended(), "or the driver would take the inputs for complete"
    with pytest.raises(ValueError, match="torn"):
        feed.more()
