"""Finished datasets get keys."""

from pathlib import Path
from typing import Any

import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError, ConflictError, NotFoundError
from leyden.core.failpoints import InjectedError, armed
from leyden.data.format.cipher import AesGcm
from tests.support.changes import document, faults, ids, key_of, opened, unnamed_files, write

_KEY = AesGcm(key=bytes(range(32)))


@pytest.mark.parametrize("encryption", [None, _KEY], ids=["plain", "encrypted"])
def test_rows_are_found_by_their_new_keys(tmp_path: Path, encryption: Any) -> None:
    write(tmp_path, range(10), encryption=encryption)
    ld.delete_rows(tmp_path, [0, 6])
    done = ld.build_keys_index(tmp_path, lambda sample: f"k{sample['id']}", columns=["id"], encryption=encryption)
    assert (done.version, done.operation, done.num_rows) == (3, "keys", 8)
    dataset = opened(tmp_path, encryption=encryption)
    assert [dataset[f"k{number}"]["id"] for number in (1, 5, 7, 9)] == [1, 5, 7, 9]
    with pytest.raises(NotFoundError):
        dataset["k6"]
    assert faults(tmp_path, encryption=encryption) == []


def test_documents_can_have_keys(tmp_path: Path) -> None:
    write(tmp_path, range(9), fn=document)
    ld.build_keys_index(tmp_path, lambda sample: int(sample[0]))
    assert opened(tmp_path).get_by_key(7) == [7, 7, 7, 7]


def test_two_rows_of_one_key_are_both_named(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    ld.delete_rows(tmp_path, [0])
    with pytest.raises(ConfigError, match="rows 2 and 7 both have the key 3"):
        ld.build_keys_index(tmp_path, lambda sample: sample["id"] if sample["id"] != 8 else 3)
    with pytest.raises(ConfigError, match=r"key=1\.0 is not accepted"):
        ld.build_keys_index(tmp_path, lambda sample: float(sample["id"]))
    assert (len(ld.versions(tmp_path)), unnamed_files(tmp_path)) == (2, [])


def test_keys_that_are_there_are_replaced_if_one_says_so(tmp_path: Path) -> None:
    write(tmp_path, range(4), key_fn=key_of)
    with pytest.raises(ConflictError, match="overwrite=True"):
        ld.build_keys_index(tmp_path, key_of)
    ld.build_keys_index(tmp_path, lambda sample: sample["text"], overwrite=True)
    assert opened(tmp_path)["row 3"]["id"] == 3


def test_keys_lie_in_the_dataset(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    with pytest.raises(ConfigError, match="another place than the dataset"):
        ld.build_keys_index(tmp_path, key_of, output_dir=tmp_path / "keys")
    with pytest.warns(UserWarning, match="num_shards: without effect"):
        ld.build_keys_index(tmp_path, key_of, output_dir=tmp_path, num_shards=4)
    assert opened(tmp_path).get_by_key(2)["id"] == 2


def test_rows_that_were_appended_meanwhile_get_keys_too(tmp_path: Path) -> None:
    write(tmp_path, range(6))
    asked: list[int] = []

    def key(sample: Any) -> int:
        if not asked:
            write(tmp_path, [6, 7], mode="append")
        asked.append(int(sample["id"]))
        return asked[-1]

    assert ld.build_keys_index(tmp_path, key).version == 3
    assert asked == list(range(8))
    assert (opened(tmp_path).get_by_key(7)["id"], ids(tmp_path)) == (7, list(range(8)))


@pytest.mark.parametrize("step", ["data.change.file", "data.commit.before", "data.commit.between", "data.commit.after"])
def test_an_index_that_is_cut_short_is_there_or_not(tmp_path: Path, step: str) -> None:
    write(tmp_path, range(6))
    with armed(f"{step}=raise"), pytest.raises(InjectedError):
        ld.build_keys_index(tmp_path, key_of)
    is_old = step in {"data.change.file", "data.commit.before"}
    assert (opened(tmp_path).version, faults(tmp_path), unnamed_files(tmp_path)) == (1 if is_old else 2, [], [])
