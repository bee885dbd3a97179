"""Parts of LitData's format that its own writer never damages: headers, tags and indexes that are wrong."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.core.storage import open_storage
from leyden.data.errors import SchemaError
from leyden.data.interop import litdata_json
from leyden.data.interop.litdata_arrays import NUMPY_CODES, TORCH_CODES, header_of, pack, read_headed
from leyden.data.interop.litdata_index import node_of, parse_index, spec_of
from leyden.data.interop.litdata_leaves import leaf_format
from leyden.data.interop.litdata_read import LitdataSource
from leyden.data.interop.sniff import format_of, open_foreign
from leyden.data.interop.spans import Spans, split_rows
from tests.support.foreign_rows import samples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_json_that_we_write_comes_back(value: Any) -> None:
    assert litdata_json.decode(litdata_json.encode(value)) == value


@pytest.mark.parametrize("data", [b"\x01", b"\x01\xff\0\0\0", b"\x07\x05\0\0\0ab", b"\x0f", b"\x06\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x99"])
def test_damaged_json_leaves_are_told(data: bytes) -> None:
    with pytest.raises(CorruptDataError, match="JSON leaf"):
        litdata_json.decode(data)


def test_golden_dtype_codes() -> None:
    assert (TORCH_CODES["int32"], TORCH_CODES["int64"], TORCH_CODES["float32"], TORCH_CODES["uint16"]) == (16, 18, 1, 20)
    assert (NUMPY_CODES["int8"], NUMPY_CODES["bool"], NUMPY_CODES["float16"]) == (0, 13, 8)


@pytest.mark.parametrize("kind", ["tensor", "numpy"])
def test_array_headers_come_back(kind: str) -> None:
    leaf = pack(kind, np.arange(6, dtype=np.int32).reshape(2, 3), "int32")
    assert header_of(kind, leaf) == ("int32", (2, 3), 16)
    assert leaf[:4] == struct.pack(">I" if kind == "tensor" else "<I", 16 if kind == "tensor" else 2)


def test_arrays_that_hold_no_numbers_or_have_no_code_are_refused() -> None:
    with pytest.raises(ConfigError, match="objects, text or structures"):
        header_of("numpy", struct.pack("<II", 14, 0))
    with pytest.raises(CorruptDataError, match="dtype code 99"):
        header_of("tensor", struct.pack(">II", 99, 0))
    with pytest.raises(CorruptDataError, match="header is damaged"):
        header_of("tensor", b"abc")
    with pytest.raises(ConfigError, match="no tensor leaf of uint64"):
        pack("tensor", np.zeros(1, np.uint64), "uint64")


def spans_of(*values: bytes) -> Spans:
    sizes = np.array([len(value) for value in values], np.int64)
    return Spans(np.frombuffer(b"".join(values), np.uint8), np.cumsum(sizes) - sizes, sizes)


def test_rows_of_other_dtypes_or_ranks_are_refused() -> None:
    one, other = pack("numpy", np.zeros((1, 1), np.int8), "int8"), pack("numpy", np.zeros((1, 1), np.int16), "int16")
    with pytest.raises(SchemaError, match="differ in one block"):
        read_headed("numpy", "int8", spans_of(one, other))


def test_leaves_whose_sizes_do_not_add_up_are_found() -> None:
    row = struct.pack("<I", 9) + b"ab"
    with pytest.raises(CorruptDataError, match="do not add up"):
        split_rows(np.frombuffer(row, np.uint8), np.array([0, len(row)]), 1)


def test_an_unknown_leaf_names_the_serializers_argument() -> None:
    with pytest.raises(ConfigError, match="serializers="):
        leaf_format("mine", lambda: None)
    assert leaf_format("mine", lambda: None, frozenset({"mine"})).type == "custom:mine"


def index_of(**changes: Any) -> bytes:
    config = {"compression": None, "data_format": ["int"], "data_spec": None, "encryption": None, "item_loader": "PyTreeLoader"}
    return json.dumps({"chunks": [], "config": {**config, **changes}}).encode()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"item_loader": "TemporalArrayLoader"}, "TemporalArrayLoader"),
        ({"item_loader": "ParquetLoader"}, "folder of its Parquet files"),
        ({"compression": "lz4"}, "'zstd' and 'zstd:N'"),
    ],
)
def test_indexes_of_kinds_that_are_not_read_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_index(index_of(**changes), "x")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"chunks": [{}], "config": {}}'])
def test_what_is_no_index_is_told(data: bytes) -> None:
    with pytest.raises(CorruptDataError, match="no index of a LitData dataset"):
        parse_index(data, "x")


def test_trees_come_back_as_litdatas_spec() -> None:
    leaf = {"type": None, "context": None, "children_spec": []}
    spec = {
        "type": "builtins.dict",
        "context": '["a/b", 3]',
        "children_spec": [leaf, {"type": "builtins.tuple", "context": "null", "children_spec": [leaf]}],
    }
    node = node_of(spec, [{"type": "int"}, {"type": "str"}])
    assert [each["name"] for each in (node["children"][0], node["children"][1]["children"][0])] == ["a~1b", "3/0"]
    assert spec_of(node) == (spec, ["a~1b", "3/0"])
    with pytest.raises(ConfigError, match="read are dicts"):
        node_of({"type": "mine", "context": None, "children_spec": []}, [])


def small(write: Callable[[str, bytes], None], items: list[int]) -> None:
    """Write a dataset of two chunks by hand: a second description of the format, beside LitData's and ours."""
    chunks = []
    for number, part in enumerate((items[:3], items[3:])):
        rows = [struct.pack("<Iq", 8, item) for item in part]
        start = 4 + 4 * (len(rows) + 1)
        offsets = [start + 12 * i for i in range(len(rows) + 1)]
        data = struct.pack(f"<{len(offsets) + 1}I", len(rows), *offsets) + b"".join(rows)
        write(f"chunk-0-{number}.bin", data)
        chunks.append({"filename": f"chunk-0-{number}.bin", "chunk_bytes": len(data), "chunk_size": len(rows), "dim": None})
    index = json.loads(index_of())
    write("index.json", json.dumps({**index, "chunks": chunks}).encode())


def test_a_remote_dataset_is_read_by_ranges() -> None:
    small(open_storage("memory://litdata-ranges").write, [5, 6, 7, 8])
    assert samples(LitdataSource("memory://litdata-ranges")) == [5, 6, 7, 8]


def test_a_file_url_may_hold_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    small(lambda name, data: (folder / name).write_bytes(data) and None, [5, 6, 7, 8])
    assert samples(LitdataSource(folder.as_uri())) == [5, 6, 7, 8]


def test_a_chunk_that_was_replaced_is_told(tmp_path: Path) -> None:
    small(lambda name, data: (tmp_path / name).write_bytes(data) and None, [5, 6, 7, 8])
    (tmp_path / "chunk-0-1.bin").write_bytes((tmp_path / "chunk-0-0.bin").read_bytes())
    with pytest.raises(CorruptDataError, match=r"chunk-0-1\.bin begins with 3 items, not with 1"):
        samples(LitdataSource(str(tmp_path)))


def test_formats_are_told_apart(tmp_path: Path) -> None:
    assert format_of(str(tmp_path)) is None
    assert open_foreign(str(tmp_path)) is None
    small(lambda name, data: (tmp_path / name).write_bytes(data) and None, [5, 6, 7, 8])
    assert isinstance(open_foreign(str(tmp_path)), LitdataSource)
    (tmp_path / "index.json").write_text('{"format": "leyden-data"}')
    assert format_of(str(tmp_path)) == "leyden"
    (tmp_path / "index.json").write_text('{"shards": []}')
    assert format_of(str(tmp_path)) == "mds"
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(CorruptDataError, match="is no JSON"):
        format_of(str(tmp_path))
    assert format_of(f"{tmp_path}/x-*.parquet") == "parquet"
