"""Datasets are converted from every format to every other, and come back alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden.core.errors import ConfigError, ConflictError, NotFoundError
from leyden.data.format.column import bytes_column_of
from leyden.data.format.schema import Schema
from leyden.data.interop.columns import array_column, fixed_column, list_column, strings_column, taken
from leyden.data.interop.litdata_read import LitdataSource
from leyden.data.interop.parquet import ParquetSource
from leyden.data.interop.sniff import open_foreign
from leyden.data.tools.convert import convert
from leyden.data.tools.opening import Access, open_any
from leyden.data.tools.verify import verify
from tests.support.foreign_rows import samples

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
ROWS = [
    {"id": i, "score": i / 7, "ok": i % 2 == 0, "text": f"né {i}", "n": {"list": list(range(i % 3)), "words": ["a"] * (i % 2)}}
    for i in range(50)
]
COLUMNS = {"id": pa.int64(), "score": pa.float64(), "ok": pa.bool_(), "text": pa.string()}
INNER = {"list": pa.list_(pa.int64()), "words": pa.list_(pa.string())}


def fields(kinds: dict[str, Any]) -> list[Any]:
    return [pa.field(name, kind, nullable=False) for name, kind in kinds.items()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    table = pa.Table.from_pylist(ROWS, pa.schema(fields({**COLUMNS, "n": pa.struct(fields(INNER))})))
    parquet.write_table(table, folder / "rows.parquet", row_group_size=12)
    return folder


def test_parquet_becomes_litdata_and_comes_back(source: Path, tmp_path: Path) -> None:
    there = convert(str(source), str(tmp_path / "litdata"), "litdata", chunk_size=20)
    assert (there.num_rows, there.files) == (50, ["chunk-0-0.bin", "chunk-0-1.bin", "chunk-0-2.bin", "index.json"])
    assert samples(LitdataSource(str(tmp_path / "litdata"))) == ROWS
    back = convert(str(tmp_path / "litdata"), str(tmp_path / "back"), "parquet")
    assert back.files == ["part-00000.parquet"]
    read = samples(ParquetSource(str(tmp_path / "back")))
    assert [{**row, "n": {"list": json_or_list(row["n"]["list"]), "words": json_or_list(row["n"]["words"])}} for row in read] == ROWS


def json_or_list(value: Any) -> Any:
    """Return a list that LitData keeps as JSON, so that it comes back as text of it."""
    import json

    return json.loads(value) if isinstance(value, str) else value


def test_arrow_files_hold_the_rows(source: Path, tmp_path: Path) -> None:
    made = convert(str(source), str(tmp_path / "arrow"), "arrow", chunk_bytes=1000)
    assert len(made.files) > 1
    tables = [pa.ipc.open_file(tmp_path / "arrow" / name).read_all() for name in made.files]
    assert pa.concat_tables(tables).to_pylist() == ROWS


def test_conversions_that_cannot_be_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'parquet'"):
        convert(str(source), str(tmp_path / "x"), "parkuet")  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match="is not empty"):
        convert(str(source), str(source), "arrow")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(NotFoundError, match="no dataset at"):
        convert(str(tmp_path / "nothing"), str(tmp_path / "x"), "arrow")


def leaf(name: str, kind: str, **facts: Any) -> dict[str, Any]:
    return {"kind": "leaf", "name": name, "type": kind, "nullable": facts.pop("nullable", False), **facts}


def test_every_kind_of_column_has_an_arrow_type() -> None:
    from leyden.data.interop.arrow_export import table_of

    bits = np.packbits([True, False, True], bitorder="little")

    def array(name: str, dtype: str, shape: Any) -> dict[str, Any]:
        return leaf(name, "array", dtype=dtype, shape=shape, of="numpy")

    text = np.frombuffer(b"ab", np.uint8)
    squares = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    halves = np.array([[0x3F80], [0x4000], [0]], np.uint16)  # 1, 2, 0
    nodes = [
        (leaf("a", "int", nullable=True), fixed_column("int64", np.array([1, 0, 3]), bits)),
        (leaf("b", "bytes", nullable=True), bytes_column_of([b"x", None, b""])),
        (array("c", "float32", [2, 2]), fixed_column("float32", squares)),
        (array("d", "int16", None), array_column("int16", np.zeros(12, np.uint8), np.array([[1], [2], [3]]))),
        (array("e", "int8", None), array_column("int8", np.zeros(6, np.uint8), np.array([[1, 1], [1, 2], [1, 3]]))),
        (array("f", "bfloat16", [1]), fixed_column("bfloat16", halves)),
        (array("g", "uint8", []), fixed_column("uint8", np.array([1, 2, 3], np.uint8))),
        (leaf("h", "list", dtype="bool"), list_column("bool", np.array([True, False]), np.array([0, 1, 1, 2]))),
        (leaf("i", "list", dtype="str", nullable=True), strings_column(text, np.array([0, 1, 2]), np.array([0, 2, 2, 2]), bits)),
    ]
    tree = {"kind": "dict", "keys": list("abcdefghi"), "children": [node for node, _ in nodes]}
    table = table_of(tree, Schema.from_json(tree).leaves, [column for _, column in nodes])
    first, second, third = table.to_pylist()
    assert first == {
        "a": 1,
        "b": b"x",
        "c": [0, 1, 2, 3],
        "d": [0],
        "e": {"values": [0], "shape": [1, 1]},
        "f": [1.0],
        "g": 1,
        "h": [True],
        "i": ["a", "b"],
    }
    assert (second["a"], second["b"], second["i"], third["i"], third["e"]["shape"]) == (None, None, None, [], [1, 3])
    assert table.schema.field("c").metadata == {b"shape": b"[2, 2]"}


def test_what_arrow_has_no_type_for_is_refused() -> None:
    from leyden.data.interop.arrow_export import table_of

    node = leaf("", "array", dtype="complex64", shape=[1], of="numpy")
    with pytest.raises(ConfigError, match="no type for complex64"):
        table_of(node, Schema.from_json(node).leaves, [fixed_column("complex64", np.zeros((1, 1), np.complex64))])


def test_converted_data_is_found_by_looking(source: Path, tmp_path: Path) -> None:
    convert(str(source), str(tmp_path / "litdata"), "litdata", compression="zstd")
    assert isinstance(open_foreign(str(tmp_path / "litdata")), LitdataSource)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_any_format_becomes_ours(compression: str | None, source: Path, tmp_path: Path) -> None:
    made = convert(str(source), str(tmp_path / "ours"), chunk_bytes=2000, compression=compression)
    assert made.num_rows == 50
    assert len(made.files) > 2
    assert samples(open_any(str(tmp_path / "ours"), Access())) == ROWS
    assert not verify(str(tmp_path / "ours")).faults
    again = convert(str(source), str(tmp_path / "again"), chunk_bytes=2000, compression=compression)
    assert again.files == made.files
    convert(str(tmp_path / "ours"), str(tmp_path / "third"), "litdata")
    assert samples(LitdataSource(str(tmp_path / "third"))) == ROWS


def test_some_rows_of_every_kind_of_column_can_be_taken() -> None:
    bits = np.packbits([True, False, True], bitorder="little")
    text, rows = np.frombuffer(b"abc", np.uint8), np.array([2, 0])
    strings = taken(strings_column(text, np.array([0, 1, 2, 3]), np.array([0, 2, 2, 3]), bits), rows)
    assert [[part.tobytes() for part in strings.row(row)] for row in range(2)] == [[b"c"], [b"a", b"b"]]
    assert [bytes(taken(bytes_column_of([b"x", None, b"yz"]), rows).row(row)) for row in range(2)] == [b"yz", b"x"]
    assert taken(fixed_column("int64", np.array([1, 0, 3]), bits), np.array([1, 2])).is_null(0)
    squares = array_column("int8", np.arange(6, dtype=np.uint8), np.array([[1, 1], [1, 2], [1, 3]]))
    assert taken(squares, rows).row(0).tolist() == [[3, 4, 5]]
