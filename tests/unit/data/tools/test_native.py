"""The tools on datasets of our own format: inspected, converted, verified to the last byte, and repaired."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden.cli.main import main
from leyden.core.errors import ConflictError, CorruptDataError, NotFoundError
from leyden.core.storage import open_storage
from leyden.data import StreamingDataset, optimize
from leyden.data.format import deletes
from leyden.data.format.cipher import AesGcm, DatasetCiphers
from leyden.data.format.column import bytes_column_of
from leyden.data.format.filling import Filler
from leyden.data.format.manifest import Deleted, Manifest
from leyden.data.format.versions import commit
from leyden.data.interop.columns import fixed_column
from leyden.data.interop.litdata_read import LitdataSource
from leyden.data.interop.sniff import format_of
from leyden.data.tools.convert import convert
from leyden.data.tools.inspect import inspect
from leyden.data.tools.opening import Access, open_any
from leyden.data.tools.repair import repair
from leyden.data.tools.verify import verify
from tests.support.foreign_rows import samples
from tests.support.native_datasets import write_native

NODES = [{"kind": "leaf", "name": name, "type": kind, "nullable": False} for name, kind in (("id", "int"), ("text", "str"))]
TREE = {"kind": "dict", "keys": ["id", "text"], "children": NODES}
ROWS = [{"id": i, "text": f"text {i}"} for i in range(12)]


def block(start: int, rows: int) -> list[Any]:
    return [
        fixed_column("int64", np.arange(start, start + rows)),
        bytes_column_of([f"text {i}".encode() for i in range(start, start + rows)]),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "native"
    folder.mkdir()
    write_native(folder, TREE, [[block(0, 3), block(3, 4)], [block(7, 5)]])
    return folder


def chunk_of(folder: Path, number: int) -> Path:
    return sorted(folder.glob("*.ldc"))[number]


def test_our_own_format_is_inspected_and_converted(folder: Path, tmp_path: Path) -> None:
    found = inspect(str(folder))
    assert (found.format, found.num_rows, found.num_blocks, found.num_chunks) == ("leyden", 12, 3, 2)
    assert found.first[1] == ROWS[1] | {"id": "1"}
    assert samples(open_any(str(folder), Access())) == ROWS
    convert(str(folder), str(tmp_path / "litdata"), "litdata")
    assert samples(LitdataSource(str(tmp_path / "litdata"))) == ROWS


def test_any_changed_byte_is_found(folder: Path) -> None:
    assert not verify(str(folder)).faults
    file = chunk_of(folder, 1)
    data = file.read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert any(fault.chunk == file.name for fault in verify(str(folder)).faults), place
    file.write_bytes(data)
    assert not verify(str(folder)).faults


def test_a_changed_value_is_found_with_its_block(folder: Path) -> None:
    file = chunk_of(folder, 0)
    file.write_bytes(file.read_bytes().replace(b"text 4", b"text 9"))
    faults = verify(str(folder)).faults
    assert [(fault.chunk, fault.block) for fault in faults] == [(file.name, None), (file.name, 1)]


def test_cut_and_missing_files_are_found_fast(folder: Path) -> None:
    first, second = chunk_of(folder, 0), chunk_of(folder, 1)
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    assert [fault.chunk for fault in verify(str(folder), fast=True).faults] == [first.name, second.name]


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_a_lost_index_is_restored_from_the_manifest(damage: str, folder: Path) -> None:
    index = folder / "index.json"
    content = index.read_bytes()
    index.unlink()
    if damage == "torn":
        index.write_bytes(content[:50])
    assert format_of(str(folder)) == "leyden"
    assert repair(str(folder), dry_run=True).steps == ("copy the newest manifest to index.json",)
    assert not index.exists() or index.read_bytes() != content
    repair(str(folder))
    assert index.read_bytes() == content
    assert repair(str(folder)).steps == ()


def test_a_lost_manifest_is_rebuilt_from_the_footers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = Manifest.from_bytes((folder / "index.json").read_bytes(), "x").digest
    for file in [folder / "index.json", *(folder / "_leyden").iterdir()]:
        file.unlink()
    assert main(["data", "repair", str(folder), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == ["write version 1 of 2 chunks with 12 rows, of job a"]
    assert format_of(str(folder)) is None
    assert main(["data", "repair", str(folder)]) == 0
    assert "assumed: the job was finished" in capsys.readouterr().out
    source = open_any(str(folder), Access())
    assert source.digest == digest
    assert samples(source) == ROWS


def test_chunks_of_two_jobs_need_to_be_told_apart(folder: Path) -> None:
    for file in [folder / "index.json", *(folder / "_leyden").iterdir()]:
        file.unlink()
    write_native(folder, TREE, [[block(0, 2)]], job="b")
    for file in [folder / "index.json", *(folder / "_leyden").iterdir()]:
        file.unlink()
    with pytest.raises(ConflictError, match=r"a \(2\), b \(1\)"):
        repair(str(folder))
    with pytest.raises(NotFoundError, match="no chunks of job 'c'"):
        repair(str(folder), job="c")
    repair(str(folder), job="b")
    assert samples(open_any(str(folder), Access())) == ROWS[:2]


def test_encrypted_chunks_are_not_taken_for_plain_ones(tmp_path: Path) -> None:
    filler = Filler(tmp_path, job="a", unit="0", ciphers=DatasetCiphers(AesGcm(key=bytes(32))))
    filler.append({"id": 1})
    filler.finish()
    with pytest.raises(CorruptDataError, match="chunks are encrypted"):
        repair(str(tmp_path))


def test_deleted_rows_are_left_out(folder: Path, tmp_path: Path) -> None:
    storage = open_storage(folder)

    def without_two(newest: Manifest | None) -> Manifest:
        assert newest is not None
        first = newest.chunks[0]
        name = deletes.name_of(2, first.digest)
        storage.write(name, deletes.to_bytes([1, 4]))
        changed = dataclasses.replace(first, deleted=Deleted(name, 2))
        return dataclasses.replace(newest, version=2, parent=1, operation="delete", chunks=(changed, *newest.chunks[1:]))

    commit(storage, without_two)
    assert inspect(str(folder)).num_rows == 10
    convert(str(folder), str(tmp_path / "out"))
    assert samples(open_any(str(tmp_path / "out"), Access())) == [row for row in ROWS if row["id"] not in {1, 4}]
    assert inspect(str(folder), version=1).num_rows == 12
    assert not verify(str(folder)).faults
    (folder / deletes.name_of(2, Manifest.from_bytes((folder / "index.json").read_bytes(), "x").chunks[0].digest)).write_bytes(b"x")
    with pytest.raises(CorruptDataError):
        convert(str(folder), str(tmp_path / "other"))
    assert [fault.chunk.startswith("_leyden/deletes") for fault in verify(str(folder)).faults] == [True]


def test_nothing_to_repair_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing to repair"):
        repair(str(tmp_path))


def _mixed(number: int) -> dict[str, Any]:
    return {
        "list": [number, 2] if number < 3 else ["x", 1],
        "texts": ["é", "b"] if number < 3 else None if number == 3 else [1.5, "z"],
        "number": 2**60 + 1 if number < 3 else 1.5,
    }


@pytest.mark.parametrize("to", ["leyden", "litdata", "parquet"])
def test_lists_that_other_values_follow_are_lists_in_every_format(to: str, tmp_path: Path) -> None:
    rows = [_mixed(number) for number in range(6) if to != "litdata" or number != 3]
    for mode, part in (("append", rows[:3]), ("append", rows[3:])):
        optimize(_itself, part, str(tmp_path / "rows"), num_workers=0, mode=mode)
    convert(str(tmp_path / "rows"), str(tmp_path / "out"), to)
    wanted = [{**row, "number": float(row["number"])} for row in rows]
    assert StreamingDataset(str(tmp_path / "rows"))[:] == wanted
    found = StreamingDataset(str(tmp_path / "out"))[:]
    assert (_parsed(found) if to == "parquet" else found) == wanted


def _itself(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _parsed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of Parquet, which has JSON as text."""
    return [{**row, **{name: row[name] and json.loads(row[name]) for name in ("list", "texts")}} for row in rows]
