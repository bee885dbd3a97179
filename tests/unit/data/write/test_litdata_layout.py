"""`layout="litdata"`: files and index of LitData's layout, versions behind them, and what LitData has no place for."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leyden import data as ld
from leyden.core.errors import ConfigError
from leyden.core.failpoints import InjectedError, armed
from leyden.core.storage import open_storage
from leyden.data.errors import DatasetExistsError, SchemaError
from leyden.data.write.journal import Journal
from leyden.data.write.litdata_layout import reserve_ranks

pytest.importorskip("cryptography")


def sample(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "score": number if number < 70 else number / 2,
        "text": f"row {number}",
        "vector": np.full(number % 3 + 1, number, np.float32),
        "matrix": torch.full((2, number % 4 + 1), number, dtype=torch.int32),
        "names": ["a"] * (number % 3),
    }


def tokens(number: int) -> np.ndarray:
    return np.arange(number, number + 7, dtype=np.int32)


def plain(number: int) -> dict[str, Any]:
    return {"id": number, "text": f"row {number}"}


def maybe(number: int) -> dict[str, Any]:
    return {"id": None if number == 99 else number}


def write(folder: Path, count: int = 100, function: Any = sample, **options: Any) -> ld.Report:
    return ld.optimize(function, list(range(count)), str(folder), num_workers=0, verbose=False, **{"layout": "litdata", **options})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "_leyden")


def index(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "index.json").read_bytes())


def ids(folder: Path, **options: Any) -> list[int]:
    return [row["id"] for row in ld.StreamingDataset(str(folder), **options)]


def test_rows_come_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    report = write(tmp_path, chunk_size=30)
    assert (report.num_rows, report.num_chunks, report.version) == (100, 4, 1)
    assert names(tmp_path) == ["chunk-0-0.bin", "chunk-0-1.bin", "chunk-0-2.bin", "chunk-0-3.bin", "index.json"]
    assert [chunk["chunk_size"] for chunk in index(tmp_path)["chunks"]] == [30, 30, 30, 10]
    rows = ld.StreamingDataset(str(tmp_path))[:]
    for number, row in enumerate(rows):
        expected = sample(number)
        assert (row["id"], row["score"], row["text"], row["names"]) == (number, expected["score"], expected["text"], expected["names"])
        assert np.array_equal(row["vector"], expected["vector"])
        assert torch.equal(row["matrix"], expected["matrix"])


@pytest.mark.parametrize("level", [None, "batch", "sample", "chunk"])
def test_compressions(tmp_path: Path, level: str | None) -> None:
    write(tmp_path, compression="zstd", compression_level=level, compression_batch_size=8)
    assert index(tmp_path)["config"]["compression_level"] == {None: "batch", "chunk": None}.get(level, level)
    assert ids(tmp_path) == list(range(100))


def test_tokens(tmp_path: Path) -> None:
    write(tmp_path, function=tokens, item_loader=ld.TokensLoader(), chunk_size=210)
    assert [chunk["dim"] for chunk in index(tmp_path)["chunks"]] == [210, 210, 210, 70]
    windows = ld.StreamingDataset(str(tmp_path), item_loader=ld.TokensLoader(block_size=7))[:]
    assert [window.tolist() for window in windows] == [tokens(number).tolist() for number in range(100)]


@pytest.mark.parametrize("level", ["sample", "chunk"])
def test_encrypted_rows_are_never_in_the_clear(tmp_path: Path, level: Any) -> None:
    key = ld.FernetEncryption("secret", level=level)
    with armed("data.finalise.before=raise"), pytest.raises(InjectedError):
        write(tmp_path, encryption=key)
    assert not any(b"row 7" in path.read_bytes() for path in tmp_path.glob("*chunk*"))
    write(tmp_path, encryption=key)
    assert ids(tmp_path, encryption=key) == list(range(100))
    with pytest.raises(ConfigError, match="FernetEncryption or RSAEncryption"):
        write(tmp_path / "b", encryption=ld.AesGcm(key=bytes(32)))


def test_the_dataset_keeps_its_layout(tmp_path: Path) -> None:
    write(tmp_path, 10)
    with pytest.raises(DatasetExistsError):
        write(tmp_path, 11)
    with pytest.raises(DatasetExistsError):
        write(tmp_path, 11, layout=None)
    assert write(tmp_path, 5, mode="append", layout=None).version == 2
    assert ids(tmp_path) == [*range(10), *range(5)]
    with pytest.warns(UserWarning, match="already appended as version 2"):
        assert write(tmp_path, 5, mode="append").version == 2
    with pytest.raises(ConfigError, match="layout='leyden', but the dataset at"):
        write(tmp_path, 5, mode="overwrite", layout="leyden")
    assert write(tmp_path, 3, mode="overwrite", layout=None).version == 3
    assert ids(tmp_path) == [0, 1, 2]
    assert names(tmp_path) == ["chunk-0-0.bin", "chunk-1-0.bin", "chunk-2-0.bin", "index.json"], "readers of old indexes read on"
    ld.optimize(sample, [1, 2], str(tmp_path / "ours"), num_workers=0)
    with pytest.raises(ConfigError, match="layout='litdata', but the dataset at"):
        write(tmp_path / "ours", 5, mode="append")


def test_the_layout_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_DATA_LAYOUT", "litdata")
    write(tmp_path, 10, layout=None)
    assert names(tmp_path) == ["chunk-0-0.bin", "index.json"]


def test_a_finished_job_is_not_done_again(tmp_path: Path) -> None:
    first = write(tmp_path, 10)
    before = (tmp_path / "index.json").read_bytes()
    assert write(tmp_path, 10)._replace(seconds=0) == first._replace(seconds=0)
    assert (tmp_path / "index.json").read_bytes() == before


@pytest.mark.parametrize(
    "step", ["data.pack.written", "data.finalise.before", "data.commit.before", "data.commit.between", "data.commit.after"]
)
@pytest.mark.parametrize("mode", [None, "append"])
def test_stopped_at_any_step_it_goes_on(tmp_path: Path, step: str, mode: str | None) -> None:
    if mode:
        write(tmp_path, 20, plain)
    with armed(f"{step}=raise"), pytest.raises((InjectedError, RuntimeError)):
        write(tmp_path, 100, plain, mode=mode)
    if mode:
        assert ids(tmp_path)[:20] == list(range(20)), "what is read meanwhile is whole"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "already appended")  # if it was committed before it stopped
        write(tmp_path, 100, plain, mode=mode)
    assert ids(tmp_path) == [*range(20 if mode else 0), *range(100)]
    assert len(names(tmp_path)) == (3 if mode else 2)


def test_an_index_that_litdata_has_written_since_is_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, 10)
    found = index(tmp_path)
    found["chunks"].append({**found["chunks"][0], "filename": "chunk-0-7.bin"})
    (tmp_path / "chunk-0-7.bin").write_bytes((tmp_path / "chunk-0-0.bin").read_bytes())
    (tmp_path / "index.json").write_text(json.dumps(found))
    write(tmp_path, 3, mode="append")
    assert ids(tmp_path) == [*range(10), *range(10), *range(3)]


def test_what_litdata_has_no_place_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="leaf 'id' holds None"):
        write(tmp_path / "a", function=maybe)
    write(tmp_path / "b", 10)
    with pytest.raises(SchemaError, match="cannot join rows"):
        write(tmp_path / "b", 10, function=float, mode="append")
    with pytest.raises(ConfigError, match="zstd"):
        write(tmp_path / "c", compression="lz4")
    with pytest.raises(ConfigError, match="compression_level='row'"):
        write(tmp_path / "c", compression_level="row")
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(DatasetExistsError, match="another kind of dataset"):
        write(tmp_path, 3)


def test_ranks_are_reserved_once(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    one, two = Journal(storage, "a"), Journal(storage, "b")
    assert [reserve_ranks(one, 3), reserve_ranks(two, 2), reserve_ranks(one, 3), reserve_ranks(two, 2)] == [0, 3, 0, 3]
