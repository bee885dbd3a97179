import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from leyden.core.errors import ConfigError
from leyden.fabric import rng
from leyden.fabric.loading.loader import wrap_loader
from leyden.fabric.loading.sharding import Placement
from leyden.trainer.data.collections import mapped
from leyden.trainer.data.feed import Feed
from leyden.trainer.data.plain import PlainLoader
from tests.support.datasets import NoisyDataset, NoisyStream, StatefulLoader, StatefulStream
from tests.support.feeds import Make, Run, cut, resumed, stored, unbroken
from tests.support.loaders import seeded

pytestmark = pytest.mark.filterwarnings("ignore:Resuming inside epoch", "ignore:You're resuming from a checkpoint that ended before")


class Drawing:
    """No loader, no state; what it yields depends on the process's generator."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[torch.Tensor]:
        first = torch.rand(())
        for number in range(self.length):
            yield first + number


def prepared(loader: Any) -> Any:
    plain = isinstance(loader, (list, Drawing))
    return PlainLoader(loader) if plain else wrap_loader(loader, Placement())


def shuffled(length: int = 8) -> DataLoader[Any]:
    return DataLoader(NoisyDataset(length), 2, shuffle=True)


def own_generator() -> DataLoader[Any]:
    data = NoisyDataset(8)
    return DataLoader(data, 2, sampler=RandomSampler(data, generator=torch.Generator().manual_seed(3)))


def weighted() -> DataLoader[Any]:
    return DataLoader(NoisyDataset(8), 2, sampler=WeightedRandomSampler([1.0] * 8, 8))


class Sized(StatefulStream):
    def __len__(self) -> int:
        return self.length


LOADERS: dict[str, Callable[[], Any]] = {
    "map": shuffled,
    "sampler with a generator": own_generator,
    "sampler that draws": weighted,
    "stream": lambda: DataLoader(NoisyStream(8), 2),
    "stateful stream": lambda: DataLoader(StatefulStream(8), 2),
    "sized stateful stream": lambda: DataLoader(Sized(8), 2),
    "stateful loader": lambda: StatefulLoader(4),
    "plain": lambda: Drawing(4),
}


def feeds(loaders: Callable[[], Any], **kwargs: Any) -> Make:
    kwargs.setdefault("num_batches", math.inf)
    return lambda: Feed(mapped(loaders(), prepared), **kwargs)


def check_every_cut(make: Make, epochs: int = 2) -> None:
    whole = unbroken(make, epochs)
    for event in range(1, whole.events + 1):
        first = cut(make, event, epochs)
        rest = resumed(make, first.saved, epochs)
        assert first.seen + rest.seen == whole.seen, f"cut after event {event}: {first.saved['epoch']=} {first.saved['is_inside']=}"


# -- exactness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOADERS)
def test_a_run_cut_anywhere_goes_on_exactly(kind: str) -> None:
    check_every_cut(feeds(LOADERS[kind]))


@pytest.mark.parametrize("kind", LOADERS)
def test_a_limited_run_cut_anywhere_goes_on_exactly(kind: str) -> None:
    check_every_cut(feeds(LOADERS[kind], num_batches=3))


@pytest.mark.parametrize("mode", ["min_size", "max_size_cycle", "max_size"])
@pytest.mark.parametrize("other", ["stream", "plain", "map"])
def test_combined_loaders_cut_anywhere_go_on_exactly(mode: str, other: str) -> None:
    loaders = lambda: {"a": shuffled(4), "b": [LOADERS[other](), weighted()]}  # noqa: E731 - one line of data
    check_every_cut(feeds(loaders, mode=mode))


def test_several_loaders_one_after_the_other_go_on_exactly() -> None:
    loaders = lambda: [shuffled(4), DataLoader(NoisyStream(6), 2), weighted(), Drawing(3)]  # noqa: E731 - one line of data
    check_every_cut(feeds(loaders, mode="sequential", num_batches=[math.inf, math.inf, 2, math.inf]))
    check_every_cut(feeds(loaders, mode="sequential", num_batches=[1, 0, 2, 0]))


@pytest.mark.parametrize("dataset", [NoisyDataset, NoisyStream])
def test_workers_that_read_ahead_do_not_move_the_position(dataset: Callable[[int], Any]) -> None:
    make = feeds(lambda: DataLoader(dataset(8), 2, num_workers=2))
    whole = unbroken(make)
    for event in (1, 3, 5, 7):
        first = cut(make, event)
        assert first.seen + resumed(make, first.saved).seen == whole.seen


def test_a_state_taken_right_after_resuming_is_the_one_resumed_from() -> None:
    make = feeds(lambda: DataLoader(NoisyStream(8), 2))
    saved = cut(make, 3).saved
    feed = make()
    feed.load_state_dict(saved["feed"])
    assert feed.state_dict()["lanes"][0]["lane"]["taken"] == 2
    feed.open()
    rng.restore(saved["rng"])
    again = {**saved, "feed": stored(feed.state_dict())}
    assert resumed(make, again).seen == resumed(make, saved).seen


def test_reading_ahead_leaves_no_trace_in_the_state() -> None:
    seeded()
    stream = StatefulStream(6)
    feed = Feed(wrap_loader(DataLoader(stream, 2), Placement()), num_batches=math.inf)
    batches = iter(feed)
    next(batches)
    assert stream.reads == 4
    state = feed.state_dict()["lanes"][0]
    assert (state["batches"], state["inner"]["next"], state["lane"]["taken"]) == (1, 2, 1)


def test_the_position_after_opening_is_that_of_the_batch_before_the_cut() -> None:
    make = feeds(lambda: [shuffled(4), DataLoader(NoisyStream(4), 2)], mode="sequential", num_batches=[math.inf, math.inf])
    for event, expected in [(2, (0, 0, False)), (3, (1, 0, False)), (4, (0, 1, False)), (5, (1, 1, True)), (6, (1, 1, True))]:
        feed = make()
        feed.load_state_dict(cut(make, event).saved["feed"])
        feed.open()
        assert (feed.batch_idx, feed.dataloader_idx, feed.is_last) == expected, event


def test_opening_leaves_random_numbers_alone_when_it_goes_on() -> None:
    make = feeds(weighted)
    saved = cut(make, 3).saved["feed"]
    feed = make()
    feed.load_state_dict(saved)
    before = torch.get_rng_state()
    feed.open()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trial_over_a_feed_leaves_it_as_it_was() -> None:
    make = feeds(own_generator)
    expected = unbroken(make).seen
    seeded()
    feed = make()
    state = feed.state_dict()
    with rng.isolate_rng():
        next(iter(feed))
        feed.end()
        feed.load_state_dict(state)
    assert Run(feed).go().seen == expected


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_another_number_of_ranks_goes_on_at_the_same_sample(before: int, after: int, drop_last: bool) -> None:
    def ranks(number: int) -> list[Feed]:
        loader = DataLoader(range(24), 2, shuffle=True, drop_last=drop_last)  # type: ignore[arg-type]
        return [Feed(wrap_loader(loader, Placement(rank=rank, num_replicas=number)), num_batches=math.inf) for rank in range(number)]

    seeded()
    seen: list[int] = []
    first = ranks(before)
    batches = [iter(feed) for feed in first]
    for _ in range(3):
        seen += [int(number) for rank in batches for number in next(rank)]
    state = stored(first[0].state_dict())
    for feed in ranks(after):
        feed.load_state_dict(state)
        feed.open()
        seen += [int(number) for batch in feed for number in batch]
        assert feed.is_last
        assert feed.batch_idx + 1 == feed.lanes[0].length
    left = 24 - 6 * before
    assert sorted(seen) == list(range(24)) if not drop_last else len(set(seen)) == len(seen) == 24 - left % (2 * after)


# -- order and counting ------------------------------------------------------------------------------------------


def test_each_pass_is_another_epoch_and_a_new_feed_starts_at_its_own() -> None:
    seeded()
    feed = Feed(prepared(shuffled()), num_batches=4)
    epochs = [[batch[0].tolist() for batch in feed] for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    third = Feed(prepared(shuffled()), num_batches=4, epoch=2)
    assert [batch[0].tolist() for batch in third] == epochs[2]


def test_a_pass_that_was_left_is_followed_by_the_next_one() -> None:
    seeded()
    feed = Feed(prepared(shuffled()), num_batches=4)
    whole = [[batch[0].tolist() for batch in feed] for _ in range(2)]
    seeded()
    feed = Feed(prepared(shuffled()), num_batches=4)
    next(iter(feed))
    assert [batch[0].tolist() for batch in feed] == whole[1]


def test_no_batch_beyond_the_limit_is_fetched() -> None:
    data = NoisyDataset(8)
    feed = Feed(prepared(DataLoader(data, 2)), num_batches=2)
    assert len(list(feed)) == 2
    assert data.reads == 4
    stream = StatefulStream(8)
    assert len(list(Feed(prepared(DataLoader(stream, 2)), num_batches=2))) == 2
    assert stream.reads == 4


def test_the_last_batch_of_a_stream_is_known_before_its_limit() -> None:
    feed = Feed(prepared(DataLoader(NoisyStream(6), 2)), num_batches=100)
    assert [feed.is_last for _ in feed] == [False, False, True]


def test_a_loader_read_whole_comes_to_its_own_end() -> None:
    class Ending:
        ended = 0

        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[int]:
            yield from range(2)
            self.ended += 1

    loader = Ending()
    feed = Feed(PlainLoader(loader), num_batches=2)
    list(feed)
    feed.end()
    assert loader.ended == 1


def test_nothing_is_read_where_no_batches_are_wanted() -> None:
    data = NoisyDataset(8)
    feed = Feed([prepared(DataLoader(data, 2)), prepared([1])], num_batches=[0, 0], mode="sequential")
    assert list(feed) == []
    assert list(Feed([prepared(DataLoader(data, 2))], num_batches=0)) == []
    assert list(Feed([], num_batches=0)) == []
    assert data.reads == 0


def test_batches_have_the_shape_of_the_collection() -> None:
    assert list(Feed([prepared([1, 2])], num_batches=2)) == [[1], [2]]
    assert list(Feed(prepared([1, 2]), num_batches=2)) == [1, 2]
    assert list(Feed({"a": prepared([1, 2]), "b": prepared([3])}, num_batches=2)) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]


def test_limits_of_single_loaders_hold() -> None:
    feed = Feed([prepared([1, 2, 3]), prepared([4, 5, 6])], num_batches=3, limits=[2, 3])
    assert list(feed) == [[1, 4], [2, 5], [1, 6]]


def test_each_batch_is_transferred_when_its_turn_comes() -> None:
    moved: list[Any] = []

    def transfer(batch: Any, dataloader_idx: int) -> Any:
        moved.append((batch, dataloader_idx))
        return -batch

    feed = Feed([PlainLoader(iter([1, 2])), prepared([3])], num_batches=[9, 1], mode="sequential", transfer=transfer)
    batches = iter(feed)
    assert next(batches) == -1
    assert moved == [(1, 0)]
    assert list(batches) == [-2, -3]
    assert moved == [(1, 0), (2, 0), (3, 1)]


def test_none_is_a_batch_like_others() -> None:
    def make() -> Feed:
        return Feed(PlainLoader(item for item in [1, None, None, 2]), num_batches=math.inf)

    assert list(make()) == [1, None, None, 2]
    check_every_cut(make, epochs=1)


def test_batch_indices_are_those_of_the_batch_consumed() -> None:
    feed = Feed([prepared(DataLoader(NoisyDataset(4), 2)), prepared([1])], num_batches=[2, 1], mode="sequential")
    assert [list(feed.batch_indices) if feed.batch_indices is not None else None for _ in feed] == [[0, 1], [2, 3], None]
    ahead = Feed({"a": prepared(DataLoader(NoisyDataset(4), 2)), "b": prepared(DataLoader(NoisyStream(4), 2))}, num_batches=9)
    assert [ahead.batch_indices for _ in ahead] == [[0, 1], [2, 3]]


def test_a_loader_that_is_empty_cannot_be_repeated() -> None:
    feed = Feed({"a": prepared([1, 2]), "b": prepared(DataLoader(NoisyStream(0), 2))}, num_batches=2)
    with pytest.raises(ConfigError, match=r"loader\.1 has no batches"):
        list(feed)


# -- errors ------------------------------------------------------------------------------------------------------


def test_a_state_over_other_data_is_refused() -> None:
    state = Feed(prepared(shuffled(8)), num_batches=4, name="train").state_dict()
    with pytest.raises(ConfigError, match=r"train\.0: The dataset had 8 samples"):
        Feed(prepared(shuffled(6)), num_batches=3, name="train").load_state_dict(state)
    with pytest.raises(ConfigError, match="had 1 loaders here, this one has 2"):
        Feed([prepared(shuffled()), prepared([1])], num_batches=2).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"val\.0: this is no state of a loader of a Trainer"):
        Feed(prepared(shuffled()), num_batches=4, name="val").lanes[0].load_state_dict({"epoch": 1})
    with pytest.raises(ConfigError, match="this is a plain iterable: list"):
        Feed(prepared([1, 2]), num_batches=2).load_state_dict(state)
    with pytest.raises(ConfigError, match="had length 3"):
        Feed(prepared([1, 2]), num_batches=2).load_state_dict(Feed(prepared([1, 2, 3]), num_batches=3).state_dict())


def test_a_plain_iterable_warns_that_it_is_read_again() -> None:
    make = feeds(lambda: Drawing(4))
    saved = cut(make, 3).saved
    with pytest.warns(UserWarning, match="resuming from a checkpoint that ended before the epoch ended"):
        resumed(make, saved)


def test_numbers_of_batches_are_one_per_loader() -> None:
    with pytest.raises(ConfigError, match="2 numbers are expected"):
        Feed([prepared([1]), prepared([2])], num_batches=[1], mode="sequential")
