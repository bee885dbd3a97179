"""Datasets as Arrow tables: the same rows, also of subsets and after deletions, without a copy where the file is plain."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from leyden.core.errors import ConfigError
from leyden.data import StreamingDataset, TokensLoader, optimize


def sample(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "score": number / 3,
        "text": None if number % 5 == 0 else f"é{number}",
        "vector": np.full(4, number, np.float32),
        "uneven": np.arange(number % 3),
        "nested": {"tags": ["a"] * (number % 2), "raw": bytes([number % 256])},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("arrow"))
    optimize(sample, list(range(300)), folder, num_workers=0, block_rows=64, verbose=False)
    return folder


def test_rows_are_the_same(folder: str) -> None:
    dataset = StreamingDataset(folder, output="numpy")
    table = dataset.to_arrow()
    assert table.num_rows == 300
    assert table["id"].to_pylist() == list(range(300))
    assert table["text"].to_pylist() == [row["text"] for row in dataset[:]]
    assert [row["tags"] for row in table["nested"].to_pylist()] == [row["nested"]["tags"] for row in dataset[:]]
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), dataset.take(slice(0, 300))["vector"])
    assert table["uneven"].to_pylist() == [row["uneven"].tolist() for row in dataset[:]]


def test_subsets_and_columns(folder: str) -> None:
    dataset = StreamingDataset(folder, columns=["id", "nested"]).subset([250, 3, 4, 5, 64])
    table = dataset.to_arrow()
    assert table.column_names == ["id", "nested"]
    assert table["id"].to_pylist() == [250, 3, 4, 5, 64]
    assert StreamingDataset(folder).subset([]).to_arrow().num_rows == 0


def test_plain_buffers_are_not_copied(folder: str) -> None:
    before = pa.total_allocated_bytes()
    table = StreamingDataset(folder, columns=["id", "score"]).to_arrow()
    assert table.nbytes == 300 * 16
    assert pa.total_allocated_bytes() - before < 2000


def test_windows_are_refused(tmp_path: Path) -> None:
    optimize(np.arange, [5, 6], str(tmp_path), num_workers=0, item_loader=TokensLoader())
    with pytest.raises(ConfigError, match="hands out windows"):
        StreamingDataset(str(tmp_path), item_loader=TokensLoader(block_size=2)).to_arrow()
    assert StreamingDataset(str(tmp_path)).to_arrow()["value"].to_pylist() == [list(range(5)), list(range(6))]
