"""Selections: runs stay what the list of their rows would be, whatever is done to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.data.format.table import BlockTable
from leyden.data.read.split import train_test_split
from leyden.data.read.subset import Runs, choose_unit_blocks, split_runs, unit_borders
from tests.support.array_dataset import numbers, xs

ROWS = st.lists(st.integers(0, 50), max_size=40)


def listed(runs: Runs) -> list[int]:
    return runs.at(np.arange(runs.num_rows))[0].tolist()


def of(rows: list[int]) -> Runs:
    return Runs.of_rows(np.array(rows, np.int64), np.zeros(len(rows), np.int64))


@given(rows=ROWS)
def test_runs_hold_rows_in_order(rows: list[int]) -> None:
    assert listed(of(rows)) == rows
    assert len(of(rows).first) <= max(1, len(rows))


@given(num=st.integers(0, 40), data=st.data())
def test_deleted_rows_are_left_out(num: int, data: st.DataObject) -> None:
    gone = sorted(data.draw(st.sets(st.integers(0, num - 1)))) if num else []
    assert listed(Runs.all_of(num, np.array(gone, np.int64))) == [row for row in range(num) if row not in gone]


@given(rows=ROWS, data=st.data())
def test_taking_and_cutting_are_those_of_lists(rows: list[int], data: st.DataObject) -> None:
    runs = of(rows)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(rows)), st.integers(0, len(rows)))))
    assert listed(runs.between(start, stop)) == rows[start:stop]
    if rows:
        places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
        assert listed(runs.take(np.array(places, np.int64))) == [rows[place] for place in places]


@given(rows=ROWS, borders=st.sets(st.integers(1, 50)))
def test_pieces_hold_the_same_rows_and_cross_no_border(rows: list[int], borders: set[int]) -> None:
    edges = np.array(sorted({0, *borders}), np.int64)
    pieces = of(rows).cut(edges)
    assert listed(pieces) == rows
    unit = np.searchsorted(edges, pieces.first, side="right")
    assert np.array_equal(unit, np.searchsorted(edges, pieces.first + pieces.rows - 1, side="right"))


def test_equal_selections_have_equal_digests() -> None:
    assert of([1, 2, 3]).digest == Runs(np.array([1]), np.array([3])).digest
    assert of([1, 2, 3]).digest != of([1, 2]).digest


def table(chunks: list[int]) -> BlockTable:
    chunk = np.repeat(np.arange(len(chunks)), chunks).astype(np.int32)
    first = np.arange(len(chunk)) * 10
    return BlockTable(chunk, first, np.full(len(chunk), 10), first, np.full(len(chunk), 10), None)


def test_units_are_blocks_of_one_chunk() -> None:
    assert unit_borders(table([3, 2, 5]), 2).tolist() == [0, 20, 30, 50, 70, 90]
    assert choose_unit_blocks(table([3, 2, 5]), 8) == 8


def test_units_are_doubled_until_they_are_few() -> None:
    assert choose_unit_blocks(table([300_000]), 1) == 2
    assert choose_unit_blocks(table([2**18]), 1) == 1


def test_parts_without_shuffle_follow_one_another() -> None:
    parts = train_test_split(numbers(11), [0.5, 0.3], shuffle=False)
    assert [xs(part) for part in parts] == [[0, 1, 2, 3, 4], [5, 6, 7]]


@given(rows=st.integers(10, 200), splits=st.lists(st.floats(0.1, 0.4), min_size=1, max_size=2), seed=st.integers(0, 9))
def test_parts_are_disjoint_of_exact_size_and_made_of_whole_units(rows: int, splits: list[float], seed: int) -> None:
    borders = np.arange(0, rows, 7)
    parts = split_runs(Runs.all_of(rows), splits, borders, seed)
    found = [row for part in parts for row in listed(part)]
    assert [part.num_rows for part in parts] == [int(rows * each + 1e-9) for each in splits]
    assert len(found) == len(set(found))
    cut_units = {row // 7 for row in found} & {row // 7 for row in set(range(rows)) - set(found)}
    assert len(cut_units) <= 1 + len(splits)


@pytest.mark.parametrize(
    ("splits", "message"),
    [([1, "a"], "Each split should be a float"), ([0.9, 0.2], "their sum is at most 1"), ([-0.1], "each is in"), ([], "each is in")],
)
def test_splits_that_are_no_fractions_are_refused(splits: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_test_split(numbers(10), splits)


def test_an_empty_part_warns_and_other_things_cannot_be_split() -> None:
    with pytest.warns(UserWarning, match="is empty"):
        train_test_split(numbers(10), [1.0, 0.0], shuffle=False)
    with pytest.raises(ConfigError, match=r"a split of 0.01 of 10 rows is empty"):
        train_test_split(numbers(10), [0.01], shuffle=False)
    with pytest.raises(ConfigError, match="should be a float"):
        train_test_split(numbers(10), ["a"], shuffle=False)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="only a StreamingDataset can be split"):
        train_test_split([1, 2], [0.5])  # type: ignore[arg-type]
