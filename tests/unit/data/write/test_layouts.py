"""What is there already: another reader or key is other work, tokens and rows stay apart, nothing is no obstacle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leyden.data as ld
from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.data.errors import UnitFailedError


def write(folder: Path, inputs: Any = (1, 2), fn: Any = lambda number: {"v": number}, **settings: Any) -> ld.Report:
    return ld.optimize(fn, list(inputs), str(folder), num_workers=0, fsync=False, verbose=False, **settings)


def tokens(number: int) -> Any:
    return np.arange(number)


class Times(ld.BaseReader):
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def read(self, item: Any) -> Any:
        return item * self.factor


def test_another_reader_is_another_job(tmp_path: Path) -> None:
    first = write(tmp_path, reader=Times(1))
    assert write(tmp_path, reader=Times(1), mode="overwrite").job == first.job
    assert write(tmp_path, reader=Times(10), mode="overwrite").job != first.job
    assert ld.StreamingDataset(str(tmp_path))[:] == [{"v": 10}, {"v": 20}]


def test_a_loader_is_known_by_what_it_was_when_it_was_given(tmp_path: Path) -> None:
    write(tmp_path / "a", range(8))
    reader = ld.StreamingDataLoaderReader(ld.StreamingDataLoader(ld.StreamingDataset(str(tmp_path / "a")), batch_size=4))
    before = reader.identity()
    reader.read(1)
    assert reader.identity() == before
    other = ld.StreamingDataLoaderReader(ld.StreamingDataLoader(ld.StreamingDataset(str(tmp_path / "a")), batch_size=2))
    assert other.identity() != before


@pytest.fixture(params=["aes", "fernet"])
def keys(request: pytest.FixtureRequest) -> list[Any]:
    if request.param == "aes":
        return [ld.AesGcm(key=bytes(32)), ld.AesGcm(key=b"1" * 32)]
    return [ld.FernetEncryption("secret"), ld.FernetEncryption("secret")]  # each with a salt of its own


def test_the_same_work_under_another_key_is_done_anew(tmp_path: Path, keys: list[Any]) -> None:
    write(tmp_path, encryption=keys[0])
    assert write(tmp_path, encryption=keys[0], mode="overwrite").version == 1
    assert write(tmp_path, encryption=keys[1], mode="overwrite").version == 2
    assert ld.StreamingDataset(str(tmp_path), encryption=keys[1])[:] == [{"v": 1}, {"v": 2}]
    with pytest.raises(ConfigError, match="the key or password is another one"):
        ld.StreamingDataset(str(tmp_path), encryption=keys[0])


def test_nothing_is_appended_under_another_key(tmp_path: Path, keys: list[Any]) -> None:
    write(tmp_path, encryption=keys[0])
    with pytest.raises(ConfigError, match="the key or password is another one"):
        write(tmp_path, [3], encryption=keys[1], mode="append")
    write(tmp_path, [3], encryption=keys[0], mode="append")
    assert len(ld.StreamingDataset(str(tmp_path), encryption=keys[0])[:]) == 3


def test_a_job_does_not_go_on_under_another_key(tmp_path: Path, keys: list[Any]) -> None:
    def fails(number: int) -> Any:
        if not (tmp_path / "mended").exists():
            raise ValueError(number)
        return {"v": number}

    with pytest.raises(UnitFailedError):
        write(tmp_path / "data", fn=fails, encryption=keys[0])
    (tmp_path / "mended").touch()
    with pytest.raises(ConfigError, match="was begun with another key and is not finished"):
        write(tmp_path / "data", fn=fails, encryption=keys[1])
    assert write(tmp_path / "data", fn=fails, encryption=keys[0]).num_rows == 2


def test_litdatas_layout_compares_keys_too(tmp_path: Path) -> None:
    keys = [ld.FernetEncryption("secret"), ld.FernetEncryption("secret")]
    write(tmp_path, encryption=keys[0], layout="litdata")
    with pytest.raises(ConfigError, match="the key or password is another one"):
        write(tmp_path, [3], encryption=keys[1], mode="append")
    write(tmp_path, [3], encryption=keys[0], mode="append")
    assert ld.StreamingDataset(str(tmp_path), encryption=keys[0])[:] == [{"v": 1}, {"v": 2}, {"v": 3}]
    write(tmp_path, encryption=keys[0], mode="overwrite")
    write(tmp_path, encryption=keys[1], mode="overwrite")
    assert ld.StreamingDataset(str(tmp_path), encryption=keys[1])[:] == [{"v": 1}, {"v": 2}]


def test_datasets_under_keys_of_their_own_are_merged_with_the_right_ones_only(tmp_path: Path, keys: list[Any]) -> None:
    for name, key in (("a", keys[0]), ("b", keys[0]), ("c", keys[1])):
        write(tmp_path / name, [ord(name)], encryption=key)
    places = [str(tmp_path / name) for name in "abc"]
    with pytest.raises(ConfigError, match="encryption="):
        ld.merge_datasets(places[:2], str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="the key or password is another one"):
        ld.merge_datasets(places, str(tmp_path / "wrong"), encryption=keys[0])
    ld.merge_datasets(places[:2], str(tmp_path / "merged"), encryption=keys[0])
    assert ld.StreamingDataset(str(tmp_path / "merged"), encryption=keys[0])[:] == [{"v": 97}, {"v": 98}]


def test_tokens_and_rows_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "tokens", fn=tokens, item_loader=ld.TokensLoader)
    with pytest.raises(ConfigError, match=r"Pass item_loader=TokensLoader\(\) as before"):
        write(tmp_path / "tokens", [3], fn=tokens, mode="append")
    write(tmp_path / "rows", fn=tokens)
    with pytest.raises(ConfigError, match="Leave item_loader out"):
        write(tmp_path / "rows", [3], fn=tokens, mode="append", item_loader=ld.TokensLoader())


def test_an_item_loader_is_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigTypeError, match="item_loader='tokens' is not accepted"):
        write(tmp_path, item_loader="tokens")


def test_tokens_that_do_not_fit_their_type_are_refused(tmp_path: Path) -> None:
    loader = ld.TokensLoader(store_dtype="uint16")
    with pytest.raises((ConfigError, UnitFailedError), match="70000 does not fit store_dtype='uint16'"):
        write(tmp_path / "large", [70_000], fn=lambda number: np.array([1, number]), item_loader=loader)
    with pytest.raises(ConfigError, match="store_dtype='float32' is not accepted"):
        ld.TokensLoader(store_dtype="float32")


def test_a_dataset_of_nothing_takes_anything(tmp_path: Path) -> None:
    write(tmp_path / "empty", fn=lambda _: None)
    write(tmp_path / "full")
    for number, names in enumerate((("empty", "full"), ("full", "empty"))):
        merged = str(tmp_path / f"merged{number}")
        ld.merge_datasets([str(tmp_path / name) for name in names], merged)
        assert ld.StreamingDataset(merged)[:] == [{"v": 1}, {"v": 2}]
    write(tmp_path / "empty", mode="append")
    write(tmp_path / "empty", [5], fn=lambda _: None, mode="append")
    assert ld.StreamingDataset(str(tmp_path / "empty"))[:] == [{"v": 1}, {"v": 2}]


@pytest.mark.parametrize("name", ["with space", "per%20cent", "a#b?c", "données"])
def test_file_urls_name_the_folder_that_they_escape(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    write(folder / "data")
    url = (folder / "data").as_uri()
    ld.optimize(lambda number: {"v": number}, [3], url, num_workers=0, mode="append", fsync=False)
    assert ld.StreamingDataset(url)[:] == ld.StreamingDataset(str(folder / "data"))[:] == [{"v": 1}, {"v": 2}, {"v": 3}]
    ld.map(lambda number, output_dir: Path(output_dir, str(number)).touch(), [1, 2], (folder / "files").as_uri(), num_workers=0)
    ld.delete_rows(url, [0])
    assert sorted(path.name for path in folder.iterdir()) == ["data", "files"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "files" / "2").exists()
