import copy
import pickle

import torch

from leyden.fabric.loading.workers import PositionedBatch, PositionedIndex, SeededDataset, TrackedSampler
from tests.support.datasets import BatchedDataset, EpochDataset, NoisyDataset

STREAM = (7, 0, 3, 1)


def test_a_position_travels_by_pickle() -> None:
    batch = pickle.loads(pickle.dumps(PositionedBatch([3, 4], STREAM)))
    assert (type(batch), batch, batch.stream) == (PositionedBatch, [3, 4], STREAM)
    index = pickle.loads(pickle.dumps(PositionedIndex("key", STREAM)))
    assert (index.value, index.stream) == ("key", STREAM)


def test_noise_depends_on_the_stream_only() -> None:
    dataset = SeededDataset(NoisyDataset(10))
    first = dataset.__getitems__(PositionedBatch([1, 2], STREAM))
    torch.rand(5)
    assert dataset.__getitems__(PositionedBatch([1, 2], STREAM)) == first
    other = dataset.__getitems__(PositionedBatch([1, 2], (7, 0, 4, 1)))
    assert [sample[0] for sample in other] == [1, 2]
    assert all(one != two for one, two in zip(other[0][1:], first[0][1:], strict=True))
    assert dataset[PositionedIndex(1, STREAM)] == first[0]


def test_a_dataset_that_fetches_batches_is_asked_for_them() -> None:
    dataset = SeededDataset(BatchedDataset(10))
    assert [sample[0] for sample in dataset.__getitems__(PositionedBatch([4, 5], STREAM))] == [4, 5]
    assert dataset.reads == 0, "samples were fetched one by one"
    assert dataset.__getitems__(PositionedIndex([4], STREAM))[0][2] == 0.0


def test_the_proxy_is_the_dataset_to_whoever_looks() -> None:
    inner = NoisyDataset(10)
    dataset = SeededDataset(inner)
    assert (len(dataset), dataset.length, repr(dataset)) == (10, 10, repr(inner))
    dataset.length = 11
    assert inner.length == 11
    assert not hasattr(dataset, "nothing")
    assert dataset[3][0] == 3


def test_the_proxy_survives_pickling_and_copying() -> None:
    for made in (pickle.loads(pickle.dumps(SeededDataset(NoisyDataset(5)))), copy.deepcopy(SeededDataset(NoisyDataset(5)))):
        assert isinstance(made, SeededDataset)
        assert made.length == 5


def test_the_epoch_reaches_the_dataset_with_its_first_batch() -> None:
    dataset = SeededDataset(EpochDataset())
    assert dataset.__getitems__(PositionedBatch([0, 1], (7, 2, 0, 0))) == [2, 2]
    assert dataset.__getitems__(PositionedBatch([0, 1], (7, 3, 0, 0))) == [3, 3]


def test_a_tracked_sampler_keeps_what_it_yields() -> None:
    tracked = TrackedSampler([[0, 1], [2, 3], [4]], positioned=True, rank=1)
    tracked.place(seed=7, epoch=2, first=5)
    drawn = list(tracked)
    assert drawn == [[0, 1], [2, 3], [4]]
    assert [batch.stream for batch in drawn] == [(7, 2, 5, 1), (7, 2, 6, 1), (7, 2, 7, 1)]
    assert list(tracked.drawn) == [[0, 1], [2, 3], [4]]
    assert len(tracked) == 3


def test_what_is_skipped_is_not_kept() -> None:
    tracked = TrackedSampler([[0], [1], [2]], positioned=False, rank=0)
    tracked.place(seed=0, epoch=0, first=2, skip=2)
    assert list(tracked) == [[2]]
    assert list(tracked.drawn) == [[2]]
    assert list(tracked) == [[0], [1], [2]], "skipping is for one pass"


def test_only_lists_become_lists() -> None:
    tracked = TrackedSampler([3, (4, 5), torch.tensor([6])], positioned=True, rank=0)
    kinds = [type(item) for item in tracked]
    assert kinds == [PositionedIndex] * 3
