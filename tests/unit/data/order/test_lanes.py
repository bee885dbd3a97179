"""The order of an epoch: each row once, the same for any number of ranks, from any position on."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.data.order.lanes import LaneOrder, slice_for


@dataclass
class Pieces:
    first: NDArray[np.int64]
    rows: NDArray[np.int64]
    copy: NDArray[np.int64]


def pieces(lengths: list[int], copies: int = 1) -> Pieces:
    rows = np.array(lengths * copies, np.int64)
    first = np.concatenate([np.cumsum(lengths) - lengths] * copies).astype(np.int64)
    return Pieces(first, rows, np.repeat(np.arange(copies), len(lengths)))


orders = st.builds(
    lambda lengths, seed, lanes, window, shuffle: LaneOrder(pieces(lengths), seed=seed, shuffle=shuffle, lanes=lanes, window=window),
    st.lists(st.integers(1, 30), min_size=1, max_size=40),
    st.integers(0, 2**63),
    st.sampled_from([1, 2, 8, 64, 128]),
    st.integers(1, 5),
    st.booleans(),
)


def test_the_order_is_that_of_the_format() -> None:
    order = LaneOrder(pieces([5] * 4), seed=42, shuffle=True, lanes=4, window=2)
    rows, _, lanes = order.rows(1, 0, 20)
    assert rows.tolist() == [19, 8, 10, 3, 15, 9, 13, 1, 17, 6, 12, 2, 18, 5, 11, 4, 16, 7, 14, 0]
    assert rows[:8][np.lexsort((np.arange(8), lanes[:8]))].tolist() == [19, 15, 10, 13, 8, 9, 3, 1]


@given(orders, st.integers(0, 5))
def test_every_row_comes_once(order: LaneOrder, epoch: int) -> None:
    rows, copies, _ = order.rows(epoch, 0, order.num_rows)
    assert sorted(rows.tolist()) == list(range(order.num_rows))
    assert not copies.any()


@given(orders, st.data())
def test_any_part_read_alone_is_that_part_of_the_whole(order: LaneOrder, data: st.DataObject) -> None:
    whole = order.rows(3, 0, order.num_rows)[0].tolist()
    fresh = pickle.loads(pickle.dumps(order))
    start = data.draw(st.integers(0, order.num_rows))
    stop = data.draw(st.integers(start, order.num_rows + 5))
    assert fresh.rows(3, start, stop)[0].tolist() == whole[start:stop]


@given(orders, st.lists(st.integers(1, 17), min_size=1, max_size=20))
def test_other_batch_sizes_give_the_same_sequence(order: LaneOrder, sizes: list[int]) -> None:
    whole, found, at = order.rows(1, 0, order.num_rows)[0].tolist(), [], 0
    for size in sizes:
        found += order.rows(1, at, at + size)[0].tolist()
        at += size
    assert found == whole[:at]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(2, 4))
def test_copies_are_rows_of_their_own(lengths: list[int], copies: int) -> None:
    order = LaneOrder(pieces(lengths, copies), seed=1, shuffle=True, lanes=4, window=2)
    rows, numbers, _ = order.rows(1, 0, order.num_rows)
    assert sorted(zip(rows.tolist(), numbers.tolist(), strict=True)) == [(r, c) for r in range(sum(lengths)) for c in range(copies)]


@given(st.integers(1, 64), st.integers(0, 300))
def test_shares_of_a_batch_meet_and_cover_it(world_size: int, rows: int) -> None:
    shares = [slice_for(rank, world_size, rows) for rank in range(world_size)]
    assert [0, *(stop for _, stop in shares)] == [*(start for start, _ in shares), rows]
    assert max(b - a for a, b in shares) - min(b - a for a, b in shares) <= 1


def test_epochs_and_seeds_differ() -> None:
    one, two = (LaneOrder(pieces([20] * 10), seed=seed, shuffle=True, lanes=8) for seed in (1, 2))
    assert len({tuple(each.rows(epoch, 0, 200)[0].tolist()) for each in (one, two) for epoch in (1, 2)}) == 4


def test_a_run_of_positions_is_on_all_lanes() -> None:
    order = LaneOrder(pieces([64] * 64), seed=1, shuffle=True, lanes=64)
    lanes = order.rows(1, 640, 640 + 64)[2]
    assert sorted(lanes.tolist()) == list(range(64))


@pytest.mark.parametrize("options", [{"lanes": 3}, {"lanes": 0}, {"window": 0}])
def test_what_makes_no_order_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="such as"):
        LaneOrder(pieces([4]), seed=1, shuffle=True, **options)
