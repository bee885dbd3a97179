"""Windows of tokens are slices of the concatenated stream, wherever blocks and documents end."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.data import StreamingDataset, TokensLoader, delete_rows, optimize
from leyden.data.read.blocks import OpenBlocks
from leyden.data.read.tokens import TokenWindows
from tests.support.array_source import ArraySource


def source_of(lengths: list[int], per_block: int) -> tuple[ArraySource, np.ndarray]:
    stream = np.arange(sum(lengths), dtype=np.uint16)
    documents = np.split(stream, np.cumsum(lengths)[:-1])
    return ArraySource([{"tokens": document} for document in documents], per_block, tokens=True), stream


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    per_block=st.integers(1, 5),
    size=st.integers(1, 40),
    data=st.data(),
)
def test_windows_are_slices_of_the_stream(lengths: list[int], per_block: int, size: int, data: st.DataObject) -> None:
    source, stream = source_of(lengths, per_block)
    if len(stream) < size:
        with pytest.raises(ConfigError, match="larger than this dataset"):
            TokenWindows(source.table, size)
        return
    windows = TokenWindows(source.table, size, has_documents=True)
    assert windows.num_rows == len(stream) // size == windows.table.rows.sum()
    rows = np.array(data.draw(st.lists(st.integers(0, windows.num_rows - 1), max_size=10)), np.int64)
    tokens, documents, positions = windows.gather(OpenBlocks(source, 10**9).open, rows, "int64")
    expected = np.array([stream[row * size : (row + 1) * size] for row in rows]).reshape(len(rows), size)
    assert tokens.values.dtype == np.int64
    assert np.array_equal(tokens.values, expected)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    of = np.searchsorted(starts, expected, side="right") - 1
    assert np.array_equal(documents.values, of)
    assert np.array_equal(positions.values, expected - starts[of])


@given(lengths=st.lists(st.integers(1, 9), min_size=5, max_size=30), size=st.integers(1, 20))
def test_the_blocks_of_windows_are_all_that_hold_their_tokens(lengths: list[int], size: int) -> None:
    source, stream = source_of(lengths, 2)
    if len(stream) < size:
        return
    windows = TokenWindows(source.table, size)
    source.fetched.clear()
    rows = np.arange(windows.num_rows)[::-1]
    windows.gather(OpenBlocks(source, 10**9).open, rows, "int64")
    assert set(windows.blocks_of(rows).tolist()) == set(source.fetched)


def test_long_windows_are_copied_right_too() -> None:
    source, stream = source_of([1000] * 10, 3)
    windows = TokenWindows(source.table, 700)
    tokens = windows.gather(OpenBlocks(source, 10**9).open, np.array([13, 0, 4]), "int32")[0]
    assert np.array_equal(tokens.values, [stream[row * 700 : (row + 1) * 700] for row in (13, 0, 4)])


def test_a_dataset_of_samples_has_no_windows() -> None:
    with pytest.raises(ConfigError, match="written with item_loader=TokensLoader"):
        TokenWindows(ArraySource([{"x": 1}], 1).table, 4)


def test_a_dataset_whose_tokens_are_all_deleted_is_told_as_such(tmp_path: Path) -> None:
    optimize(np.arange, range(1, 4), str(tmp_path), num_workers=0, item_loader=TokensLoader())
    delete_rows(str(tmp_path), slice(None))
    with pytest.raises(ConfigError, match="larger than this dataset of 0 tokens"):
        StreamingDataset(str(tmp_path), item_loader=TokensLoader(block_size=2))
