"""`verify` names every fault with its file, block and column, and the command ends with status 1."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from leyden.cli.main import main
from leyden.data.format.column import bytes_column_of
from leyden.data.format.schema import Schema
from leyden.data.interop.columns import fixed_column
from leyden.data.interop.litdata_write import LitdataSettings, LitdataWriter
from leyden.data.tools.verify import verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nodes = [{"kind": "leaf", "name": name, "type": kind, "nullable": False} for name, kind in (("id", "int"), ("text", "str"))]
    tree = {"kind": "dict", "keys": ["id", "text"], "children": nodes}
    writer = LitdataWriter(tree, Schema.from_json(tree).leaves, LitdataSettings(chunk_size=4))
    columns = [fixed_column("int64", np.arange(10)), bytes_column_of([f"text {i}".encode() for i in range(10)])]
    chunks = writer.add(columns) + writer.finish()
    for chunk in chunks:
        (tmp_path / chunk.name).write_bytes(chunk.data)
    (tmp_path / "index.json").write_bytes(writer.index([chunk.entry for chunk in chunks]))
    return tmp_path


def test_a_whole_dataset_has_no_faults(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not verify(str(folder)).faults
    assert not verify(str(folder), fast=True).faults
    assert main(["data", "verify", str(folder)]) == 0
    assert "all 10 rows are there" in capsys.readouterr().out


def test_each_fault_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second, third = folder / "chunk-0-1.bin", folder / "chunk-0-2.bin"
    second.write_bytes(second.read_bytes().replace(b"text 5", b"text \xff"))
    data = bytearray(third.read_bytes())
    data[16:20] = struct.pack("<I", 9)  # the first leaf's size
    third.write_bytes(data)
    faults = verify(str(folder)).faults
    assert [(fault.chunk, fault.block, fault.column) for fault in faults] == [("chunk-0-1.bin", 1, "text"), ("chunk-0-2.bin", 2, None)]
    assert "row 1 of the block is no UTF-8 text" in faults[0].message
    assert "do not add up" in faults[1].message
    assert main(["data", "verify", str(folder), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 2
    assert main(["data", "verify", str(folder)]) == 1
    assert "chunk-0-1.bin, block 1, column 'text': row 1" in capsys.readouterr().out


def test_missing_files_are_found_fast(folder: Path) -> None:
    (folder / "chunk-0-1.bin").unlink()
    assert [fault.chunk for fault in verify(str(folder), fast=True).faults] == ["chunk-0-1.bin"]
    assert [fault.block for fault in verify(str(folder)).faults] == [1]


def test_a_cut_file_is_a_fault_and_no_crash(folder: Path) -> None:
    file = folder / "chunk-0-1.bin"
    for length in range(0, len(file.read_bytes()), 3):
        (folder / "chunk-0-0.bin").write_bytes(file.read_bytes()[:length])
        assert [fault.chunk for fault in verify(str(folder)).faults] == ["chunk-0-0.bin"]


def test_the_commands_inspect_and_convert(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(folder), "--rows", "1"]) == 0
    assert "row 0: id='0', text='text 0'" in capsys.readouterr().out
    pytest.importorskip("pyarrow")
    assert main(["data", "convert", str(folder), str(tmp_path / "out"), "--to", "parquet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == ["part-00000.parquet"]
    assert main(["data", "convert", str(folder), str(tmp_path / "out"), "--to", "arrow"]) == 2
    assert "is not empty" in capsys.readouterr().err
