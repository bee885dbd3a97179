"""Rows are deleted by number, mask or function; keys, encryption, token datasets and other writers are minded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError, ConflictError, NotFoundError
from leyden.core.failpoints import InjectedError, armed
from leyden.data.format.cipher import AesGcm
from tests.support.changes import document, documents, faults, ids, key_of, opened, unnamed_files, write

_KEY = AesGcm(key=bytes(range(32)))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write(tmp_path, range(10))
    return tmp_path


@pytest.mark.parametrize(
    ("rows", "left"),
    [
        ([3], [0, 1, 2, 4, 5, 6, 7, 8, 9]),
        ([9, 0, -1, 0], [1, 2, 3, 4, 5, 6, 7, 8]),
        (np.array([4, 5, 6, 7]), [0, 1, 2, 3, 8, 9]),
        (slice(None, None, 2), [1, 3, 5, 7, 9]),
        (np.arange(10) > 2, [0, 1, 2]),
        (range(10), []),
        (lambda batch: batch["id"] % 3 == 0, [1, 2, 4, 5, 7, 8]),
        (lambda batch: [text.endswith("1") for text in batch["text"]], [0, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_rows_are_gone_from_the_next_version_on(dataset: Path, rows: Any, left: list[int]) -> None:
    done = ld.delete_rows(dataset, rows)
    assert (done.version, done.operation, done.num_rows) == (2, "delete", len(left))
    assert (ids(dataset), faults(dataset)) == (left, [])
    assert ids(dataset, version=1) == list(range(10))


def test_numbers_count_the_rows_that_are_left(dataset: Path) -> None:
    ld.delete_rows(dataset, [0, 5])
    ld.delete_rows(dataset, [0, 4])
    assert ids(dataset) == [2, 3, 4, 7, 8, 9]
    ld.delete_rows(dataset, lambda batch: batch["id"] == 7, columns=["id"])
    assert ids(dataset) == [2, 3, 4, 8, 9]


def test_nothing_to_delete_makes_no_version(dataset: Path) -> None:
    assert ld.delete_rows(dataset, []).version == 1
    assert ld.delete_rows(dataset, lambda batch: batch["id"] > 50).version == 1


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([10], NotFoundError, "row 10 is not there: version 1 .* has 10 rows"),
        ([-11], NotFoundError, "row -11"),
        (3, ConfigError, r"pass \[number\]"),
        ([0.5], ConfigError, "whole numbers"),
        ([True, False], ConfigError, "a mask of all 10 rows"),
        (lambda batch: batch["id"], ConfigError, "returned int64 .* return one bool for each row"),
        (lambda batch: True, ConfigError, r"of shape \(\) for a batch"),
    ],
)
def test_what_is_not_accepted_is_named(dataset: Path, rows: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ld.delete_rows(dataset, rows)
    assert len(ld.versions(dataset)) == 1


def test_columns_that_are_not_there_are_named(dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no leaf 'ids'.*'id'"):
        ld.delete_rows(dataset, lambda batch: batch["id"] == 1, columns=["ids"])


def test_keys_of_deleted_rows_are_gone_and_may_come_again(tmp_path: Path) -> None:
    write(tmp_path, range(6), key_fn=key_of)
    ld.delete_rows(tmp_path, [2, 3])
    dataset = opened(tmp_path)
    assert dataset.get_by_key(4)["id"] == 4
    with pytest.raises(NotFoundError, match="no row of the key 2"):
        dataset.get_by_key(2)
    write(tmp_path, [2], key_fn=key_of, mode="append")
    assert opened(tmp_path).get_by_key(2)["id"] == 2
    assert (ids(tmp_path), faults(tmp_path)) == ([0, 1, 4, 5, 2], [])


def test_encrypted_rows_are_deleted_by_number_without_the_key(tmp_path: Path) -> None:
    write(tmp_path, range(6), encryption=_KEY)
    ld.delete_rows(tmp_path, [1])
    with pytest.raises(ConfigError, match="no encryption object was provided"):
        ld.delete_rows(tmp_path, lambda batch: batch["id"] == 2)
    ld.delete_rows(tmp_path, lambda batch: batch["id"] == 2, encryption=_KEY)
    assert (ids(tmp_path, encryption=_KEY), faults(tmp_path, encryption=_KEY)) == ([0, 3, 4, 5], [])


@pytest.mark.parametrize("encryption", [None, _KEY], ids=["plain", "encrypted"])
def test_documents_leave_the_stream_of_tokens(tmp_path: Path, encryption: Any) -> None:
    every = [document(number) for number in range(12)]
    write(tmp_path, range(12), fn=document, encryption=encryption)
    done = ld.delete_rows(tmp_path, [0, 5, 6], encryption=encryption)
    left = [row for number, row in enumerate(every) if number not in {0, 5, 6}]
    assert done.num_rows == len(left)
    assert documents(tmp_path, encryption=encryption) == left
    assert documents(tmp_path, version=1, encryption=encryption) == every
    windows = opened(tmp_path, item_loader=ld.TokensLoader(block_size=2), encryption=encryption)[:]
    stream = [token for row in left for token in row]
    assert np.concatenate(windows).tolist() == stream[: len(stream) // 2 * 2]
    assert faults(tmp_path, encryption=encryption) == []


def test_keys_of_documents_move_with_them(tmp_path: Path) -> None:
    write(tmp_path, range(12), fn=document, key_fn=lambda sample: f"{sample[0]}")
    ld.delete_rows(tmp_path, range(1, 7))
    dataset = opened(tmp_path)
    assert {key: int(dataset[key][0]) for key in ("0", "7", "11")} == {"0": 0, "7": 7, "11": 11}
    with pytest.raises(NotFoundError):
        dataset["3"]


def test_all_documents_can_go(tmp_path: Path) -> None:
    write(tmp_path, range(3), fn=document)
    assert ld.delete_rows(tmp_path, slice(None)).num_chunks == 0
    assert documents(tmp_path) == []


class _Meanwhile:
    """Commits something else while a function of `delete_rows` looks at its first batch."""

    def __init__(self, change: Any) -> None:
        self._change, self._is_done = change, False

    def __call__(self, batch: Any) -> Any:
        if not self._is_done:
            self._is_done = True
            self._change()
        return batch["id"] == 1


def test_an_appender_and_a_deleter_both_land(dataset: Path) -> None:
    done = ld.delete_rows(dataset, _Meanwhile(lambda: write(dataset, [10, 11], mode="append")))
    assert done.version == 3
    assert (ids(dataset), faults(dataset)) == ([0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [])


def test_two_deleters_of_other_chunks_both_land(dataset: Path) -> None:
    ld.delete_rows(dataset, _Meanwhile(lambda: ld.delete_rows(dataset, [9])))
    assert ids(dataset) == [0, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("other", [[2], slice(None)])
def test_of_two_deleters_of_one_chunk_one_is_refused(dataset: Path, other: Any) -> None:
    with pytest.raises(ConflictError, match=r"version 2 \(delete\) changed rows of chunk-.*Nothing was committed"):
        ld.delete_rows(dataset, _Meanwhile(lambda: ld.delete_rows(dataset, other)))
    assert (len(ld.versions(dataset)), unnamed_files(dataset)) == (2, [])


def test_a_deleter_of_what_was_overwritten_is_refused(dataset: Path) -> None:
    with pytest.raises(ConflictError, match="overwrite"):
        ld.delete_rows(dataset, _Meanwhile(lambda: write(dataset, [70, 71], mode="overwrite")))
    assert ids(dataset) == [70, 71]


@pytest.mark.parametrize("fn", [None, document])
@pytest.mark.parametrize("step", ["data.change.file", "data.commit.before", "data.commit.between", "data.commit.after"])
def test_a_deletion_that_is_cut_short_is_done_or_not(tmp_path: Path, step: str, fn: Any) -> None:
    options = {} if fn is None else {"fn": fn}
    write(tmp_path, range(8), **options)
    with armed(f"{step}=raise"), pytest.raises(InjectedError):
        ld.delete_rows(tmp_path, [0, 7])
    version = 1 if step in {"data.change.file", "data.commit.before"} else 2
    assert (opened(tmp_path).version, len(opened(tmp_path)), faults(tmp_path)) == (version, 8 if version == 1 else 6, [])
    if version == 1:
        assert unnamed_files(tmp_path) == []
