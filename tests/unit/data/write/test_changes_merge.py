"""Several datasets become one; chunks are copied as they are, or written anew where they must be."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError, ConflictError, CorruptDataError, NotFoundError
from leyden.core.failpoints import InjectedError, armed
from leyden.data.errors import SchemaError
from leyden.data.format.cipher import AesGcm
from tests.support.changes import document, documents, faults, ids, key_of, opened, write

_KEY, _OTHER = AesGcm(key=bytes(range(32))), AesGcm(password="open sesame")


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    write(tmp_path / "a", range(6), key_fn=key_of)
    write(tmp_path / "b", range(10, 17), key_fn=key_of)
    ld.delete_rows(tmp_path / "a", [1, 4])
    ld.delete_rows(tmp_path / "b", [0])
    return [tmp_path / "a", tmp_path / "b"]


_LEFT = [0, 2, 3, 5, 11, 12, 13, 14, 15, 16]


def test_rows_follow_each_other_without_those_that_are_deleted(parts: list[Path], tmp_path: Path) -> None:
    done = ld.merge_datasets(parts, tmp_path / "out")
    assert (done.version, done.operation, done.num_rows) == (1, "merge", len(_LEFT))
    assert (ids(tmp_path / "out"), faults(tmp_path / "out")) == (_LEFT, [])
    assert [opened(tmp_path / "out").get_by_key(number)["id"] for number in (0, 5, 11, 16)] == [0, 5, 11, 16]
    for part in parts:
        shutil.rmtree(part)
    assert ids(tmp_path / "out") == _LEFT


def test_a_merge_that_is_done_is_not_done_again(parts: list[Path], tmp_path: Path) -> None:
    ld.merge_datasets(parts, tmp_path / "out")
    assert ld.merge_datasets(parts, tmp_path / "out").version == 1
    with pytest.raises(ConflictError, match="is not empty"):
        ld.merge_datasets(parts[::-1], tmp_path / "out")


@pytest.mark.parametrize("step", ["data.merge.copied:1", "data.merge.copied:3", "data.commit.before", "data.commit.between"])
def test_a_merge_that_was_cut_short_goes_on(parts: list[Path], tmp_path: Path, step: str) -> None:
    out = tmp_path / "out"
    with armed(f"{step}=raise"), pytest.raises(InjectedError):
        ld.merge_datasets(parts, out, max_workers=1)
    if step != "data.commit.between":
        with pytest.raises(NotFoundError):
            ids(out)
    assert ld.merge_datasets(parts, out).version == 1
    assert (ids(out), faults(out)) == (_LEFT, [])


def test_copies_of_one_dataset_can_be_merged(parts: list[Path], tmp_path: Path) -> None:
    write(tmp_path / "c", range(6))
    shutil.copytree(tmp_path / "c", tmp_path / "d")
    ld.delete_rows(tmp_path / "c", [0])
    ld.delete_rows(tmp_path / "d", [1])
    ld.merge_datasets([tmp_path / "c", tmp_path / "d"], tmp_path / "out")
    assert (ids(tmp_path / "out"), faults(tmp_path / "out")) == ([1, 2, 3, 4, 5, 0, 2, 3, 4, 5], [])
    ld.delete_rows(tmp_path / "out", [5])
    assert ids(tmp_path / "out") == [1, 2, 3, 4, 5, 2, 3, 4, 5]


def test_token_datasets_become_one_stream(tmp_path: Path) -> None:
    write(tmp_path / "a", range(5), fn=document)
    write(tmp_path / "b", range(5, 9), fn=document)
    ld.merge_datasets([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert documents(tmp_path / "out") == [document(number) for number in range(9)]
    write(tmp_path / "c", range(3), fn=float)
    with pytest.raises(ConfigError, match=r"is a token dataset and .* is none"):
        ld.merge_datasets([tmp_path / "a", tmp_path / "c"], tmp_path / "other")


@pytest.mark.parametrize("key", [_KEY, _OTHER], ids=["key", "password"])
def test_encrypted_datasets_are_merged_under_one_cipher(tmp_path: Path, key: Any) -> None:
    write(tmp_path / "a", range(5), encryption=key)
    write(tmp_path / "b", range(5, 9), encryption=key)
    places = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ConfigError, match="pass encryption="):
        ld.merge_datasets(places, tmp_path / "out")
    ld.merge_datasets(places, tmp_path / "out", encryption=key)
    assert (ids(tmp_path / "out", encryption=key), faults(tmp_path / "out", encryption=key)) == (list(range(9)), [])
    write(tmp_path / "c", range(3))
    with pytest.raises(ConfigError, match="is not encrypted, unlike the first"):
        ld.merge_datasets([tmp_path / "a", tmp_path / "c"], tmp_path / "other", encryption=key)


def test_places_must_be_several_different_and_go_together(parts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for places, words in (
        (str(parts[0]), "is one place"),
        (parts[:1], "takes two or more"),
        ([*parts, f"{parts[0]}/"], "twice"),
        ([*parts, out], "is among the inputs"),
    ):
        with pytest.raises(ConfigError, match=words):
            ld.merge_datasets(places, out)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_workers=0"):
        ld.merge_datasets(parts, out, 0)
    with pytest.raises(NotFoundError, match="there is no dataset"):
        ld.merge_datasets([parts[0], tmp_path / "none"], out)
    write(tmp_path / "text", range(3), fn=str)
    with pytest.raises(SchemaError, match="text is built unlike"):
        ld.merge_datasets([parts[0], tmp_path / "text"], out)
    write(tmp_path / "c", [3, 90], key_fn=key_of)
    with pytest.raises(ConfigError, match="both have a row of the key 3"):
        ld.merge_datasets([parts[0], tmp_path / "c"], out)


def test_a_damaged_chunk_is_not_taken_along(parts: list[Path], tmp_path: Path) -> None:
    chunk = next(parts[1].glob("*.ldc"))
    data = bytearray(chunk.read_bytes())
    data[-40] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(CorruptDataError, match="Nothing was merged"):
        ld.merge_datasets(parts, tmp_path / "out")
