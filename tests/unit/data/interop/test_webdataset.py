"""Tar shards: grouping by key, leaf types by suffix, and what is refused."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest

from leyden.core.errors import CorruptDataError, NotFoundError
from leyden.core.storage import open_storage
from leyden.data.errors import SchemaError
from leyden.data.interop.webdataset import TarSource, iter_webdataset_tar, split_name
from tests.support.foreign_rows import samples


def write(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def shard(start: int, count: int) -> dict[str, bytes]:
    files = {}
    for i in range(start, start + count):
        files[f"d/{i:04d}.txt"] = f"né {i}".encode()
        files[f"d/{i:04d}.cls"] = str(i).encode()
        files[f"d/{i:04d}.meta.json"] = json.dumps({"i": [i]}).encode()
        files[f"d/{i:04d}.raw"] = bytes([i % 250] * (i % 5))
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "s-000.tar", shard(0, 30))
    write(tmp_path / "s-001.tar", shard(30, 5))
    return tmp_path


EXPECTED = [
    {"__key__": f"d/{i:04d}", "txt": f"né {i}", "cls": i, "meta.json": json.dumps({"i": [i]}).encode(), "raw": bytes([i % 250] * (i % 5))}
    for i in range(35)
]


def test_files_of_one_key_are_one_sample(folder: Path) -> None:
    source = pickle.loads(pickle.dumps(TarSource(str(folder))))
    assert samples(source) == EXPECTED
    assert source.table.rows.tolist() == [30, 5]


def test_remote_shards_are_read_by_ranges(folder: Path) -> None:
    storage = open_storage("memory://tar-ranges")
    for file in folder.iterdir():
        storage.write(file.name, file.read_bytes())
    assert samples(TarSource("memory://tar-ranges")) == EXPECTED


def test_samples_of_other_suffixes_are_refused(folder: Path) -> None:
    write(folder / "s-002.tar", {"x.txt": b""})
    with pytest.raises(SchemaError, match=r"sample 'x' has 'txt', the first one 'txt', 'cls'"):
        TarSource(str(folder))


def test_damaged_and_missing_shards_are_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "s-001.tar").write_bytes(b"no tar" * 100)
    with pytest.raises(CorruptDataError, match=r"s-001\.tar is no tar file"):
        TarSource(str(folder))
    with pytest.raises(NotFoundError, match="no tar files"):
        TarSource(str(tmp_path_factory.mktemp("empty")))


def test_iterating_gives_bytes_key_and_place(folder: Path) -> None:
    path = str(folder / "s-001.tar")
    found = list(iter_webdataset_tar(path))
    assert len(found) == 5
    assert found[0] == {
        "__key__": "d/0030",
        "__url__": path,
        "txt": "né 30".encode(),
        "cls": b"30",
        "meta.json": b'{"i": [30]}',
        "raw": b"",
    }


@pytest.mark.parametrize(("name", "parts"), [("a.jpg", ("a", "jpg")), ("x/y.z/a.b.c", ("x/y.z/a", "b.c")), ("a", ("a", ""))])
def test_names_are_split_at_the_first_dot(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts


def test_classes_are_numbers_or_text_by_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"0.cls": b"cat", "1.cls": b"7"})
    assert [row["cls"] for row in samples(TarSource(str(tmp_path)))] == ["cat", "7"]
    write(tmp_path / "a.tar", {"0.cls": b" 7\n", "1.cls": b"cat"})
    with pytest.raises(SchemaError, match="the first sample a whole number"):
        samples(TarSource(str(tmp_path)))
