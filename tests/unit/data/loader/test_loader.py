"""`StreamingDataLoader`: arguments, batches for any ranks and sizes, resuming anywhere, epochs. Inline and in threads."""

import gc
import itertools
import threading
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, ConfigTypeError, ConflictError, StateError
from leyden.data import CombinedStreamingDataset, ParallelStreamingDataset, StreamingDataLoader
from leyden.data.read.stream import DatasetStream
from tests.support.array_dataset import dataset_of, numbers
from tests.support.loader_parts import doubled, negated, total, with_draws, with_global_draws


def read(loader: StreamingDataLoader) -> list[list[int]]:
    return [batch["x"].tolist() for batch in loader]


def shares(rows: int, ranks: int, last: Any = "partial", size: int | None = None, **options: Any) -> list[list[list[int]]]:
    """Return the batches of each rank."""
    found = []
    for rank in range(ranks):
        dataset = numbers(rows, shuffle=True, lanes=4, rank=rank, world_size=ranks)
        found.append(read(StreamingDataLoader(dataset, last_batch=last, global_batch_size=size, **options)))
    return found


def global_batches(by_rank: list[list[list[int]]]) -> list[list[int]]:
    return [list(itertools.chain.from_iterable(parts)) for parts in itertools.zip_longest(*by_rank, fillvalue=[])]


@pytest.mark.filterwarnings("ignore:.*samples are shared:UserWarning", "ignore:.*does not divide:UserWarning")
@given(rows=st.integers(1, 70), ranks=st.integers(1, 6), size=st.integers(6, 20), last=st.sampled_from(["drop", "partial", "pad"]))
def test_global_batches_are_the_same_for_any_ranks(rows: int, ranks: int, size: int, last: str) -> None:
    assume(last != "drop" or ranks <= rows)  # else nobody would get any, which is refused
    alone = shares(rows, 1, last, size)[0]
    assert global_batches(shares(rows, ranks, last, size)) == alone
    seen = list(itertools.chain.from_iterable(alone))
    if last == "drop":
        assert len(seen) == rows // size * size == len(set(seen))
    elif last == "partial":
        assert sorted(seen) == list(range(rows))
    else:
        assert set(seen) == set(range(rows))
        assert all(len(batch) == size for batch in alone)
        assert len(set(seen[:rows])) == rows


@pytest.mark.filterwarnings("ignore:.*samples are shared:UserWarning")
@given(
    rows=st.integers(1, 60),
    before=st.integers(1, 4),
    after=st.integers(1, 4),
    batch=st.integers(1, 4),
    stop=st.integers(0, 20),
    workers=st.integers(0, 2),
)
def test_resuming_at_any_step_on_other_ranks_goes_on(rows: int, before: int, after: int, batch: int, stop: int, workers: int) -> None:
    options: Any = {"batch_size": batch, "last_batch": "partial", "num_workers": workers}
    first = StreamingDataLoader(numbers(rows, shuffle=True, lanes=4, rank=before - 1, world_size=before), **options)
    count = sum(1 for _ in itertools.islice(first, stop))
    state = first.state_dict()
    first.close()
    whole = list(itertools.chain.from_iterable(shares(rows, 1, "partial", 1)[0]))
    consumed = min(rows, count * batch * before)
    rest = []
    for rank in range(after):
        loader = StreamingDataLoader(numbers(rows, shuffle=True, lanes=4, rank=rank, world_size=after), **options)
        loader.load_state_dict(state)
        rest.append(read(loader))
        loader.close()
    if count and state["current_epoch"] == 1:
        assert sorted(itertools.chain.from_iterable(global_batches(rest))) == sorted(whole[consumed:])


def test_the_state_is_equal_on_all_ranks_and_small() -> None:
    states = []
    for rank in range(3):
        loader = StreamingDataLoader(numbers(40, shuffle=True, rank=rank, world_size=3), batch_size=2)
        next(iter(loader))
        states.append(loader.state_dict())
    assert states[0] == states[1] == states[2]
    assert states[0]["rank_invariant"] is True
    assert len(str(states[0])) < 1024


def test_prefetching_does_not_move_the_state() -> None:
    loader = StreamingDataLoader(numbers(400), batch_size=2, num_workers=2, prefetch_factor=4)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    assert loader.state_dict()["consumed"] == 6
    loader.close()


def test_each_iteration_is_the_next_epoch() -> None:
    loader = StreamingDataLoader(numbers(30, shuffle=True, lanes=4), batch_size=4)
    assert loader.current_epoch == 0
    first, second = read(loader), read(loader)
    assert (loader.current_epoch, first != second) == (2, True)
    next(iter(loader))  # left by a break
    assert loader.current_epoch == 3
    read(loader)
    assert loader.current_epoch == 4
    again = StreamingDataLoader(numbers(30, shuffle=True, lanes=4), batch_size=4)
    again.set_epoch(2)
    assert read(again) == second
    again.set_epoch(1)
    assert read(again) == first
    again.set_epoch(1)
    assert read(again) == first, "the same epoch again, from its start"


def test_a_state_between_epochs_begins_the_next() -> None:
    loader = StreamingDataLoader(numbers(30, shuffle=True, lanes=4), batch_size=4)
    read(loader)
    state = loader.state_dict()
    second = read(loader)
    resumed = StreamingDataLoader(numbers(30, shuffle=True, lanes=4), batch_size=4)
    resumed.load_state_dict(state)
    assert read(resumed) == second
    assert resumed.current_epoch == 2


def test_set_epoch_keeps_a_loaded_position_of_that_epoch_and_drops_others() -> None:
    loader = StreamingDataLoader(numbers(30), batch_size=4)
    loader.set_epoch(5)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    for epoch, expected in ((5, [4, 5, 6, 7]), (6, [0, 1, 2, 3])):
        resumed = StreamingDataLoader(numbers(30), batch_size=4)
        resumed.load_state_dict(state)
        if epoch == 6:
            with pytest.warns(UserWarning, match="is of epoch 5, and is dropped"):
                resumed.set_epoch(epoch)
        else:
            resumed.set_epoch(epoch)
        assert read(resumed)[0] == expected


def test_a_state_of_other_data_is_refused_and_another_order_wins_with_a_warning() -> None:
    state = StreamingDataLoader(numbers(30, seed=1, shuffle=True)).state_dict()
    with pytest.raises(ConflictError, match="other data"):
        StreamingDataLoader(numbers(31)).load_state_dict(state)
    loader = StreamingDataLoader(numbers(30, seed=2, shuffle=True), batch_size=30)
    with pytest.warns(UserWarning, match="the state's order wins"):
        loader.load_state_dict(state)
    assert read(loader) == read(StreamingDataLoader(numbers(30, seed=1, shuffle=True), batch_size=30))


def test_the_choice_for_the_last_batch_is_resumed() -> None:
    state = StreamingDataLoader(numbers(10), batch_size=4, drop_last=True).state_dict()
    loader = StreamingDataLoader(numbers(10), batch_size=4)
    loader.load_state_dict(state)
    assert read(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("workers", [0, 2])
def test_transforms_draw_the_same_for_any_workers(workers: int) -> None:
    dataset = numbers(20, shuffle=True, lanes=4, transform=with_draws)
    kind: Any = "threads" if workers else "auto"
    loader = StreamingDataLoader(dataset, batch_size=4, num_workers=workers, worker_kind=kind)
    drawn = dict(itertools.chain.from_iterable(zip(batch["x"].tolist(), batch["draw"].tolist(), strict=True) for batch in loader))
    bare = {sample["x"]: sample["draw"] for sample in numbers(20, shuffle=True, lanes=4, transform=with_draws)}
    assert drawn == bare
    loader.close()


def test_global_generators_are_seeded_by_sample_and_put_back() -> None:
    np.random.seed(5)
    expected = np.random.randint(100)
    np.random.seed(5)
    loaders = [StreamingDataLoader(numbers(8, shuffle=True, transform=with_global_draws), batch_size=size) for size in (2, 8)]
    drawn = [sorted(itertools.chain.from_iterable(zip(b["x"], b["draw"], b["other"], strict=True) for b in loader)) for loader in loaders]
    assert drawn[0] == drawn[1]
    assert np.random.randint(100) == expected


def test_such_transforms_are_refused_in_threads() -> None:
    loader = StreamingDataLoader(numbers(8, transform=doubled), num_workers=1, worker_kind="threads")
    with pytest.raises(ConfigError, match="worker_kind='processes'"):
        next(iter(loader))


def test_the_users_batch_functions() -> None:
    assert list(StreamingDataLoader(numbers(6), batch_size=4, collate_fn=total)) == [6, 9]
    assert read(StreamingDataLoader(numbers(4, batch_transform=negated), batch_size=4)) == [[0, -1, -2, -3]]
    assert list(StreamingDataLoader(numbers(4, transform=doubled), batch_size=4, collate_fn=total)) == [12]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_at_its_place(workers: int) -> None:
    def refuses(samples: list[dict[str, Any]]) -> int:
        if samples[0]["x"] >= 8:
            raise ZeroDivisionError("eight")
        return samples[0]["x"]

    loader = StreamingDataLoader(numbers(12), batch_size=2, num_workers=workers, worker_kind="threads", collate_fn=refuses)
    seen = []
    with pytest.raises(ZeroDivisionError, match="eight"):
        seen.extend(loader)
    assert seen == [0, 2, 4, 6]
    loader.close()


def test_mixtures_change_weights_between_batches() -> None:
    def mixture() -> CombinedStreamingDataset:
        parts = [dataset_of([{"x": 1000 * part + row} for row in range(600)], 8) for part in range(2)]
        return CombinedStreamingDataset(parts, weights=[1, 0], iterate_over_all=False)

    mix = mixture()
    loader = StreamingDataLoader(mix, batch_size=10, num_workers=2)
    iterator = iter(loader)
    before = [next(iterator)["x"].tolist() for _ in range(7)]
    mix.set_weights([0, 1])
    state = loader.state_dict()
    after = [next(iterator)["x"].tolist() for _ in range(7)]
    assert list(itertools.chain(*before)) == list(range(70))
    assert list(itertools.chain(*after)) == list(range(1000, 1070))
    resumed = StreamingDataLoader(mixture(), batch_size=10)
    resumed.load_state_dict(state)
    assert [batch["x"].tolist() for batch in itertools.islice(resumed, 7)] == after
    loader.close()


def test_mixed_batches_are_columns_again() -> None:
    parts = [dataset_of([{"x": part * 100 + row, "s": f"{part}"} for row in range(12)], 4, output="torch") for part in range(2)]
    loader = StreamingDataLoader(CombinedStreamingDataset(parts), batch_size=6)
    batches = list(loader)
    assert all(isinstance(batch["x"], torch.Tensor) for batch in batches)
    assert all(int(x) // 100 == int(s) for batch in batches for x, s in zip(batch["x"], batch["s"], strict=True))
    assert all({"0", "1"} <= set(batch["s"]) for batch in batches), "every batch shows the mixture"


def test_sources_that_are_built_differently_mix_by_their_batches() -> None:
    parts = [dataset_of([{"x": row} for row in range(8)], 4), dataset_of([{"y": row} for row in range(8)], 4)]
    loader = StreamingDataLoader(CombinedStreamingDataset(parts, batching_method="per_stream"), batch_size=4)
    assert sorted(str(list(batch)) for batch in loader) == ["['x']", "['x']", "['y']", "['y']"]


def test_asking_for_lengths_changes_no_state() -> None:
    parts = [dataset_of([{"x": row} for row in range(40)], 4) for _ in range(2)]
    mix = CombinedStreamingDataset(parts, weights=[1, 1], iterate_over_all=False, batching_method="per_stream")
    loader = StreamingDataLoader(mix, batch_size=4)
    batches = iter(loader)
    next(batches)
    mix.set_weights([1, 9])
    next(batches)
    state = loader.state_dict()
    assert len(mix) >= 40
    assert len(loader) >= 10
    assert (mix.num_rows or 0) >= 40
    assert loader.state_dict() == state


def test_zips_are_pairs_of_batches() -> None:
    pairs = ParallelStreamingDataset([numbers(8), numbers(8, shuffle=True)])
    batches = list(StreamingDataLoader(pairs, batch_size=4))
    assert [type(batch) for batch in batches] == [list, list]
    assert batches[0][0]["x"].tolist() == [0, 1, 2, 3]
    endless = StreamingDataLoader(ParallelStreamingDataset([numbers(3)], length=float("inf")), batch_size=2)
    with pytest.raises(TypeError, match="no end"):
        len(endless)
    assert [batch[0]["x"].tolist() for batch in itertools.islice(endless, 3)] == [[0, 1], [2, 0], [1, 2]]


def test_padding_is_counted() -> None:
    loader = StreamingDataLoader(numbers(5), batch_size=4, last_batch="pad")
    assert [(batch["x"].tolist(), loader.num_padding) for batch in loader] == [([0, 1, 2, 3], 0), ([4, 0, 1, 2], 3)]


def test_lengths_are_equal_on_all_ranks() -> None:
    for rank in range(3):
        loader = StreamingDataLoader(numbers(20, rank=rank, world_size=3), batch_size=2, last_batch="partial")
        assert len(loader) == 4
    assert len(StreamingDataLoader(numbers(20, rank=0, world_size=3), batch_size=2)) == 3, "with several ranks the rest is dropped"


def test_small_rests_are_told() -> None:
    loader = StreamingDataLoader(numbers(13, rank=0, world_size=3), batch_size=4, last_batch="partial")
    with pytest.warns(UserWarning, match="last 1 samples are shared by 3 ranks.*2 ranks get no last batch"):
        list(loader)
    uneven = StreamingDataLoader(numbers(20, rank=0, world_size=3), global_batch_size=4)
    with pytest.warns(UserWarning, match="does not divide by 3"):
        list(uneven)


def test_two_iterations_at_once_are_told_apart() -> None:
    loader = StreamingDataLoader(numbers(20), batch_size=2)
    first = iter(loader)
    next(first)
    next(iter(loader))
    with pytest.raises(StateError, match="another iteration"):
        next(first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2, "global_batch_size": 4}, "pass one of them"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"sampler": [1]}, "sampler=… is not accepted"),
        ({"generator": 1}, "generator=…"),
        ({"batch_sampler": [1]}, "batch_sampler=…"),
        ({"drop_last": 1}, "drop_last=1"),
        ({"shuffle": "yes"}, "shuffle='yes'"),
        ({"drop_last": True, "last_batch": "pad"}, "contradict"),
        ({"last_batch": "keep"}, "partial"),
        ({"worker_kind": "fibers"}, "threads"),
        ({"output": "jax"}, "numpy"),
        ({"ragged": "cut"}, "nested"),
    ],
)
def test_arguments_that_are_not_accepted(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamingDataLoader(numbers(8), **options)


def test_only_our_datasets_are_read() -> None:
    with pytest.raises(ConfigError, match=r"torch\.utils\.data\.DataLoader for others"):
        StreamingDataLoader([1, 2, 3])  # type: ignore[arg-type]


def test_a_state_inside_a_batch_is_refused() -> None:
    dataset = numbers(20, batch_size=4)
    iterator = iter(dataset)
    next(iterator)
    loader = StreamingDataLoader(numbers(20), batch_size=4)
    loader.load_state_dict(dataset.state_dict())
    with pytest.raises(StateError, match="whole batches"):
        iter(loader)


def test_what_one_keeps_is_never_overwritten() -> None:
    loader = StreamingDataLoader(numbers(300, shuffle=True), batch_size=3, num_workers=2)
    kept = list(loader)
    copies = [batch["x"].copy() for batch in StreamingDataLoader(numbers(300, shuffle=True), batch_size=3)]
    assert all((one["x"] == other).all() for one, other in zip(kept, copies, strict=True))


def test_output_may_be_chosen_by_the_loader() -> None:
    assert isinstance(next(iter(StreamingDataLoader(numbers(4), output="torch")))["x"], torch.Tensor)
    assert isinstance(next(iter(StreamingDataLoader(numbers(4, output="torch"), output="numpy")))["x"], np.ndarray)


def test_pinning_says_when_there_is_nothing_to_pin_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="no accelerator"):
        StreamingDataLoader(numbers(4), pin_memory=True)


@pytest.mark.parametrize("kept", [False, True])
def test_an_iteration_that_is_let_go_leaves_the_next_one_alone(kept: bool) -> None:
    loader = StreamingDataLoader(numbers(100), batch_size=1, num_workers=2, persistent_workers=kept)
    first = iter(loader)
    next(first)
    second = iter(loader)
    found = [next(second)["x"].item() for _ in range(9)]
    del first
    gc.collect()
    assert found + [batch["x"].item() for batch in second] == list(range(100))
    loader.close()


def test_a_break_does_not_wait_for_what_is_fetched() -> None:
    began, go_on = threading.Event(), threading.Event()

    class Waits(DatasetStream):
        def gather(self, rows: Any, arena: Any = None) -> Any:
            if rows.row[0] > 8:
                began.set()
                assert go_on.wait(30)
            return super().gather(rows, arena)

    with patch("leyden.data.read.dataset.DatasetStream", Waits):
        loader = StreamingDataLoader(numbers(40), batch_size=4, num_workers=2)
        batches = iter(loader)
        next(batches)
        assert began.wait(30)
        loader.close()  # which would wait for the thread, and the thread for us
    go_on.set()


def test_what_was_asked_for_wins_over_a_loaded_state() -> None:
    state = StreamingDataLoader(numbers(3), batch_size=2).state_dict()
    for loader in (
        StreamingDataLoader(numbers(3), batch_size=2, drop_last=True),
        StreamingDataLoader(numbers(3, drop_last=True), batch_size=2),
    ):
        loader.load_state_dict(state)
        assert (len(loader), loader.drop_last) == (1, True)


@pytest.mark.parametrize("last", ["pad", "partial"])
def test_the_last_batch_is_filled_after_a_change_of_weights(last: Any) -> None:
    parts = [numbers(100), numbers(30)]
    mix = CombinedStreamingDataset(parts, weights=[0.5, 0.5], iterate_over_all=False)
    sizes = []
    for number, batch in enumerate(StreamingDataLoader(mix, batch_size=7, last_batch=last)):
        sizes.append(len(batch["x"]))
        if number == 1:
            mix.set_weights([0.8, 0.2])
    assert set(sizes[:-1]) == {7}
    assert (sizes[-1] == 7) is (last == "pad")


def test_more_ranks_than_samples_are_refused_where_the_rest_is_dropped() -> None:
    few = numbers(3, rank=0, world_size=4)
    for read in (lambda: list(few), lambda: list(StreamingDataLoader(few))):
        with pytest.raises(ConfigError, match="4 ranks for 3 samples"):
            read()
    assert [len(batch["x"]) for batch in StreamingDataLoader(few, last_batch="pad")] == [1]


@pytest.mark.parametrize(
    "argument",
    [
        {"batch_size": 2.5},
        {"batch_size": "4"},
        {"global_batch_size": 6.0},
        {"num_workers": 1.5},
        {"prefetch_factor": 1.5},
        {"timeout": "x"},
        {"stall_seconds": -1},
        {"stall_seconds": "x"},
        {"multiprocessing_context": "bogus"},
        {"persistent_workers": "x"},
        {"collate_fn": 3},
        {"worker_init_fn": 3},
        {"profile_batches": -1, "num_workers": 1},
    ],
)
def test_arguments_of_a_wrong_kind_are_told(argument: dict[str, Any]) -> None:
    (name, value), *_ = argument.items()
    with pytest.raises((ConfigError, ConfigTypeError), match=f"{name}={value!r} is not accepted"):
        StreamingDataLoader(numbers(4), **argument)
