"""Readers of jobs, lists of media files, and walks through buckets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leyden.core.errors import ConfigError
from leyden.core.storage import open_storage
from leyden.data import (
    BaseReader,
    ParquetReader,
    StreamingDataLoader,
    StreamingDataLoaderReader,
    StreamingDataset,
    list_media_folder,
    optimize,
    walk,
)
from tests.support.s3_server import S3Server, s3_server


class Twice(BaseReader):
    def remap_items(self, items: Any, num_workers: int) -> list[tuple[int, int]]:
        assert num_workers == 1
        return [(item, copy) for item in items for copy in range(2)]

    def read(self, item: tuple[int, int]) -> int:
        return item[0] * 10 + item[1]


def same(value: int) -> dict[str, int]:
    return {"x": value}


def rows_of(table: Any) -> Iterator[dict[str, int]]:
    yield from ({"x": int(value)} for value in table["x"])


def first_of(batch: dict[str, Any]) -> dict[str, int]:
    return {"x": int(batch["x"][0]), "n": len(batch["x"])}


def xs(folder: Path) -> list[int]:
    return [sample["x"] for sample in StreamingDataset(str(folder))[:]]


def test_a_reader_makes_the_inputs(tmp_path: Path) -> None:
    optimize(same, [1, 2], str(tmp_path), reader=Twice(), num_workers=0)
    assert xs(tmp_path) == [10, 11, 20, 21]


@pytest.mark.parametrize("to_pandas", [False])
@pytest.mark.parametrize("num_rows", [1, 7, 1000])
def test_parquet_files_come_in_parts(tmp_path: Path, num_rows: int, to_pandas: bool) -> None:
    files = []
    for number in range(2):
        files.append(str(tmp_path / f"{number}.parquet"))
        pq.write_table(pa.table({"x": np.arange(25) + 100 * number}), files[-1], row_group_size=10)
    reader = ParquetReader(num_rows=num_rows, to_pandas=to_pandas)
    assert len(reader.remap_items(files, 1)) == 2 * -(-25 // num_rows)
    optimize(rows_of, files, str(tmp_path / "out"), reader=reader, num_workers=0)
    assert xs(tmp_path / "out") == [*range(25), *range(100, 125)]
    with pytest.raises(ConfigError, match="num_rows=0"):
        ParquetReader(num_rows=0)


def test_batches_of_a_loader_are_inputs(tmp_path: Path) -> None:
    optimize(same, list(range(10)), str(tmp_path / "a"), num_workers=0)
    loader = StreamingDataLoader(StreamingDataset(str(tmp_path / "a")), batch_size=4)
    optimize(first_of, [0], str(tmp_path / "b"), reader=StreamingDataLoaderReader(loader), num_workers=0)
    assert [(sample["x"], sample["n"]) for sample in StreamingDataset(str(tmp_path / "b"))[:]] == [(0, 4), (4, 4), (8, 2)]
    assert [first_of(StreamingDataLoaderReader(loader).read(number))["x"] for number in (2, 0, 1)] == [8, 0, 4]


def test_media_files_are_listed_with_their_labels(tmp_path: Path) -> None:
    for name in ("cats/b.JPG", "cats/a.png", "dogs/deep/c.jpeg", "d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_media_folder(tmp_path)
    assert [(Path(each["path"]).name, each.get("label")) for each in found] == [
        ("a.png", "cats"),
        ("b.JPG", "cats"),
        ("d.png", None),
        ("c.jpeg", "dogs"),
    ]
    assert all("label" not in each for each in list_media_folder(tmp_path, drop_labels=True))
    with pytest.raises(ConfigError, match="no audio files"):
        list_media_folder(tmp_path, "audio")
    with pytest.raises(ConfigError, match="kind='text'"):
        list_media_folder(tmp_path, "text")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as running:
        yield running


def test_a_walk_goes_through_folders_and_buckets_alike(server: S3Server, tmp_path: Path) -> None:
    url = f"{server.make_bucket('walked')}/top"
    options: Any = server.options
    for name in ("b/2.txt", "b/c/3.txt", "1.txt", "a/4.txt"):
        open_storage(url, options).write(name, b"x")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="there is no such folder here"):
        list(walk(tmp_path / "none"))
    there = {(folder.removeprefix(url).strip("/"), *map(tuple, rest)) for folder, *rest in walk(url, storage_options=options)}
    here = {(folder.removeprefix(str(tmp_path)).strip("/"), *map(tuple, rest)) for folder, *rest in walk(tmp_path)}
    assert there == here == {("", ("a", "b"), ("1.txt",)), ("a", (), ("4.txt",)), ("b", ("c",), ("2.txt",)), ("b/c", (), ("3.txt",))}
