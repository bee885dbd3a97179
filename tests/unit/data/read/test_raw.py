"""Raw files: listed once, in order, grouped and transformed as asked."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest

from leyden.core.errors import ConfigError, NotFoundError
from leyden.data.read.indexer import FileIndexer, FileMetadata
from leyden.data.read.raw import StreamingRawDataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/1.txt", "a/2.jpg", "a/1.txt", "c/d/e.txt"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    return tmp_path / "data"


def test_items_are_the_contents_in_the_order_of_names(folder: Path, tmp_path: Path) -> None:
    dataset = StreamingRawDataset(folder, cache_dir=tmp_path / "cache")
    assert [dataset[index] for index in range(len(dataset))] == [b"a/1.txt", b"a/2.jpg", b"b/1.txt", b"c/d/e.txt"]
    assert dataset.__getitems__([3, 0, -1]) == [b"c/d/e.txt", b"a/1.txt", b"c/d/e.txt"]
    with pytest.raises(IndexError, match="index 4 is out of range: the dataset has 4 items"):
        dataset[4]


def test_the_index_is_remembered_until_it_is_to_be_made_anew(folder: Path, tmp_path: Path) -> None:
    assert len(StreamingRawDataset(folder, cache_dir=tmp_path / "cache")) == 4
    (folder / "z.txt").write_text("new")
    assert len(StreamingRawDataset(folder, cache_dir=tmp_path / "cache")) == 4
    assert len(StreamingRawDataset(folder, cache_dir=tmp_path / "cache", recompute_index=True)) == 5
    assert not list(folder.rglob("*.json"))


def test_a_shared_index_lies_beside_the_data(folder: Path, tmp_path: Path) -> None:
    StreamingRawDataset(folder, cache_dir=tmp_path / "one", share_index=True)
    (folder / "z.txt").write_text("new")
    assert len(StreamingRawDataset(folder, cache_dir=tmp_path / "two")) == 4


def test_an_indexer_chooses_by_extension_and_depth(folder: Path, tmp_path: Path) -> None:
    dataset = StreamingRawDataset(folder, cache_dir=tmp_path / "cache", indexer=FileIndexer(max_depth=1, extensions=[".TXT"]))
    assert [file.path for file in dataset.files] == ["a/1.txt", "b/1.txt"]
    with pytest.raises(NotFoundError, match="no files in"):
        StreamingRawDataset(folder, cache_dir=tmp_path / "other", indexer=FileIndexer(extensions=[".png"]))


class Pairs(StreamingRawDataset):
    def setup(self, files: list[FileMetadata]) -> Sequence[Sequence[FileMetadata]]:
        return [files[start : start + 2] for start in range(0, len(files), 2)]


def test_setup_groups_files_and_transform_sees_the_group(folder: Path, tmp_path: Path) -> None:
    dataset = Pairs(folder, cache_dir=tmp_path / "cache", transform=b" ".join)
    assert dataset.__getitems__([0, 1]) == [b"a/1.txt a/2.jpg", b"b/1.txt c/d/e.txt"]


def test_paths_of_local_files_are_their_own(folder: Path, tmp_path: Path) -> None:
    dataset = StreamingRawDataset(folder, cache_dir=tmp_path / "cache", item_type="path", cache_files=True)
    assert Path(dataset[0]).read_text() == "a/1.txt"
    with pytest.raises(ConfigError, match="needs local files: pass cache_files=True"):
        StreamingRawDataset(folder, item_type="path")
    with pytest.raises(ConfigError, match="it takes 'bytes' or 'path'"):
        StreamingRawDataset(folder, item_type="text")  # type: ignore[arg-type]


def test_it_pickles_as_configuration(folder: Path, tmp_path: Path) -> None:
    dataset = StreamingRawDataset(folder, cache_dir=tmp_path / "cache")
    assert pickle.loads(pickle.dumps(dataset))[1] == b"a/2.jpg"


def test_what_a_job_keeps_beside_its_files_is_none_of_them(folder: Path) -> None:
    before = FileIndexer().discover_files(str(folder), None)
    (folder / "_leyden/jobs/a").mkdir(parents=True)
    (folder / "_leyden/jobs/a/plan.json").write_bytes(b"{}")
    assert FileIndexer().discover_files(str(folder), None) == before
