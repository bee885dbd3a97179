"""Samples take the place of others, by key or number; structure, encryption and other writers are minded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError, ConflictError, NotFoundError
from leyden.core.failpoints import InjectedError, armed
from leyden.data.errors import SchemaError
from leyden.data.format.cipher import AesGcm
from tests.support.changes import document, documents, faults, ids, key_of, opened, record, unnamed_files, write

_KEY = AesGcm(key=bytes(range(32)))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write(tmp_path, range(10), key_fn=key_of)
    return tmp_path


def test_rows_are_replaced_by_key_and_keep_their_numbers(dataset: Path) -> None:
    with ld.dataset_update(dataset) as update:
        update[3] = {"id": 3, "text": "a much longer text than before"}
        update[9] = {"text": "nine", "id": 9}
        assert len(update) == 2
        done = update.commit()
    assert (done.version, done.operation, done.num_rows) == (2, "update", 10)
    found = opened(dataset)
    assert [sample["text"] for sample in found[2:5]] == ["row 2", "a much longer text than before", "row 4"]
    assert found.get_by_key(9) == {"id": 9, "text": "nine"}
    assert (ids(dataset), faults(dataset)) == (list(range(10)), [])
    assert opened(dataset, version=1)[3] == record(3)


def test_without_keys_rows_are_found_by_number(tmp_path: Path) -> None:
    write(tmp_path, range(8))
    ld.delete_rows(tmp_path, [0, 2])
    with ld.dataset_update(tmp_path) as update:
        update[1] = {**update[1], "text": "three"}
        update[-1] = record(70)
        assert update[-1] == record(70)
        update.commit()
        update[0] = record(10)
        assert update.commit().version == 4
    assert opened(tmp_path)[:] == [record(10), {"id": 3, "text": "three"}, record(4), record(5), record(6), record(70)]
    assert faults(tmp_path) == []


def test_without_commit_nothing_happens(dataset: Path) -> None:
    with pytest.warns(UserWarning, match="1 rows .* were set and not committed"), ld.dataset_update(dataset) as update:
        update[3] = record(4)
    with ld.dataset_update(dataset) as update:
        assert update.commit().version == 1
    assert (len(ld.versions(dataset)), unnamed_files(dataset)) == (1, [])


def test_what_is_not_there_or_built_otherwise_is_refused_at_once(dataset: Path, tmp_path: Path) -> None:
    with ld.dataset_update(dataset) as update:
        with pytest.raises(NotFoundError, match="no row of the key '3'"):
            update["3"] = record(3)
        with pytest.raises(SchemaError, match="the new sample of 3: leaf 'id' is str"):
            update[3] = {"id": "three", "text": ""}
        with pytest.raises(SchemaError, match="a dict with keys 'id'"):
            update[3] = {"id": 3}
        assert len(update) == 0
    write(tmp_path / "plain", range(3))
    with ld.dataset_update(tmp_path / "plain") as update:
        with pytest.raises(ConfigError, match="build_keys_index"):
            update["a"] = record(3)
        with pytest.raises(NotFoundError, match="row 3 is not there"):
            update[3] = record(3)


def test_a_new_sample_may_open_the_schema(tmp_path: Path) -> None:
    samples = [{"n": 1, "v": np.zeros(3, np.float32), "t": "x"} for _ in range(6)]
    write(tmp_path, range(6), fn=samples.__getitem__)
    with ld.dataset_update(tmp_path) as update:
        update[1] = {"n": 2.5, "v": np.ones((2,), np.float32), "t": None}
        update.commit()
    found = opened(tmp_path)[:]
    assert [sample["n"] for sample in found] == [1, 2.5, 1, 1, 1, 1]
    assert [sample["t"] for sample in found] == ["x", None, "x", "x", "x", "x"]
    assert [len(sample["v"]) for sample in found] == [3, 2, 3, 3, 3, 3]
    assert faults(tmp_path) == []


@pytest.mark.parametrize("encryption", [None, _KEY], ids=["plain", "encrypted"])
def test_documents_are_replaced(tmp_path: Path, encryption: Any) -> None:
    write(tmp_path, range(9), fn=document, encryption=encryption)
    with ld.dataset_update(tmp_path, encryption=encryption) as update:
        update[4] = [70_000, 1]
        update[5] = []
        update.commit()
    expected = [document(number) for number in range(9)]
    expected[4:6] = [[70_000, 1], []]
    assert documents(tmp_path, encryption=encryption) == expected
    windows = opened(tmp_path, item_loader=ld.TokensLoader(block_size=3), encryption=encryption)[:]
    stream = [token for row in expected for token in row]
    assert np.concatenate(windows).tolist() == stream[: len(stream) // 3 * 3]
    assert faults(tmp_path, encryption=encryption) == []


def test_an_encrypted_dataset_needs_its_key_at_once(tmp_path: Path) -> None:
    write(tmp_path, range(6), encryption=_KEY)
    with pytest.raises(ConfigError, match="no encryption object was provided"):
        ld.dataset_update(tmp_path)
    with ld.dataset_update(tmp_path, encryption=_KEY) as update:
        update[5] = record(50)
        update.commit()
    assert ids(tmp_path, encryption=_KEY) == [0, 1, 2, 3, 4, 50]


def test_an_appender_and_an_updater_both_land(dataset: Path) -> None:
    with ld.dataset_update(dataset) as update:
        update[3] = {"id": 3, "text": "new"}
        write(dataset, [10, 11], mode="append", key_fn=key_of)
        ld.delete_rows(dataset, [9])
        update.commit()
    found = opened(dataset)
    assert (found[3]["text"], found.get_by_key(11)["id"], faults(dataset)) == ("new", 11, [])
    assert ids(dataset) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]


def test_an_update_of_a_chunk_that_lost_rows_meanwhile_is_refused(dataset: Path) -> None:
    update = ld.dataset_update(dataset)
    update[3] = {"id": 3, "text": "new"}
    ld.delete_rows(dataset, [2])
    with pytest.raises(ConflictError, match="Nothing was committed"):
        update.commit()
    assert (len(ld.versions(dataset)), unnamed_files(dataset)) == (2, [])


@pytest.mark.parametrize("step", ["data.change.file", "data.commit.before", "data.commit.between", "data.commit.after"])
def test_an_update_that_is_cut_short_is_done_or_not(dataset: Path, step: str) -> None:
    update = ld.dataset_update(dataset)
    update[3] = {"id": 3, "text": "new"}
    update[9] = {"id": 9, "text": "new"}
    with armed(f"{step}=raise"), pytest.raises(InjectedError):
        update.commit()
    is_old = step in {"data.change.file", "data.commit.before"}
    texts = [sample["text"] for sample in opened(dataset)[:]]
    assert texts.count("new") == (0 if is_old else 2)
    assert (faults(dataset), unnamed_files(dataset)) == ([], [])
