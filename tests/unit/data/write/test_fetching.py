"""Inputs that lie elsewhere: fetched ahead, given as local paths, gone when they are done."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError, StorageError
from leyden.core.storage import open_storage
from leyden.data.errors import UnitFailedError
from leyden.data.write.fetching import Fetcher, Fetching, fetching_of

Pair = namedtuple("Pair", "path label")
seen: list[Path] = []


@pytest.fixture
def store(request: pytest.FixtureRequest) -> str:
    url = f"memory://{request.node.name}"
    storage = open_storage(url)
    for number in range(40):
        storage.write(f"raw/{number % 3}/{number}.txt", f"text {number}".encode())
    return url


def read(path: str) -> dict[str, str]:
    seen.append(Path(path))
    return {"text": Path(path).read_text(encoding="utf-8"), "name": Path(path).name}


def read_pair(item: dict[str, Any]) -> dict[str, Any]:
    return {"text": Path(item["pair"].path).read_text(encoding="utf-8"), "label": item["pair"].label, "other": item["other"][0]}


def copy(path: str, output_dir: str) -> None:
    (Path(output_dir) / Path(path).name).write_text(Path(path).read_text(encoding="utf-8"), encoding="utf-8")


def names(count: int, root: str) -> list[str]:
    return [f"{root}/raw/{number % 3}/{number}.txt" for number in range(count)]


def texts(folder: Path) -> list[str]:
    return [row["text"] for row in ld.StreamingDataset(str(folder))]


def test_urls_are_fetched_if_the_first_input_is_one(tmp_path: Path, store: str) -> None:
    seen.clear()
    ld.optimize(read, names(40, store), str(tmp_path), num_workers=0)
    assert texts(tmp_path) == [f"text {number}" for number in range(40)]
    assert [path.name for path in seen] == [f"{number}.txt" for number in range(40)]
    assert not any(path.exists() for path in seen)


def test_strings_below_input_dir_are_fetched_and_others_are_not(tmp_path: Path, store: str) -> None:
    inputs = [{"pair": Pair(name, number), "other": [f"{store}/elsewhere"]} for number, name in enumerate(names(4, store))]
    ld.optimize(read_pair, inputs, str(tmp_path), input_dir=f"{store}/raw/", num_workers=0)
    rows = list(ld.StreamingDataset(str(tmp_path)))
    assert [(row["text"], row["label"], row["other"]) for row in rows] == [(f"text {n}", n, f"{store}/elsewhere") for n in range(4)]


def test_a_dir_says_what_local_names_stand_for(tmp_path: Path, store: str) -> None:
    place = ld.Dir("/mnt/bucket", store)
    ld.optimize(read, names(4, "/mnt/bucket"), str(tmp_path), input_dir=place, num_workers=0)
    assert texts(tmp_path) == [f"text {number}" for number in range(4)]


def test_an_iterator_needs_input_dir(tmp_path: Path, store: str) -> None:
    ld.optimize(read, iter(names(4, store)), str(tmp_path), input_dir=store, num_workers=0)
    assert len(texts(tmp_path)) == 4


def test_local_strings_stay_as_they_are(tmp_path: Path) -> None:
    assert fetching_of(None, {"a": ["/tmp/x", "s3:/", 3, "http://x/y"]}, None) is None
    assert fetching_of(str(tmp_path), "s3://bucket/key", None) is None
    assert fetching_of(None, ("a", ["s3://bucket/key"]), None) is not None


def test_an_input_dir_that_is_not_there_is_told(tmp_path: Path) -> None:
    for place in (f"{tmp_path}/none", f"file://{tmp_path}/none"):
        with pytest.raises(ConfigError, match=r"input_dir=.*none' is no folder here"):
            fetching_of(place, "a", None)


def test_batches_of_inputs_are_fetched(tmp_path: Path, store: str) -> None:
    def read_all(paths: list[str]) -> dict[str, str]:
        return {"text": " ".join(Path(path).read_text(encoding="utf-8") for path in paths)}

    ld.optimize(read_all, names(4, store), str(tmp_path), num_workers=0, batch_size=2)
    assert texts(tmp_path) == ["text 0 text 1", "text 2 text 3"]


def test_a_file_that_is_not_there_is_its_inputs_failure(tmp_path: Path, store: str) -> None:
    inputs = [*names(3, store), f"{store}/raw/none.txt"]
    with pytest.raises(UnitFailedError, match=r"input number 3 .*none\.txt.*NotFoundError"):
        ld.optimize(read, inputs, str(tmp_path / "a"), num_workers=0)
    assert ld.optimize(read, inputs, str(tmp_path / "b"), num_workers=0, on_error="skip", verbose=False).skipped == 1


def test_map_fetches_too(tmp_path: Path, store: str) -> None:
    ld.map(copy, names(5, store), str(tmp_path), num_workers=0)
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == [f"{number}.txt" for number in range(5)]


def test_only_a_few_are_fetched_ahead(store: str) -> None:
    with Fetcher(Fetching(prefix="", url="", options={}, downloads=2), names(40, store)) as fetcher:
        here = Path(fetcher.local(0))
        assert fetcher._next == 4
        fetcher.local(7)
        assert not here.exists()
        assert fetcher._next == 11


def test_what_cannot_be_fetched_now_is_no_failure_of_the_input(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Fetcher(fetching_of(store, "", None), names(1, store)) as fetcher:
        monkeypatch.setattr(type(open_storage(store)), "download_file", refuse)
        with pytest.raises(StorageError, match="busy"):
            fetcher.local(0)


def refuse(*_: object) -> None:
    raise StorageError("busy")


def test_options_that_are_for_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="have no effect"):
        ld.optimize(float, [1], str(tmp_path), num_workers=0, storage_options={"region_name": "x"})
