"""Which format lies at a place: journals of ours make no dataset of ours."""

from pathlib import Path

import pytest

import leyden.data as ld
from leyden.data.interop.sniff import format_of

parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")


def write(number: int, output_dir: str) -> None:
    parquet.write_table(pyarrow.table({"a": [number]}), f"{output_dir}/{number}.parquet")


def test_files_that_map_or_convert_wrote_are_what_they_are(tmp_path: Path) -> None:
    ld.map(write, [0, 1], str(tmp_path / "files"), num_workers=0)
    assert format_of(str(tmp_path / "files")) == "parquet"
    assert ld.StreamingDataset(str(tmp_path / "files"))[:] == [{"a": 0}, {"a": 1}]
    ld.optimize(lambda number: {"a": number}, [0, 1], str(tmp_path / "ours"), num_workers=0)
    ld.convert(str(tmp_path / "ours"), str(tmp_path / "converted"), "parquet")
    assert ld.StreamingDataset(str(tmp_path / "converted"))[:] == [{"a": 0}, {"a": 1}]


def test_files_of_a_job_under_way_are_not_the_datasets(tmp_path: Path) -> None:
    write(0, str(tmp_path))
    private = tmp_path / "_leyden" / "tmp" / "job" / "0-1"
    private.mkdir(parents=True)
    write(1, str(private))
    assert ld.StreamingDataset(str(tmp_path))[:] == [{"a": 0}]


def test_a_lost_index_of_ours_is_found_by_its_manifests(tmp_path: Path) -> None:
    ld.optimize(lambda number: {"a": number}, [0, 1], str(tmp_path), num_workers=0)
    (tmp_path / "index.json").unlink()
    assert format_of(str(tmp_path)) == "leyden"
