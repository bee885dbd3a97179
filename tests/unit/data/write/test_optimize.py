"""`optimize` in this process: versions, policies, keys, tokens, encryption, refusals."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError
from leyden.core.storage import open_storage
from leyden.data.errors import DatasetExistsError, SchemaError, UnitFailedError
from leyden.data.format.keys import KeyIndex
from leyden.data.format.versions import open_manifest


def _row(number: int) -> dict[str, int]:
    return {"id": number}


def _two(number: int) -> Iterator[dict[str, int]]:
    yield {"id": 2 * number}
    yield {"id": 2 * number + 1}


def _even(number: int) -> dict[str, int] | None:
    return {"id": number} if number % 2 == 0 else None


def _odd_fails(number: int) -> dict[str, int]:
    if number % 2:
        raise ValueError("odd")
    return {"id": number}


def _mixed(number: int) -> dict[str, object]:
    return {"id": number} if number < 5 else {"name": "five"}


def _tokens(number: int) -> np.ndarray:
    return np.arange(number, dtype=np.int32)


def _key(sample: dict[str, int]) -> str:
    return f"k{sample['id']}"


def _fails_while_marked(path: str) -> dict[str, str]:
    if Path(path).exists():
        raise OSError("marked")
    return {"path": path}


def _ids(folder: Path) -> list[int]:
    return [row["id"] for row in ld.StreamingDataset(str(folder))]


def test_append_and_overwrite_make_versions(tmp_path: Path) -> None:
    assert ld.optimize(_row, range(5), tmp_path, num_workers=0).version == 1
    with pytest.raises(DatasetExistsError, match="HINT: If you want to append/overwrite"):
        ld.optimize(_row, range(6), tmp_path, num_workers=0)
    assert ld.optimize(_row, range(3), tmp_path, mode="append", num_workers=0).version == 2
    assert _ids(tmp_path) == [0, 1, 2, 3, 4, 0, 1, 2]
    with pytest.warns(UserWarning, match="already appended as version 2"):
        assert ld.optimize(_row, range(3), tmp_path, mode="append", num_workers=0).version == 2
    assert ld.optimize(_row, range(3), tmp_path, mode="append", num_workers=0, resume=False).version == 3
    assert ld.optimize(_row, range(2), tmp_path, mode="overwrite", num_workers=0).version == 4
    assert _ids(tmp_path) == [0, 1]


def test_generators_give_several_and_none_leaves_out(tmp_path: Path) -> None:
    assert ld.optimize(_two, range(5), tmp_path / "two", num_workers=0).num_rows == 10
    assert _ids(tmp_path / "two") == list(range(10))
    assert ld.optimize(_even, range(5), tmp_path / "even", num_workers=0).num_rows == 3
    assert _ids(tmp_path / "even") == [0, 2, 4]


def test_policies(tmp_path: Path) -> None:
    with pytest.raises(UnitFailedError, match=r"input number 1 \(1\) could not be processed: ValueError: odd(?s:.*)_odd_fails"):
        ld.optimize(_odd_fails, range(4), tmp_path / "a", num_workers=0)
    with pytest.warns(UserWarning, match="2 inputs failed"):
        assert ld.optimize(_odd_fails, range(4), tmp_path / "b", num_workers=0, on_error="skip").skipped == 2
    report = ld.optimize(_odd_fails, range(4), tmp_path / "c", num_workers=0, on_error="quarantine", verbose=False)
    assert (report.num_rows, report.quarantined) == (2, 2)


def test_a_failed_job_goes_on_in_the_same_process(tmp_path: Path) -> None:
    marks = [str(tmp_path / str(index)) for index in range(3)]
    Path(marks[1]).touch()
    with pytest.raises(UnitFailedError):
        ld.optimize(_fails_while_marked, marks, tmp_path / "out", num_workers=0)
    Path(marks[1]).unlink()
    assert ld.optimize(_fails_while_marked, marks, tmp_path / "out", num_workers=0).num_rows == 3


def test_rows_of_another_structure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        ld.optimize(_mixed, range(10), tmp_path, num_workers=0)


def test_keys_are_found(tmp_path: Path) -> None:
    ld.optimize(_row, range(5), tmp_path, num_workers=0, key_fn=_key)
    ld.optimize(_row, range(5, 8), tmp_path, num_workers=0, key_fn=_key, mode="append")
    storage = open_storage(tmp_path)
    keys = open_manifest(storage).keys
    assert keys is not None
    assert KeyIndex(storage.read(keys["name"]), "keys").find("k6") == 6


def test_token_datasets(tmp_path: Path) -> None:
    ld.optimize(_tokens, range(1, 9), tmp_path, num_workers=0, item_loader=ld.TokensLoader())
    assert len(ld.StreamingDataset(str(tmp_path), item_loader=ld.TokensLoader(block_size=4))) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "add"}, "should be either `append` or `overwrite`"),
        ({"num_nodes": 2}, "leyden run --nodes"),
        ({"align_chunking": True}, "chunk_size needs to be defined"),
        ({"align_chunking": True, "chunk_size": 4, "keep_data_ordered": False}, "align_chunking requires"),
        ({"inputs": []}, "is empty"),
        ({"inputs": "name"}, "pass a list"),
        ({"inputs": None}, "exactly one"),
        ({"num_workers": -1}, "whole number"),
        ({"compression": "gzip"}, "is not known"),
        ({"item_loader": ld.ParquetLoader()}, "ParquetLoader"),
        ({"on_error": "ignore"}, "'raise', 'skip', 'quarantine'"),
        ({"layout": "mds"}, "'leyden' or 'litdata'"),
        ({"chunk_bytes": "much"}, "chunk_bytes='much'"),
    ],
)
def test_refusals(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"inputs": [1], "num_workers": 0, **arguments}
    with pytest.raises(ConfigError, match=message):
        ld.optimize(_row, output_dir=str(tmp_path), **given)  # type: ignore[arg-type]


def test_a_script_that_creates_and_appends_can_be_run_again(tmp_path: Path) -> None:
    for _ in range(2):
        ld.optimize(_row, range(3), tmp_path, num_workers=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ld.optimize(_row, range(3, 5), tmp_path, num_workers=0, mode="append")
    assert _ids(tmp_path) == list(range(5))
