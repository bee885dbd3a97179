"""What jobs accept: every other value is told with what is accepted, before anything is done."""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leyden.data as ld
from leyden.core.errors import ConfigError


def row(number: int) -> dict[str, int]:
    return {"id": number}


def written(folder: Path, inputs: Any = (1, 2), **settings: Any) -> list[int]:
    ld.optimize(row, inputs, str(folder), num_workers=0, **settings)
    return [each["id"] for each in ld.StreamingDataset(str(folder))[:]]


REFUSED = [
    *({name: value} for name in ("block_rows", "chunk_size", "batch_size") for value in (0, -1, 2.5, True, "4")),
    *({name: value} for name in ("block_bytes", "chunk_bytes", "memory_limit") for value in (0, -1, 1.5, True, "4 rows")),
    *({"retries": value} for value in (-1, 1.5, True, "2")),
    *({"timeout": value} for value in (0, -1, float("nan"), "3", True)),
    *({"fast_dev_run": value} for value in (0, -1, "yes")),
    *({name: "yes"} for name in ("align_chunking", "verbose", "resume", "fsync", "allow_pickle", "encryption", "reader", "key_fn")),
    {"weights": 3},
    {"weights": ["a", "b"]},
    {"weights": [1.0]},
    *({"weights": [1, value]} for value in (-1, float("nan"), float("inf"))),
    {"reader": ld.ParquetReader},
    {"compression": 5},
    {"storage_options": 3},
    {"encryption": 3},
]


@pytest.mark.parametrize("given", REFUSED, ids=repr)
def test_what_is_not_accepted_is_named(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        written(tmp_path, **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [{"chunk_bytes": 0}, {"chunk_size": 0}, {"chunk_size": True}], ids=repr)
def test_conversions_accept_the_same_sizes(tmp_path: Path, given: dict[str, Any]) -> None:
    written(tmp_path / "a")
    with pytest.raises(ConfigError, match=next(iter(given))):
        ld.convert(str(tmp_path / "a"), str(tmp_path / "b"), **given)
    with pytest.raises(ConfigError, match="num_rows='4' is not accepted"):
        ld.ParquetReader(num_rows="4")  # type: ignore[arg-type]


def test_a_password_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it takes AesGcm") as told:
        written(tmp_path, encryption="secret")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("given", [5, {1, 2}, {"a": 1}, "text", deque(), []], ids=repr)
def test_inputs_are_many_and_in_order(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ConfigError, match="inputs="):
        written(tmp_path, given)


ORDERED = [deque([1, 2]), (1, 2), range(1, 3), np.array([1, 2]), {1: 0, 2: 0}.keys()]


@pytest.mark.parametrize("given", ORDERED, ids=lambda each: type(each).__name__)
def test_anything_with_an_order_is_inputs(tmp_path: Path, given: Any) -> None:
    assert written(tmp_path, given) == [1, 2]


def test_a_trial_run_tries_the_first_inputs_and_their_weights(tmp_path: Path) -> None:
    assert written(tmp_path / "ten", range(20), fast_dev_run=True, weights=np.ones(20)) == list(range(10))
    assert written(tmp_path / "three", range(20), fast_dev_run=3, weights=[1] * 20) == [0, 1, 2]


def test_a_column_without_a_value_is_read(tmp_path: Path) -> None:
    ld.optimize(lambda number: {"id": number, "note": None}, [1, 2], str(tmp_path), num_workers=0, fsync=False)
    assert ld.StreamingDataset(str(tmp_path))[:] == [{"id": 1, "note": None}, {"id": 2, "note": None}]
    with pytest.raises(ConfigError, match="leaf 'note' is None in a sample of this batch"):
        next(iter(ld.StreamingDataLoader(ld.StreamingDataset(str(tmp_path)), batch_size=2)))


def test_an_output_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file, and a dataset is a folder"):
        written(tmp_path / "file")
