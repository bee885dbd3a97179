"""Parquet files: which leaves their types become, projection, several files, and what is refused."""

import datetime
import decimal
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError
from leyden.core.storage import open_storage
from leyden.data.errors import SchemaError
from leyden.data.interop.parquet import ParquetSource
from tests.support.foreign_rows import samples

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "score": None if i % 3 == 0 else i / 7,
            "ok": None if i % 4 == 0 else i % 2 == 0,
            "text": None if i % 5 == 0 else f"né {i}",
            "blob": bytes([i % 7] * (i % 4)),
            "numbers": None if i % 6 == 0 else list(range(i % 4)),
            "words": ["a", "bé" * (i % 3)][: i % 3],
            "vector": [i / 2, 1.0, 2.0],
            "nested": {"x": i, "deep": {"y": f"{i}"}},
            "boxes": [{"p": i, "q": None}] * (i % 2),
        }
        for i in range(start, start + count)
    ]


SCHEMA = pa.schema(
    [
        ("id", pa.int32()), ("score", pa.float64()), ("ok", pa.bool_()), ("text", pa.string()), ("blob", pa.binary()),
        ("numbers", pa.list_(pa.int16())), ("words", pa.list_(pa.string())), ("vector", pa.list_(pa.float32(), 3)),
        ("nested", pa.struct([("x", pa.int64()), ("deep", pa.struct([("y", pa.string())]))])),
        ("boxes", pa.list_(pa.struct([("p", pa.int64()), ("q", pa.string())]))),
    ]
)  # fmt: skip


def write(path: Path, content: list[dict[str, Any]], group: int = 10) -> None:
    parquet.write_table(pa.Table.from_pylist(content, SCHEMA), path, row_group_size=group)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "vector": row["vector"].tolist()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "a.parquet", rows(25))
    write(tmp_path / "b.parquet", rows(12, 25))
    return tmp_path


def test_row_groups_are_blocks_and_every_type_comes_back(folder: Path) -> None:
    source = pickle.loads(pickle.dumps(ParquetSource(str(folder))))
    assert source.table.rows.tolist() == [10, 10, 5, 10, 2]
    assert source.table.chunk.tolist() == [0, 0, 0, 1, 1]
    read = samples(source)
    assert all(row["vector"].dtype == np.float32 for row in read)
    assert [plain(row) for row in read] == rows(37)


def test_the_digest_says_the_content_and_nothing_else(folder: Path) -> None:
    digest = ParquetSource(str(folder)).digest
    assert ParquetSource(str(folder)).digest == digest
    write(folder / "b.parquet", rows(12, 26))
    assert ParquetSource(str(folder)).digest != digest


def test_remote_files_are_read_by_ranges(folder: Path) -> None:
    storage = open_storage("memory://parquet-ranges")
    for file in folder.iterdir():
        storage.write(file.name, file.read_bytes())
    assert [plain(row) for row in samples(ParquetSource("memory://parquet-ranges"))] == rows(37)


def test_a_pattern_and_columns_narrow_it(folder: Path) -> None:
    source = ParquetSource(str(folder), pattern="b*.parquet", columns=["nested", "id"])
    assert samples(source) == [{"id": row["id"], "nested": row["nested"]} for row in rows(12, 25)]
    assert [leaf.name for leaf in source.schema.leaves] == ["id", "nested/deep/y", "nested/x"]


def test_columns_that_are_not_needed_are_not_read(folder: Path) -> None:
    source = ParquetSource(str(folder))
    names = [leaf.name for leaf in source.schema.leaves]
    opened = source.open(0, source.fetch(0, [names.index("text")]))
    assert opened.column(names.index("text")).rows == 10
    assert opened.column(names.index("id")) is None


def test_what_has_no_leaf_is_read_as_text_or_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "day": [datetime.date(2026, 1, 2), None],
            "price": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00")], pa.decimal128(5, 2)),
            "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "none": pa.nulls(2),
            "holes": pa.array([[1.5, None], [2.5]]),
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    first, second = samples(ParquetSource(str(tmp_path)))
    assert (first["day"], first["price"], first["kind"], first["none"]) == ("2026-01-02", "1.50", "x", None)
    assert second["day"] is None
    assert first["map"] == [["a", 1]]
    assert second["holes"] == [2.5]


def test_what_cannot_be_read_together_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(NotFoundError, match="no Parquet files like c"):
        ParquetSource(str(folder), pattern="c*.parquet")
    with pytest.raises(ConfigError, match="Did you mean 'text'"):
        ParquetSource(str(folder), columns=["txet"])
    parquet.write_table(pa.table({"other": [1]}), folder / "c.parquet")
    with pytest.raises(SchemaError, match=r"c\.parquet has the columns 'other'"):
        ParquetSource(str(folder))
    (folder / "c.parquet").write_bytes(b"PAR1 nothing else")
    with pytest.raises(CorruptDataError, match=r"c\.parquet is no Parquet file"):
        ParquetSource(str(folder))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1, None]], pa.list_(pa.int64())),
        pa.array([["a", None]]),
        pa.array([[True, None]], pa.list_(pa.bool_(), 2)),
        pa.array([2**63], pa.uint64()),
        pa.array([[2**63]], pa.list_(pa.uint64())),
        pa.array([[b"a"]]),
    ],
    ids=["numbers", "text", "fixed", "unsigned", "unsigned in lists", "binary in lists"],
)
def test_what_would_become_another_value_is_refused(tmp_path: Path, values: Any) -> None:
    parquet.write_table(pa.table({"a": values, "b": [1]}), tmp_path / "f.parquet")
    source = ParquetSource(str(tmp_path))
    with pytest.raises(SchemaError, match=r"column 'a' holds .* Leave it out with columns="):
        samples(source)
    assert samples(ParquetSource(str(tmp_path), columns=["b"])) == [{"b": 1}]


def test_values_that_fit_are_kept(tmp_path: Path) -> None:
    table = pa.table(
        {
            "unsigned": pa.array([2**63 - 1, None], pa.uint64()),
            "lists": pa.array([[1], None], pa.list_(pa.int64())),
            "floats": pa.array([[1.5, None], []]),
            "fixed": pa.array([[1.5, None], None], pa.list_(pa.float32(), 2)),
        }
    )
    parquet.write_table(table, tmp_path / "f.parquet")
    first, second = samples(ParquetSource(str(tmp_path)))
    assert (first["unsigned"], first["lists"], second["unsigned"], second["lists"]) == (2**63 - 1, [1], None, None)
    assert first["floats"][0] == first["fixed"][0] == 1.5
    assert np.isnan(first["floats"][1])
    assert np.isnan(first["fixed"][1])


def test_columns_have_names_of_their_own(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "f.parquet")
    with pytest.raises(SchemaError, match="two columns of the name 'a'"):
        ParquetSource(str(tmp_path))
