"""Mixed streams: rows follow the mixture, every batch is stratified, and samples come back in that order."""

from typing import final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.data.order.mixture import Picks
from leyden.data.read.combined import MixedStream
from leyden.data.read.stream import delivered, delivered_to
from tests.support.array_dataset import dataset_of


@final
class Turns:
    """A mixture in which sources take turns as a list says, again and again."""

    def __init__(self, turns: list[int], num_rows: int, sizes: list[int]) -> None:
        self._num_rows = num_rows
        self._turns, self._sizes = turns, sizes

    def rows_in(self, epoch: int) -> int:
        del epoch
        return self._num_rows

    def picks(self, epoch: int, start: int, stop: int) -> Picks:
        source = np.resize(np.array(self._turns, np.int32), self._num_rows)
        own = np.zeros(len(source), np.int64)
        for index in set(self._turns):
            own[source == index] = np.arange((source == index).sum())
        size = np.array(self._sizes)[source]
        chosen = slice(start, min(stop, len(source)))
        return Picks(source[chosen], (own % size)[chosen], (1 + own // size)[chosen])


def stream_of(turns: list[int], num_rows: int, sizes: list[int], *, shuffle: bool = False) -> MixedStream:
    parts = [
        dataset_of([{"x": 1000 * index + number} for number in range(size)], 3, shuffle=shuffle, lanes=2).stream()
        for index, size in enumerate(sizes)
    ]
    return MixedStream(parts, Turns(turns, num_rows, sizes))


def test_samples_follow_the_mixture_and_sources_begin_anew() -> None:
    stream = stream_of([0, 0, 1], 9, [4, 2])
    rows = stream.positions(1, 0, 9)
    values = [sample["x"] for sample in stream.gather(rows).values(0, 9)]
    assert values == [0, 1, 1000, 2, 3, 1001, 0, 1, 1000]
    assert [sample["x"] for sample in stream.gather(rows).values(4, 8)] == values[4:8]


@given(
    turns=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=3),
    size=st.integers(1, 12),
    shuffle=st.booleans(),
)
def test_batches_hold_their_positions_and_spread_the_sources(turns: list[int], sizes: list[int], size: int, shuffle: bool) -> None:
    num_rows = sum(sizes)
    stream = stream_of(turns, num_rows, sizes, shuffle=shuffle)
    batches = []
    for start in range(0, num_rows - size + 1, size):
        rows = delivered(stream, 1, start, size)
        plain = stream.positions(1, start, start + size)
        assert sorted(zip(rows.part, rows.row, strict=True)) == sorted(zip(plain.part, plain.row, strict=True))
        for source in range(3):
            places = np.flatnonzero(rows.part == source)
            expected = (np.arange(len(places)) + 0.5) / max(1, len(places)) * size
            assert np.all(np.abs(places + 0.5 - expected) <= 3)  # sources
        batches.append(rows)
        assert stream.gather(rows).values(0, size) == [stream.gather(rows.cut(slice(at, at + 1))).values(0, 1)[0] for at in range(size)]
    steps = len(batches)
    for rank in range(2):
        rows = delivered_to(stream, 1, (0, steps * size), size, (rank, 2))
        low, high = rank * size // 2, (rank + 1) * size // 2
        assert rows.row.tolist() == [row for batch in batches for row in batch.row[low:high].tolist()]


@pytest.mark.parametrize("size", [10])
def test_every_rank_sees_the_mixture(size: int) -> None:
    stream = stream_of([0, 0, 0, 0, 1], 100, [80, 20])
    parts = delivered(stream, 1, 0, size).part
    assert [int((half == 1).sum()) for half in (parts[:5], parts[5:])] == [1, 1]


def test_needs_are_the_blocks_of_all_sources() -> None:
    stream = stream_of([0, 1], 8, [10, 10])
    needs = stream.needs(stream.positions(1, 0, 8))
    assert list(zip(needs.part.tolist(), needs.block.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
