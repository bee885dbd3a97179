"""`CombinedStreamingDataset`: arguments, exact epochs, weights changed while it runs, state."""

import itertools
from typing import Any

import pytest

from leyden.core.errors import ConfigError, ConflictError
from leyden.data import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
from leyden.data.philox import SampleRng
from tests.support.array_dataset import dataset_of


def sources(*sizes: int, **options: Any) -> list[StreamingDataset]:
    return [dataset_of([{"x": 1000 * index + row} for row in range(size)], 4, **options) for index, size in enumerate(sizes)]


def numbers_of(samples: Any) -> list[int]:
    return [sample["x"] for sample in samples]


def test_every_sample_comes_once_and_epochs_differ() -> None:
    mix = CombinedStreamingDataset(sources(20, 7, shuffle=True, lanes=2))
    first = numbers_of(mix)
    assert len(mix) == 27 == len(first) == mix.num_rows
    assert sorted(first) == [*range(20), *range(1000, 1007)]
    mix.set_epoch(2)
    assert numbers_of(mix) != first


def test_datasets_say_what_they_are() -> None:
    (part,) = parts = sources(20)
    assert repr(part).startswith("StreamingDataset(")
    assert repr(part).endswith("num_rows=20)")
    assert repr(CombinedStreamingDataset(parts)) == f"CombinedStreamingDataset([{part!r}])"


def test_it_ends_where_one_runs_out_and_knows_its_length() -> None:
    mix = CombinedStreamingDataset(sources(30, 30), weights=[0.9, 0.1], iterate_over_all=False)
    samples = numbers_of(mix)
    assert len(samples) == len(mix)
    assert sum(sample < 1000 for sample in samples) == 30
    assert 2 <= sum(sample >= 1000 for sample in samples) <= 5


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_the_same_sequence(ranks: int) -> None:
    alone = numbers_of(CombinedStreamingDataset(sources(24, 12)))
    shares = []
    for rank in range(ranks):
        mix = CombinedStreamingDataset(sources(24, 12))
        mix.set_placement(rank, ranks)
        shares.append(numbers_of(mix))
    assert sorted(itertools.chain(*shares)) == sorted(alone)
    assert sorted(share[0] for share in shares) == sorted(alone[:ranks])


def test_weights_change_at_the_next_step_and_a_state_goes_on() -> None:
    def fresh() -> CombinedStreamingDataset:
        return CombinedStreamingDataset(sources(400, 400), weights=[1, 0], iterate_over_all=False)

    mix = fresh()
    iterator = iter(mix)
    before = numbers_of(itertools.islice(iterator, 50))
    mix.set_weights([0, 1])
    middle = numbers_of(itertools.islice(iterator, 50))
    assert (before, middle) == (list(range(50)), list(range(1000, 1050)))
    mix.set_weights([1, 1])
    state = mix.state_dict()
    rest = numbers_of(iterator)
    assert min(sample for sample in rest if sample < 1000) == 50
    assert min(sample for sample in rest if sample >= 1000) == 1050
    resumed = fresh()
    resumed.load_state_dict(state)
    assert numbers_of(resumed) == rest
    assert resumed.weights == mix.weights == [0.5, 0.5]


def test_sources_that_repeat_go_on_over_epochs_and_draw_anew() -> None:
    def drawn(sample: dict[str, int], rng: SampleRng) -> tuple[int, int]:
        return sample["x"], int(rng.numpy.integers(2**40))

    mix = CombinedStreamingDataset(sources(3, transform=drawn), repeat=True, epoch_size=5)
    seen = [*mix]
    mix.set_epoch(2)
    seen += [*mix]
    assert [number for number, _ in seen] == [0, 1, 2] * 3 + [0]
    assert len({draw for _, draw in seen}) == 10, "a sample that comes again draws other numbers"


def test_each_sample_gets_the_transform_of_its_source() -> None:
    plain, changed = sources(3, 3)
    changed = dataset_of([{"x": 5}] * 3, 4, transform=lambda sample: {"x": -sample["x"]})
    assert sorted(numbers_of(CombinedStreamingDataset([plain, changed]))) == [-5, -5, -5, 0, 1, 2]


def test_batches_of_one_source_each() -> None:
    mix = CombinedStreamingDataset(sources(22, 9), batching_method="per_stream")
    mix.set_batch_size(4)
    samples = numbers_of(mix)
    batches = [samples[at : at + 4] for at in range(0, len(samples), 4)]
    assert all(len({sample // 1000 for sample in batch}) == 1 for batch in batches)
    assert sorted(samples) == [*range(20), *range(1000, 1008)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1, 1]}, "pass iterate_over_all=False"),
        ({"weights": [1], "iterate_over_all": False}, "give each its own"),
        ({"weights": [1, -1], "iterate_over_all": False}, "≥ 0"),
        ({"weights": [0, 0], "iterate_over_all": False}, "above 0"),
        ({"weights": [1, 1], "temperature": 2.0, "iterate_over_all": False}, "pass one of them"),
        ({"temperature": 0.0, "iterate_over_all": False}, "temperature=0.0"),
        ({"repeat": True}, "epoch_size"),
        ({"epoch_size": 0}, "epoch_size=0"),
        ({"batching_method": "mixed"}, "stratified"),
    ],
)
def test_arguments_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CombinedStreamingDataset(sources(3, 3), **options)


def test_weights_follow_sizes_and_temperature() -> None:
    assert CombinedStreamingDataset(sources(9, 1), iterate_over_all=False).weights == [0.9, 0.1]
    assert CombinedStreamingDataset(sources(9, 1), iterate_over_all=False, temperature=2.0).weights == [0.75, 0.25]
    with pytest.raises(ConfigError, match="no weights to change"):
        CombinedStreamingDataset(sources(3, 3)).set_weights([1, 1])


def test_a_state_of_other_datasets_is_refused() -> None:
    state = CombinedStreamingDataset(sources(5, 5)).state_dict()
    with pytest.raises(ConflictError, match="other datasets"):
        CombinedStreamingDataset(sources(5, 6)).load_state_dict(state)


def test_the_epoch_before_the_first_comes_before_it() -> None:
    mix = CombinedStreamingDataset(sources(80, 40, shuffle=True), repeat=True, epoch_size=120, iterate_over_all=False, weights=[2, 1])
    epochs = []
    for epoch in (-1, 0, 1, 2):
        mix.set_epoch(epoch)
        epochs.append(numbers_of(mix))
    assert all(sorted(each) == [*range(80), *range(1000, 1040)] for each in epochs)
    assert len({tuple(each) for each in epochs}) == 4


def test_an_epoch_is_begun_anew_after_a_change_of_weights() -> None:
    mix = CombinedStreamingDataset(sources(100, 30), weights=[0.5, 0.5], repeat=True, epoch_size=60, iterate_over_all=False)
    iterator = iter(mix)
    list(itertools.islice(iterator, 10))
    mix.set_weights([0.9, 0.1])
    list(itertools.islice(iterator, 5))
    iterator.close()  # type: ignore[attr-defined]
    mix.reset()
    again = numbers_of(mix)
    assert len(again) == 60
    assert sum(number < 1000 for number in again) == 54


def test_a_dataset_that_fills_no_batch_of_its_own_is_told() -> None:
    small: dict[str, Any] = {"batching_method": "per_stream", "repeat": True, "iterate_over_all": False}
    with pytest.raises(ConfigError, match=r"batches of 4 samples .* fills none"):
        len(StreamingDataLoader(CombinedStreamingDataset(sources(20, 3), epoch_size=40, **small), batch_size=4))
    with pytest.raises(ConfigError, match="epoch_size=3 holds no batch of 4"):
        len(StreamingDataLoader(CombinedStreamingDataset(sources(20, 8), epoch_size=3, **small), batch_size=4))
    rest = CombinedStreamingDataset(sources(20, 3), batching_method="per_stream")
    assert len(list(StreamingDataLoader(rest, batch_size=4))) == 5, "what fills no batch is left out"


@pytest.mark.parametrize("later", [4, 8, 6, 2])
def test_batches_of_one_dataset_each_are_gone_on_with_as_they_were(later: int) -> None:
    def loader(size: int) -> StreamingDataLoader:
        return StreamingDataLoader(CombinedStreamingDataset(sources(100, 30), batching_method="per_stream"), batch_size=size)

    first = loader(4)
    iterator = iter(first)
    seen = [number for _ in range(5) for number in next(iterator)["x"].tolist()]
    second = loader(later)
    second.load_state_dict(first.state_dict())
    if later != 4:
        with pytest.raises(ConflictError, match=r"batches of 4 samples .* now they have"):
            list(second)
        second.set_epoch(2)
        assert len(list(second)) == len(loader(later))
    else:
        rest = [number for batch in second for number in batch["x"].tolist()]
        assert sorted(seen + rest) == sorted(number for batch in loader(4) for number in batch["x"].tolist())
