"""New columns for all rows: beside the chunks, read like any other, by jobs that go on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError, ConflictError
from leyden.core.failpoints import InjectedError, armed
from leyden.data.errors import SchemaError, UnitFailedError
from leyden.data.format.cipher import AesGcm
from tests.support.changes import document, faults, ids, key_of, opened, record, unnamed_files, write

_KEY = AesGcm(key=bytes(range(32)))


class _Wrapped:
    """Wraps keys as a key server would, badly."""

    algorithm, level = "xor", "chunk"

    def encrypt(self, data: bytes) -> bytes:
        return bytes(byte ^ 7 for byte in data)

    decrypt = encrypt


def length(sample: Any) -> dict[str, Any]:
    return {"length": len(sample["text"]), "vector": np.full(2, sample["id"], np.float32)}


def double(sample: Any) -> dict[str, Any]:
    return {"double": sample["id"] * 2}


def _add(place: Path, fn: Any, **options: Any) -> Any:
    return ld.add_columns(place, fn, output="numpy", **{"num_workers": 0, "fsync": False, **options})


def _samples(place: Path, **options: Any) -> list[dict[str, Any]]:
    found = opened(place, **options)[:]
    return [{key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in sample.items()} for sample in found]


def _expected(numbers: Any, *fns: Any) -> list[dict[str, Any]]:
    plain = [record(number) for number in numbers]
    made = [{**sample, **{key: value for fn in fns for key, value in fn(sample).items()}} for sample in plain]
    return [{key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in sample.items()} for sample in made]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write(tmp_path, range(10))
    return tmp_path


def test_new_columns_are_read_with_the_others(dataset: Path) -> None:
    chunks = {path.name: path.read_bytes() for path in dataset.glob("chunk-*.ldc")}
    done = _add(dataset, length)
    assert (done.version, done.operation, done.num_rows) == (2, "columns", 10)
    assert (_samples(dataset), faults(dataset)) == (_expected(range(10), length), [])
    assert _samples(dataset, version=1) == _expected(range(10))
    assert {path.name: path.read_bytes() for path in dataset.glob("chunk-*.ldc")} == chunks
    assert opened(dataset, columns=["vector"])[3]["vector"].tolist() == [3, 3]
    assert sorted(ld.inspect(str(dataset)).first[1]) == ["id", "length", "text", "vector"]
    _add(dataset, double, columns=["id"])
    assert (_samples(dataset), faults(dataset)) == (_expected(range(10), length, double), [])


def test_the_function_gets_tensors_unless_told_otherwise(dataset: Path) -> None:
    torch = pytest.importorskip("torch")
    _add(dataset, lambda sample: {"vector": torch.full((2,), sample["id"])})
    seen: dict[str, type] = {}
    for output in ("torch", "numpy"):

        def look(sample: Any, output: str = output) -> dict[str, Any]:
            seen[output] = type(sample["vector"])
            return {f"seen as {output}": True}

        ld.add_columns(dataset, look, output=output, columns=["vector"], num_workers=0)  # type: ignore[arg-type]
    assert seen == {"torch": torch.Tensor, "numpy": np.ndarray}


def test_the_same_call_again_returns_what_it_has_made(dataset: Path) -> None:
    _add(dataset, length)
    assert _add(dataset, length).version == 2
    write(dataset, range(3), mode="overwrite")
    assert _add(dataset, length).version == 4
    ld.rollback(dataset, 3)
    assert _add(dataset, length).version == 6
    assert (_samples(dataset), faults(dataset)) == (_expected(range(3), length), [])


def test_rows_that_are_deleted_are_never_seen(dataset: Path) -> None:
    ld.delete_rows(dataset, [0, 1, 3, 4, 5, 6, 7])  # a whole block, a whole chunk
    seen: list[int] = []

    def noted(sample: Any) -> dict[str, Any]:
        seen.append(sample["id"])
        return length(sample)

    _add(dataset, noted)
    assert seen == [2, 8, 9]
    assert (_samples(dataset), faults(dataset)) == (_expected([2, 8, 9], length), [])
    assert not any(leaf.nullable for leaf in opened(dataset).schema.leaves)


@pytest.mark.parametrize("encryption", [_KEY, _Wrapped()], ids=["aes", "external"])
def test_new_columns_are_encrypted_under_keys_of_their_own(tmp_path: Path, encryption: Any) -> None:
    write(tmp_path, range(6), encryption=encryption)
    ld.delete_rows(tmp_path, [0, 1, 2, 3])
    with pytest.raises(ConfigError, match="no encryption object"):
        _add(tmp_path, length)
    _add(tmp_path, length, encryption=encryption)
    _add(tmp_path, double, encryption=encryption)
    assert _samples(tmp_path, encryption=encryption) == _expected([4, 5], length, double)
    assert faults(tmp_path, encryption=encryption) == []


def test_appended_rows_bring_the_columns_and_may_get_more(dataset: Path) -> None:
    _add(dataset, length)
    write(dataset, range(10, 13), fn=lambda number: {**record(number), **length(record(number))}, mode="append")
    assert (_samples(dataset), faults(dataset)) == (_expected(range(13), length), [])
    _add(dataset, double)
    assert (_samples(dataset), faults(dataset)) == (_expected(range(13), length, double), [])
    with pytest.raises(SchemaError):
        write(dataset, [20], mode="append")


def test_updated_and_deleted_rows_keep_their_columns(dataset: Path) -> None:
    ld.build_keys_index(dataset, key_of)
    _add(dataset, length)
    with ld.dataset_update(dataset) as update:
        update[4] = {**update[4], "length": 99}
        update.commit()
    _add(dataset, double)
    ld.delete_rows(dataset, lambda batch: batch["double"] == 4)
    expected = _expected([number for number in range(10) if number != 2], length, double)
    expected[3]["length"] = 99
    assert (_samples(dataset), faults(dataset)) == (expected, [])
    with ld.dataset_update(dataset) as update:
        update[5] = {**update[5], "double": -1}
        update.commit()
    expected[4]["double"] = -1
    assert (_samples(dataset), faults(dataset), unnamed_files(dataset)) == (expected, [], [])


def test_datasets_with_other_column_files_can_be_merged(dataset: Path, tmp_path: Path) -> None:
    other, third = tmp_path / "other", tmp_path / "third"
    write(other, range(10, 16))
    _add(dataset, length)
    _add(dataset, double)
    _add(other, double)
    _add(other, length)
    write(third, [20], fn=lambda number: {**record(number), **length(record(number)), **double(record(number))})
    ld.merge_datasets([dataset, other, third], tmp_path / "out")
    assert _samples(tmp_path / "out") == _expected([*range(16), 20], length, double)
    assert faults(tmp_path / "out") == []


def test_a_column_may_be_empty_here_and_there(dataset: Path) -> None:
    _add(dataset, lambda sample: {"odd": f"odd {sample['id']}" if sample["id"] > 7 else None})
    assert [sample["odd"] for sample in _samples(dataset)] == [None] * 8 + ["odd 8", "odd 9"]
    assert faults(dataset) == []


def test_what_the_function_may_not_return(dataset: Path) -> None:
    for fn, words in (
        (lambda sample: 3, r"row 0: fn returned 3: it returns a dict"),
        (lambda sample: {}, "at least one new column"),
        (lambda sample: {"text": ""}, "column 'text' is there already"),
        (lambda sample: {"a": 1} if sample["id"] else {"b": 1}, "row 1: this sample is built unlike"),
        (lambda sample: {"a": 1 if sample["id"] < 9 else "x"}, "leaf 'a' is str"),
        (lambda sample: {"a": object()}, "row 0: leaf 'a'"),
    ):
        with pytest.raises(SchemaError, match=words):
            _add(dataset, fn)
    with pytest.raises(UnitFailedError, match="fn failed for row 3: ZeroDivisionError") as error:
        _add(dataset, lambda sample: {"a": 1 / (sample["id"] - 3)})
    assert "1 / (sample" in error.value.remote_traceback
    assert (len(ld.versions(dataset)), ids(dataset)) == (1, list(range(10)))


def test_samples_must_be_dicts_and_there_must_be_some(tmp_path: Path) -> None:
    write(tmp_path / "tokens", range(3), fn=document)
    with pytest.raises(ConfigError, match="single values: columns are added to dicts only"):
        _add(tmp_path / "tokens", length)
    write(tmp_path / "empty", range(3))
    ld.delete_rows(tmp_path / "empty", [0, 1, 2])
    with pytest.raises(ConfigError, match="no rows that are left"):
        _add(tmp_path / "empty", length)


def _while_asked(change: Any) -> Any:
    done: list[int] = []

    def fn(sample: Any) -> dict[str, Any]:
        if not done:
            done.append(1)
            change()
        return length(sample)

    return fn


def test_an_appender_and_new_columns_both_land(dataset: Path) -> None:
    _add(dataset, _while_asked(lambda: write(dataset, [10, 11, 12], mode="append")))
    assert (_samples(dataset), faults(dataset)) == (_expected(range(13), length), [])
    assert unnamed_files(dataset) == []


def test_a_deleter_and_an_updater_and_new_columns_all_land(dataset: Path) -> None:
    def change() -> None:
        ld.delete_rows(dataset, [9])
        with ld.dataset_update(dataset) as update:
            update[0] = {"id": 0, "text": "a new text"}
            update.commit()

    _add(dataset, _while_asked(change))
    expected = _expected(range(9), length)
    expected[0].update(text="a new text", length=10)
    assert (_samples(dataset), faults(dataset)) == (expected, [])


def test_of_two_columns_of_one_name_one_is_refused(dataset: Path) -> None:
    with pytest.raises(ConflictError, match="another writer has added a column 'length'"):
        _add(dataset, _while_asked(lambda: _add(dataset, length)))
    assert (len(ld.versions(dataset)), _samples(dataset)) == (2, _expected(range(10), length))


@pytest.mark.parametrize(
    "step",
    ["data.done.before:2", "data.done.after:1", "data.columns.made", "data.commit.before", "data.commit.between", "data.commit.after"],
)
def test_a_job_that_was_cut_short_goes_on(dataset: Path, step: str) -> None:
    with armed(f"{step}=raise"), pytest.raises(InjectedError):
        _add(dataset, length)
    is_old = step not in {"data.commit.between", "data.commit.after"}
    assert _samples(dataset) == (_expected(range(10)) if is_old else _expected(range(10), length))
    assert _add(dataset, length).version == 2
    assert (_samples(dataset), faults(dataset), unnamed_files(dataset)) == (_expected(range(10), length), [], [])


def test_worker_processes_make_the_same(dataset: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", range(10))
    assert _add(dataset, length, num_workers=2).digest == _add(tmp_path / "other", length).digest
    assert _samples(dataset) == _expected(range(10), length)
