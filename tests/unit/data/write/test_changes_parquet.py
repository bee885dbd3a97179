"""Parquet files are indexed once; opening them then reads no footers."""

from pathlib import Path
from typing import Any

import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError, ConflictError, CorruptDataError, NotFoundError
from leyden.data.errors import SchemaError
from leyden.data.interop import parquet as module
from tests.support.changes import opened, write

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def _rows(first: int, count: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"row {number}", "nested": {"x": number / 2}} for number in range(first, first + count)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    place = tmp_path / "table"
    place.mkdir()
    for name, first, count in (("a", 0, 25), ("b", 25, 7), ("c", 32, 0)):
        rows = pa.Table.from_pylist(_rows(first, count), pa.Table.from_pylist(_rows(0, 1)).schema)
        parquet.write_table(rows, place / f"{name}.parquet", row_group_size=10)
    return place


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the files that are opened from now on."""
    found: list[str] = []
    whole = module.opened

    def noted(files: Any, name: str, num_bytes: int | None = None) -> Any:
        found.append(name)
        return whole(files, name, num_bytes)

    monkeypatch.setattr(module, "opened", noted)
    return found


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_index_takes_the_place_of_footers(table: Path, tmp_path: Path, opens: list[str], elsewhere: bool) -> None:
    plain = ld.StreamingDataset(str(table), output="numpy")
    digest, samples = plain.digest, plain[:]
    options: dict[str, Any] = {"index_path": str(tmp_path / "index")} if elsewhere else {}
    done = ld.index_parquet_dataset(table, tmp_path / "index" if elsewhere else None)
    assert (done.operation, done.num_rows, done.num_chunks) == ("index", 32, 3)
    opens.clear()
    dataset = ld.StreamingDataset(str(table), output="numpy", **options)
    assert (len(dataset), dataset.digest, opens) == (32, digest, [])
    assert dataset[:] == samples == _rows(0, 32)
    opens.clear()
    assert ld.StreamingDataset(str(table), output="numpy", columns=["text"], **options)[31] == {"text": "row 31"}
    assert opens == ["b.parquet"]


def test_an_index_file_can_be_named_too(table: Path, tmp_path: Path) -> None:
    ld.index_parquet_dataset(f"{table}/a*.parquet", tmp_path / "index")
    assert len(ld.StreamingDataset(str(table), index_path=str(tmp_path / "index/index.json"))) == 25


def test_the_tools_take_an_index_for_parquet(table: Path) -> None:
    ld.index_parquet_dataset(table)
    assert (ld.inspect(str(table)).format, ld.inspect(str(table)).num_rows) == ("parquet", 32)
    assert ld.verify(str(table)).faults == ()
    with pytest.raises(ConfigError, match="of another format"):
        ld.delete_rows(table, [0])


def test_files_that_change_are_noticed_and_indexed_again(table: Path) -> None:
    ld.index_parquet_dataset(table)
    parquet.write_table(pa.Table.from_pylist(_rows(0, 50)), table / "a.parquet")
    with pytest.raises(CorruptDataError, match="when it was indexed: it was replaced"):
        ld.StreamingDataset(str(table), output="numpy")[3]
    ld.index_parquet_dataset(table)
    assert len(opened(table)) == 57


def test_what_cannot_be_indexed(table: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(NotFoundError, match="no Parquet files"):
        ld.index_parquet_dataset(tmp_path / "none")
    with pytest.raises(ConfigError, match="num_workers=0"):
        ld.index_parquet_dataset(table, num_workers=0)
    with pytest.raises(ConfigError, match="give a cache_dir="):
        ld.index_parquet_dataset(f"{table}/a*.parquet")
    write(tmp_path / "ours", range(3))
    with pytest.raises(ConflictError, match="there is a dataset at"):
        ld.index_parquet_dataset(table, tmp_path / "ours")
    with pytest.raises(ConfigError, match="only Parquet files are indexed elsewhere"):
        ld.StreamingDataset(str(tmp_path / "ours"), index_path=str(table))
    with pytest.raises(ConfigError, match="holds a dataset, and no index"):
        ld.StreamingDataset(str(table), index_path=str(tmp_path / "ours"))
    with pytest.raises(NotFoundError):
        ld.StreamingDataset(str(table), index_path=str(tmp_path / "none"))
    parquet.write_table(pa.Table.from_pylist([{"other": 1}]), table / "d.parquet")
    with pytest.raises(SchemaError, match=r"d\.parquet has the columns"):
        ld.index_parquet_dataset(table)
