"""`StreamingDataset`: what every argument and method of the documented interface does."""

import copy
import itertools
import pickle
import random
import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, ConfigTypeError, ConflictError, NotFoundError, StateError, UnsupportedError
from leyden.data import CombinedStreamingDataset
from leyden.data.config import ParquetLoader, TokensLoader
from leyden.data.read.dataset import StreamingDataset
from tests.support.array_dataset import dataset_of, numbers, opened, xs
from tests.support.array_source import ArraySource


def test_samples_by_number_slice_list_and_from_the_end() -> None:
    dataset = numbers(10)
    assert dataset[3] == {"x": 3}
    assert dataset[-1] == {"x": 9}
    assert xs(dataset[2:5]) == [2, 3, 4]
    assert xs(dataset[::-4]) == [9, 5, 1]
    assert xs(dataset[[7, 0, -2]]) == [7, 0, 8]
    with pytest.raises(IndexError, match="index 10 is out of range: the dataset has 10 samples"):
        dataset[10]


def test_iterating_hands_out_all_samples_in_order_each_time() -> None:
    dataset = numbers(50)
    assert xs(dataset) == xs(dataset) == list(range(50))
    assert len(dataset) == dataset.num_rows == 50


def test_deleted_rows_are_not_counted_and_not_read() -> None:
    dataset = numbers(10, deleted=[0, 4, 5, 9])
    assert xs(dataset) == [1, 2, 3, 6, 7, 8]
    assert dataset[3] == {"x": 6}
    assert len(dataset) == 6


def test_take_is_columnar() -> None:
    dataset = dataset_of([{"x": number, "t": str(number), "v": np.arange(number)} for number in range(5)])
    taken = dataset.take([4, 2])
    assert taken["x"].tolist() == [4, 2]
    assert taken["t"] == ["4", "2"]
    assert [each.tolist() for each in taken["v"]] == [[0, 1, 2, 3], [0, 1]]


def test_a_subset_is_a_dataset_in_the_order_given() -> None:
    dataset = numbers(20).subset([5, 6, 7, 3, 19])
    assert xs(dataset) == [5, 6, 7, 3, 19]
    assert len(dataset) == 5
    assert xs(dataset.subset(slice(1, 4))) == [6, 7, 3]


def test_keys_find_samples_where_there_are_some() -> None:
    with opened(ArraySource([{"x": 1}, {"x": 2}], 1), find_key={"one": 0, "two": 1}.__getitem__):
        assert StreamingDataset("memory://keys", output="numpy")["two"] == {"x": 2}
    with pytest.raises(NotFoundError, match="has no keys"):
        numbers(3)["two"]


def test_subsample_takes_a_part_or_copies() -> None:
    assert xs(numbers(20, subsample=0.25)) == [0, 1, 2, 3, 4]
    assert xs(numbers(4, subsample=2.5)) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    for wrong in (0, -1, True):
        with pytest.raises(ConfigError, match="it takes a number > 0"):
            numbers(4, subsample=wrong)
    with pytest.raises(ConfigError, match="of 4 rows leaves none"):
        numbers(4, subsample=0.1)


@given(
    rows=st.integers(0, 60),
    world=st.integers(1, 5),
    batch=st.integers(1, 4),
    workers=st.integers(1, 4),
    drop=st.sampled_from([True, False]),
)
def test_ranks_and_workers_hand_out_every_sample_once(rows: int, world: int, batch: int, workers: int, drop: bool) -> None:
    found: list[int] = []
    for rank in range(world):
        dataset = numbers(rows + 1, rank=rank, world_size=world, batch_size=batch, drop_last=drop)
        share = dataset._share()
        mine = [xs(dataset._iterate(replace(share, worker=worker, num_workers=workers), 0)) for worker in range(workers)]
        assert sum(map(len, mine)) == len(dataset)
        found += itertools.chain.from_iterable(mine)
    size = world * batch
    kept = (rows + 1) // size * size if drop else rows + 1
    assert sorted(found) == list(range(kept))


def test_a_rank_gets_its_slice_of_every_global_batch() -> None:
    assert xs(numbers(11, rank=1, world_size=2, batch_size=2, drop_last=False)) == [2, 3, 6, 7, 9, 10]
    assert xs(numbers(11, rank=1, world_size=2, batch_size=2)) == [2, 3, 6, 7]  # several ranks: the default drops


def test_workers_take_turns_by_batch() -> None:
    dataset = numbers(10, batch_size=2)
    assert xs(dataset._iterate(replace(dataset._share(), worker=1, num_workers=2), 0)) == [2, 3, 6, 7]


@pytest.mark.parametrize("steps", [0, 1, 7, 19, 20])
def test_a_state_goes_on_where_it_was_taken(steps: int) -> None:
    dataset = numbers(20)
    iterator = iter(dataset)
    done = [next(iterator)["x"] for _ in range(steps)]
    other = numbers(20)
    other.load_state_dict(dataset.state_dict())
    assert done + xs(other) == list(range(20))
    assert other.state_dict()["num_samples_yielded"] == 20 - steps


def test_a_state_serves_another_world_size() -> None:
    found = []
    states = []
    for rank in range(2):
        dataset = numbers(24, rank=rank, world_size=2)
        iterator = iter(dataset)
        found += [next(iterator)["x"] for _ in range(5)]
        states.append(dataset.state_dict())
    assert states[0] == states[1]
    for rank in range(3):
        dataset = numbers(24, rank=rank, world_size=3, drop_last=False)
        dataset.load_state_dict(states[0])
        found += xs(dataset)
    assert sorted(found) == list(range(24))


def test_a_state_within_a_batch_skips_what_this_rank_had() -> None:
    dataset = numbers(20, batch_size=4)
    iterator = iter(dataset)
    done = [next(iterator)["x"] for _ in range(6)]
    state = dataset.state_dict()
    assert (state["consumed"], state["within"]) == (4, 2)
    other = numbers(20, batch_size=4)
    other.load_state_dict(state)
    assert done + xs(other) == list(range(20))


def test_a_state_twice_removed_is_right_too() -> None:
    first = numbers(20)
    iterator = iter(first)
    done = [next(iterator)["x"] for _ in range(6)]
    second = numbers(20)
    second.load_state_dict(first.state_dict())
    iterator = iter(second)
    done += [next(iterator)["x"] for _ in range(6)]
    third = numbers(20)
    third.load_state_dict(second.state_dict())
    assert done + xs(third) == list(range(20))


def test_a_state_of_other_data_is_refused_with_the_differences() -> None:
    state = numbers(20).state_dict()
    with pytest.raises(ConflictError, match="num_rows: 20 then, 19 now"):
        numbers(19).load_state_dict(state)
    with pytest.raises(ConflictError, match="selection"):
        numbers(20).subset(slice(0, 20, 2)).load_state_dict(state)
    with pytest.raises(ConfigError, match="no state of a dataset of Leyden"):
        numbers(20).load_state_dict({"epoch": 1})


def test_the_order_of_a_state_wins_unless_it_is_forced() -> None:
    state = numbers(20, seed=7).state_dict()
    dataset = numbers(20)
    with pytest.warns(UserWarning, match=r"the state's order wins .*seed=7"):
        dataset.load_state_dict(state)
    assert dataset.state_dict()["order"]["seed"] == 7
    forced = numbers(20, force_override_state_dict=True)
    forced.load_state_dict(state)
    assert forced.state_dict()["order"]["seed"] == 42


def test_set_epoch_keeps_a_loaded_position_of_the_same_epoch_and_drops_another() -> None:
    dataset = numbers(20)
    iterator = iter(dataset)
    next(iterator)
    state = dataset.state_dict()
    dataset.load_state_dict(state)
    dataset.set_epoch(1)
    assert xs(dataset) == list(range(1, 20))
    dataset.load_state_dict(state)
    with pytest.warns(UserWarning, match=r"set_epoch\(2\): the loaded position is of epoch 1"):
        dataset.set_epoch(2)
    assert xs(dataset) == list(range(20))
    assert dataset.current_epoch == 2


def test_reset_forgets_the_position() -> None:
    dataset = numbers(5)
    next(iter(dataset))
    dataset.reset()
    assert dataset.state_dict()["consumed"] == 0


def test_the_state_of_torchs_workers_is_told_by_the_count() -> None:
    dataset = numbers(100, batch_size=4)
    assert dataset.state_dict(num_samples_yielded=20, num_workers=3, batch_size=4)["consumed"] == 20
    plain = numbers(100)
    assert plain.state_dict(num_samples_yielded=24, num_workers=3, batch_size=4)["consumed"] == 24
    with pytest.raises(StateError, match=r"Pass StreamingDataset\(batch_size=4\)"):
        plain.state_dict(num_samples_yielded=20, num_workers=3, batch_size=4)


def test_it_pickles_and_copies_as_configuration() -> None:
    dataset = numbers(10, rank=1, world_size=2)
    for twin in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert xs(twin) == xs(dataset) == [1, 3, 5, 7, 9]


def test_a_pickled_dataset_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = numbers(10)
    dataset.set_placement(1, 2)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert xs(pickle.loads(pickle.dumps(dataset))) == [1, 3, 5, 7, 9]


class Doubled(StreamingDataset):
    def transform(self, sample: Any) -> Any:
        return {"x": 2 * sample["x"]}


def test_transforms_are_functions_chains_or_a_method() -> None:
    assert xs(numbers(3, transform=lambda sample: {"x": sample["x"] + 1})) == [1, 2, 3]
    chain = [lambda sample: {"x": sample["x"] + 1}, lambda sample: {"x": sample["x"] * 10}]
    assert xs(numbers(3, transform=chain)) == [10, 20, 30]
    with opened(ArraySource([{"x": 1}], 1)):
        assert Doubled("memory://x", output="numpy")[0] == {"x": 2}
    with pytest.raises(ConfigError, match="it takes a function, or a list of functions"):
        numbers(3, transform=5)


def test_arguments_that_are_replaced_warn_and_wrong_ones_are_refused() -> None:
    for arguments, message in (
        ({"num_canonical_nodes": 2}, "num_canonical_nodes=…"),
        ({"batch_decode": True}, "batch_decode=…"),
        ({"item_shuffle_window": 8}, "item_shuffle_window=…"),
    ):
        with pytest.warns(UserWarning, match=message):
            numbers(3, **arguments)
    with pytest.raises(UnsupportedError, match="window_direct_io"):
        numbers(3, window_direct_io=True)
    with pytest.warns(UserWarning, match="ParquetLoader"):
        numbers(3, item_loader=ParquetLoader(pre_load_chunk=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shuffle": "yes"}, "shuffle='yes'"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"lanes": 3}, "power of two"),
        ({"window": 0}, "window=0"),
        ({"order": "random"}, "order='random'"),
        ({"order": "sequential", "shuffle": True}, "contradict"),
        ({"output": "jax"}, "output='jax'"),
        ({"verify": "sometimes"}, "verify='sometimes'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"connections": 0}, "connections=0"),
        ({"rank": 2, "world_size": 2}, "rank=2"),
        ({"rank": 0}, "give both"),
        ({"session_options": {"aws_secret": 1}}, "session_options"),
        ({"ram_bytes": "lots"}, "ram_bytes='lots'"),
        ({"item_loader": 5}, "item_loader=5"),
        ({"item_loader": TokensLoader}, "needs block_size"),
        ({"item_loader": TokensLoader(4)}, "written with item_loader=TokensLoader"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        numbers(3, **arguments)


def test_tokens_are_windows_across_documents() -> None:
    documents = [{"tokens": np.arange(start, start + 5, dtype=np.int32)} for start in range(0, 50, 5)]
    with opened(ArraySource(documents, 3, tokens=True)):
        dataset = StreamingDataset("memory://t", item_loader=TokensLoader(block_size=8), output="numpy")
        with_documents = StreamingDataset("memory://t", item_loader=TokensLoader(8, document_ids=True), output="numpy")
    assert len(dataset) == 6
    assert np.concatenate(list(dataset)).tolist() == list(range(48))
    assert with_documents[1]["document"].tolist() == [1, 1, 2, 2, 2, 2, 2, 3]
    assert with_documents[1]["position"].tolist() == [3, 4, 0, 1, 2, 3, 4, 0]


def test_few_python_calls_per_sample() -> None:
    dataset, calls = numbers(4000, per_block=500), 0
    list(dataset)

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        for _ in dataset:
            pass
    finally:
        sys.setprofile(None)
    assert calls <= 4 * 4000  # two generators that go on, and building the sample


def test_shuffled_epochs_hold_every_sample_once_and_differ() -> None:
    dataset = numbers(500, per_block=7, shuffle=True, lanes=8)
    first = xs(dataset)
    assert sorted(first) == list(range(500)) != first
    assert xs(dataset) == first  # a bare dataset stays at its epoch
    dataset.set_epoch(2)
    second = xs(dataset)
    assert sorted(second) == list(range(500))
    assert second != first


@given(
    rows=st.integers(1, 200),
    worlds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    batch=st.integers(1, 3),
    steps=st.integers(0, 10),
    kind=st.sampled_from(["shuffle", "lanes"]),
)
def test_going_on_with_another_world_size_loses_and_repeats_nothing(
    rows: int, worlds: tuple[int, int], batch: int, steps: int, kind: str
) -> None:
    options: dict[str, Any] = {"lanes": 4, "window": 2, "drop_last": False, "batch_size": batch}
    options |= {"shuffle": True} if kind == "shuffle" else {"order": "lanes"}
    steps = min(steps, rows // (worlds[0] * batch))
    found, states = [], []
    for rank in range(worlds[0]):
        dataset = numbers(rows, per_block=5, rank=rank, world_size=worlds[0], **options)
        iterator = iter(dataset)
        found += [int(next(iterator)["x"]) for _ in range(steps * batch)]
        states.append(dataset.state_dict())
    assert all(state == states[0] for state in states)
    for rank in range(worlds[1]):
        dataset = numbers(rows, per_block=5, rank=rank, world_size=worlds[1], **options)
        dataset.load_state_dict(states[0])
        found += xs(dataset)
    assert sorted(found) == list(range(rows))


def test_subsets_and_subsamples_are_shuffled_too() -> None:
    dataset = numbers(100, shuffle=True).subset(slice(10, 60))
    assert sorted(xs(dataset)) == list(range(10, 60))
    drawn = numbers(100, per_block=5, shuffle=True, subsample=0.2)
    assert len(set(xs(drawn))) == 20
    assert len({x // 5 for x in xs(drawn)}) == 4  # whole blocks
    assert sorted(xs(numbers(10, shuffle=True, subsample=2.0))) == sorted([*range(10)] * 2)


def test_rng_of_a_sample_depends_on_seed_epoch_row_and_copy_alone() -> None:
    def noisy(sample: dict[str, int], rng: Any) -> dict[str, int]:
        return {"x": sample["x"], "r": int(rng.numpy.integers(10**9))}

    dataset = numbers(40, transform=noisy, shuffle=True)
    found = {sample["x"]: sample["r"] for sample in dataset}
    assert len(set(found.values())) == 40
    assert all(dataset[number]["r"] == found[number] for number in range(40))
    dataset.set_epoch(2)
    assert all(dataset[number]["r"] != found[number] for number in range(40))


def test_global_generators_are_seeded_per_sample_and_put_back() -> None:
    def noisy(sample: dict[str, int]) -> dict[str, Any]:
        return {"x": sample["x"], "r": (random.random(), float(np.random.rand()))}

    random.seed(1)
    before = random.getstate()
    dataset = numbers(20, transform=noisy)
    found = [sample["r"] for sample in dataset]
    assert random.getstate() == before
    assert [sample["r"] for sample in dataset[::-1]] == found[::-1]
    assert len(set(found)) == 20


def test_a_failing_transform_names_its_row() -> None:
    def fails(sample: dict[str, int]) -> dict[str, int]:
        return {"x": 1 // (sample["x"] - 7)}

    with pytest.raises(ZeroDivisionError) as raised:
        list(numbers(10, transform=fails))
    assert raised.value.__notes__ == ["while transforming row 7 (copy 0) in epoch 1"]


def test_a_mask_chooses_and_fractions_do_not() -> None:
    dataset = numbers(20)
    assert xs(dataset.subset(np.arange(20) >= 18)) == [18, 19]
    assert xs(dataset.subset([])) == []
    with pytest.raises(IndexError, match="a mask of 3 values does not fit: the dataset has 20 samples"):
        dataset.subset(np.array([True, False, True]))
    for index in (1.7, [1.7], None):
        with pytest.raises(ConfigTypeError, match="is not accepted: it takes whole numbers"):
            dataset[index]


def test_copies_find_their_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = numbers(20)
    others = [dataset.subset(range(20)), copy.copy(dataset), copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [len(other) for other in others] == [10] * 4


def test_a_copy_stands_where_it_was_made_and_goes_its_own_way() -> None:
    dataset = numbers(6)
    iterator = iter(dataset)
    next(iterator)
    other = copy.copy(dataset)
    next(iterator)
    assert (other.state_dict()["consumed"], dataset.state_dict()["consumed"]) == (1, 2)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("subsample", "0.5"),
        ("subsample", float("inf")),
        ("batch_size", "4"),
        ("batch_size", 2.5),
        ("connections", None),
        ("lanes", "64"),
        ("lanes", 8.0),
        ("window", None),
        ("max_pre_download", -1),
        ("version", "1"),
        ("version", 0),
        ("drop_last", "yes"),
        ("max_cache_size", "x"),
        ("max_cache_size", []),
        ("trust", "no"),
        ("decode", "no"),
        ("storage_options", "x"),
        ("serializers", 3),
        ("columns", "x"),
        ("force_override_state_dict", 1),
    ],
)
def test_arguments_of_a_wrong_kind_are_told(argument: str, value: Any) -> None:
    with pytest.raises((ConfigError, ConfigTypeError), match=f"{argument}={re.escape(repr(value))} is not accepted"):
        numbers(4, **{argument: value})


@pytest.mark.parametrize("argument", [{"columns": ["x", "y"]}, {"decode": {"y": False}}])
def test_leaves_that_are_not_there_are_told(argument: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"this dataset has no leaf 'y'. It has 'x'"):
        numbers(4, **argument)


@pytest.mark.parametrize("state", [None, 3, {}, {"format": 1, "consumed": 0}, {"dataset": {}, "num_samples_yielded": 3}])
def test_what_is_no_state_is_told(state: Any) -> None:
    with pytest.raises(ConfigError, match="this is no state of a dataset of Leyden"):
        numbers(4).load_state_dict(state)


def test_a_state_of_several_datasets_is_none_of_one() -> None:
    several = CombinedStreamingDataset([numbers(4), numbers(4)]).state_dict()
    with pytest.raises(ConflictError, match="of 2 datasets that were read together, and this is one"):
        numbers(4).load_state_dict(several)
