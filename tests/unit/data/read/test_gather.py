"""Rows of a tray, in any order and from many blocks, are the rows that were written."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.data.read.blocks import OpenBlocks
from leyden.data.read.columns import Dense, Objects, Ragged
from leyden.data.read.gather import gather, group_by_block, groups
from leyden.data.read.row import Samples
from tests.support.array_source import ArraySource

RNG = np.random.default_rng(0)
VALUES: dict[str, Any] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "str": st.text(max_size=8),
    "bytes": st.binary(max_size=8),
    "ints": st.lists(st.integers(-99, 99), min_size=1, max_size=5),
    "strings": st.lists(st.text(max_size=4), min_size=1, max_size=3),
    "vector": st.just(None).map(lambda _: RNG.normal(size=3).astype(np.float32)),
    "ragged": st.integers(0, 5).map(lambda n: np.arange(n, dtype=np.int16)),
    "images": st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda shape: RNG.integers(0, 255, (*shape, 3)).astype(np.uint8)),
    "wide": st.just(None).map(lambda _: RNG.normal(size=(10, 10))),
}


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and found.dtype == expected.dtype and np.array_equal(found, expected)
    return type(found) is type(expected) and found == expected


def read(source: ArraySource, rows: np.ndarray[Any, Any], **options: Any) -> list[Any]:
    samples = Samples(source.schema.tree, source.schema.leaves, output="numpy", **options)
    blocks = OpenBlocks(source, 10**9)
    columns = gather(list(groups(blocks.open, source.table.first_row, rows)), samples.wanted, len(rows))
    return samples.values(columns, 0, len(rows))


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_every_kind_of_leaf_comes_back(kind: str, nullable: bool, data: st.DataObject) -> None:
    value = VALUES[kind] | st.none() if nullable else VALUES[kind]
    values = data.draw(st.lists(value, min_size=1, max_size=12).filter(lambda each: any(item is not None for item in each)))
    source = ArraySource([{"x": item} for item in values], data.draw(st.integers(1, 5)))
    rows = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), max_size=20)), np.int64)
    found = read(source, rows)
    assert all(equal(sample["x"], values[row]) for sample, row in zip(found, rows, strict=True))
    assert len(found) == len(rows)


def test_rows_are_grouped_by_block_with_their_places() -> None:
    blocks, borders, order = group_by_block(np.array([0, 3, 3, 5]), np.array([4, 0, 6, 3, 0]))
    assert blocks.tolist() == [0, 2, 3]
    assert borders.tolist() == [0, 2, 4, 5]
    assert order.tolist() == [1, 4, 0, 3, 2]


def test_each_block_is_fetched_once_per_tray_and_kept() -> None:
    source = ArraySource([{"x": number} for number in range(100)], 10)
    blocks = OpenBlocks(source, 10**9)
    for _ in range(2):
        list(groups(blocks.open, source.table.first_row, np.arange(99, 20, -3)))
    assert sorted(source.fetched) == list(range(2, 10))


def test_blocks_beyond_the_budget_make_room() -> None:
    source = ArraySource([{"x": "text" * 100} for _ in range(400)], 10)
    blocks = OpenBlocks(source, 10_000)
    for number in range(40):
        blocks.open(number).text(0)
    assert 1 <= sum(blocks.has(number) for number in range(40)) <= 12
    assert blocks.has(39)


def test_columns_choose_leaves_and_keep_the_tree() -> None:
    source = ArraySource([{"b": 1, "a": "x", "c": [1, 2]} for _ in range(3)], 2)
    assert read(source, np.array([2, 0]), columns=["c", "b"]) == [{"b": 1, "c": [1, 2]}] * 2


def test_encoded_leaves_can_be_left_encoded() -> None:
    source = ArraySource([{"j": b'{"a": 1}', "t": "text"} for _ in range(2)], 1, {"j": "json"})
    assert read(source, np.array([1]), decode=False) == [{"j": {"a": 1}, "t": "text"}], "JSON is no medium"
    files = ArraySource([{"j": b"\xff\xd8"} for _ in range(2)], 1, {"j": "jpeg"})
    assert read(files, np.array([1]), decode=False) == [{"j": b"\xff\xd8"}]
    assert read(source, np.array([1]), decode={"j": False}) == [{"j": b'{"a": 1}', "t": "text"}]


def test_a_column_of_one_shape_is_dense_and_slices_are_views() -> None:
    values = np.arange(12.0).reshape(6, 2)
    column = Dense(values, None, "float64")
    assert np.shares_memory(column.slice(2, 4).values, values)


def test_a_slice_of_a_ragged_column_with_equal_shapes_is_dense() -> None:
    column = Ragged(np.arange(7), np.array([0, 2, 4, 7]))
    dense = column.slice(0, 2)
    assert isinstance(dense, Dense)
    assert dense.values.tolist() == [[0, 1], [2, 3]]
    assert isinstance(column.slice(1, 3), Ragged)
    assert column.slice(2, 3).rows == 1


def test_arrays_lie_where_the_arena_says() -> None:
    source = ArraySource([{"x": np.ones(3)} for _ in range(4)], 2)
    samples = Samples(source.schema.tree, source.schema.leaves, output="numpy")
    place = bytearray(4 * 3 * 8)
    chosen = list(groups(OpenBlocks(source, 10**9).open, source.table.first_row, np.arange(4)))
    found = gather(chosen, samples.wanted, 4, lambda size: memoryview(place)[:size])
    assert np.frombuffer(place).tolist() == [1.0] * 12
    assert isinstance(found[0], Dense)


def test_text_that_is_not_ascii_is_right_too() -> None:
    source = ArraySource([{"x": "ä" * number} for number in range(5)], 5)
    assert [sample["x"] for sample in read(source, np.array([4, 1]))] == ["ääää", "ä"]


def test_objects_say_what_they_are() -> None:
    source = ArraySource([{"b": b"1", "s": "2", "l": ["3"]} for _ in range(2)], 2)
    samples = Samples(source.schema.tree, source.schema.leaves, output="numpy")
    columns = gather(list(groups(OpenBlocks(source, 10**9).open, source.table.first_row, np.arange(2))), samples.wanted, 2)
    assert [column.kind for column in columns if isinstance(column, Objects)] == ["bytes", "list", "str"]
