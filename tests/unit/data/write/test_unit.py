"""A unit: inputs that fail leave nothing behind, and what is no input's fault is nobody's failure."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leyden.data as ld
from leyden.core.errors import ConfigError, StorageError
from leyden.data.errors import UnitFailedError
from leyden.data.format.filling import ChunkFiller


def written(fn: Any, inputs: Any, folder: Path, **settings: Any) -> list[Any]:
    ld.optimize(fn, inputs, str(folder), num_workers=0, fsync=False, verbose=False, **settings)
    return ld.StreamingDataset(str(folder))[:]


def late(number: int) -> Iterator[Any]:
    yield {"id": number}
    yield {"id": object() if number % 2 else number + 100}


def test_a_skipped_input_leaves_none_of_its_rows(tmp_path: Path) -> None:
    assert [row["id"] for row in written(late, range(4), tmp_path, on_error="skip")] == [0, 100, 2, 102]


@pytest.mark.parametrize("block_rows", [1, 3])
def test_a_skipped_input_leaves_none_of_its_rows_in_blocks_that_are_written(tmp_path: Path, block_rows: int) -> None:
    keys: dict[str, Any] = {"key_fn": lambda row: row["id"], "on_error": "skip", "block_rows": block_rows}
    rows = written(lambda numbers: (row for number in numbers for row in late(number)), [[0, 2, 1], [4], [6, 8, 3], [10]], tmp_path, **keys)
    assert [row["id"] for row in rows] == [4, 104, 10, 110]
    assert ld.StreamingDataset(str(tmp_path)).get_by_key(10) == {"id": 10}


def test_the_other_inputs_of_a_unit_keep_theirs(tmp_path: Path) -> None:
    rows = written(late, range(130), tmp_path, on_error="skip", block_rows=1)
    assert [row["id"] for row in rows] == [each for number in range(0, 130, 2) for each in (number, number + 100)]


def test_a_skipped_input_says_nothing_of_the_schema(tmp_path: Path) -> None:
    written(lambda pair: {"a": pair[0], "b": pair[1]}, [[(1, 2)], [(None, object())], [(3, 4)]], tmp_path, on_error="skip", reader=First())
    assert not any(leaf.nullable for leaf in ld.StreamingDataset(str(tmp_path)).schema.leaves)


class First(ld.BaseReader):
    def read(self, item: Any) -> Any:
        return item[0]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_disk_that_refuses_is_no_input_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: str) -> None:
    def refuse(*_: Any, **__: Any) -> bool:
        raise StorageError("the disk is full.")

    monkeypatch.setattr(ChunkFiller, "add", refuse)
    with pytest.raises(StorageError, match="the disk is full"):
        written(lambda number: ({"id": row} for row in range(number)), [3, 3], tmp_path, on_error=on_error, block_rows=1)


def test_keys_are_text_or_whole_numbers_of_every_row(tmp_path: Path) -> None:
    written(lambda number: {"id": number}, range(3), tmp_path / "numbers", key_fn=lambda row: np.int64(row["id"] + 5))
    assert ld.StreamingDataset(str(tmp_path / "numbers")).get_by_key(6) == {"id": 1}
    with pytest.raises(UnitFailedError, match="key_fn returned None"):
        written(lambda number: {"id": number}, range(3), tmp_path / "none", key_fn=lambda row: row["id"] or None)
    rows = written(lambda number: {"id": number}, range(200), tmp_path / "skip", key_fn=lambda row: row["id"] or None, on_error="skip")
    assert len(rows) == 199
    assert ld.StreamingDataset(str(tmp_path / "skip")).get_by_key(7) == {"id": 7}


def test_litdatas_layout_has_no_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no place for keys"):
        written(lambda number: {"id": number}, range(3), tmp_path, key_fn=lambda row: row["id"], layout="litdata")
