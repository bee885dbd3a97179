"""The writer of LitData's layout: when chunks end, encryption, and what the layout has no place for."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, LeydenError
from leyden.core.storage import open_storage
from leyden.data.errors import SchemaError
from leyden.data.format.column import bytes_column_of
from leyden.data.format.schema import Schema
from leyden.data.interop.columns import array_column, fixed_column
from leyden.data.interop.litdata_ciphers import FernetEncryption
from leyden.data.interop.litdata_read import LitdataSource
from leyden.data.interop.litdata_write import LitdataSettings, LitdataWriter, WrittenChunk
from tests.support.foreign_rows import samples

INT = {"kind": "leaf", "name": "", "type": "int", "nullable": False}
STR = {"kind": "leaf", "name": "", "type": "str", "nullable": False}


def written(settings: LitdataSettings, blocks: list[Any], node: Any = INT) -> tuple[LitdataWriter, list[WrittenChunk]]:
    writer = LitdataWriter(node, Schema.from_json(node).leaves, settings)
    chunks = [chunk for column in blocks for chunk in writer.add([column])]
    return writer, chunks + writer.finish()


def save(folder: Path, writer: LitdataWriter, chunks: list[WrittenChunk]) -> None:
    for chunk in chunks:
        (folder / chunk.name).write_bytes(chunk.data)
    (folder / "index.json").write_bytes(writer.index([chunk.entry for chunk in chunks]))


def ints(values: Any) -> Any:
    return fixed_column("int64", np.array(values, np.int64))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 7))
def test_chunks_are_a_function_of_the_rows_alone(blocks: list[int], chunk_size: int) -> None:
    total = sum(blocks)
    starts = np.cumsum([0, *blocks[:-1]])
    _, cut = written(LitdataSettings(chunk_size=chunk_size), [ints(range(a, a + n)) for a, n in zip(starts, blocks, strict=True)])
    _, whole = written(LitdataSettings(chunk_size=chunk_size), [ints(range(total))])
    assert [chunk.data for chunk in cut] == [chunk.data for chunk in whole]
    assert [chunk.entry["chunk_size"] for chunk in whole] == [min(chunk_size, total - a) for a in range(0, total, chunk_size)]


def test_chunks_stay_below_their_bytes_unless_one_row_has_more() -> None:
    rows = bytes_column_of([b"x" * 10, b"x" * 500, b"x" * 10, b"x" * 20])
    _, chunks = written(LitdataSettings(chunk_bytes=100), [rows], STR)
    assert [chunk.entry["chunk_size"] for chunk in chunks] == [1, 1, 2]
    assert all(len(chunk.data) <= 100 for chunk in chunks if chunk.entry["chunk_size"] > 1)


@pytest.mark.parametrize("level", ["sample", "chunk"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_encrypted_chunks_come_back(level: Any, compression: str | None, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key = FernetEncryption("pw", level)
    save(tmp_path, *written(LitdataSettings(chunk_size=4, compression=compression, level="chunk", encryption=key), [ints(range(10))]))
    assert samples(LitdataSource(str(tmp_path), encryption=key)) == list(range(10))


def test_the_index_says_what_was_done() -> None:
    writer, chunks = written(LitdataSettings(chunk_size=4, compression="zstd:2", frame_rows=3), [ints(range(10))])
    index = json.loads(writer.index([chunk.entry for chunk in chunks]))
    assert [chunk["filename"] for chunk in index["chunks"]] == ["chunk-0-0.bin", "chunk-0-1.bin", "chunk-0-2.bin"]
    wanted = {"compression": "zstd:2", "compression_level": "batch", "compression_batch_size": 3, "item_loader": "PyTreeLoader"}
    assert wanted.items() <= index["config"].items()
    _, whole = written(LitdataSettings(chunk_size=20, compression="zstd", level="chunk"), [ints(range(10))])
    assert [chunk.name for chunk in whole] == ["chunk-0-0.zstd.bin"]


def test_what_the_layout_has_no_place_for_is_refused() -> None:
    with pytest.raises(SchemaError, match="holds None"):
        written(LitdataSettings(), [bytes_column_of([b"x", None])], {**STR, "nullable": True})
    with pytest.raises(ConfigError, match="allow_pickle=True"):
        written(LitdataSettings(), [bytes_column_of([b"x"])], {**STR, "type": "pickle"})
    with pytest.raises(ConfigError, match="no place for the type 'new'"):
        written(LitdataSettings(), [bytes_column_of([b"x"])], {**STR, "type": "new"})
    with pytest.raises(ConfigError, match="no node for a namedtuple"):
        written(LitdataSettings(), [], {"kind": "namedtuple", "name": "P", "fields": ["x"], "children": [INT]})
    with pytest.raises(ConfigError, match="'zstd' or 'zstd:N'"):
        LitdataSettings(compression="lz4")
    with pytest.raises(ConfigError, match="does not go with TokensLoader"):
        LitdataSettings(compression="zstd", is_tokens=True)


def test_arrays_that_get_more_dimensions_are_refused() -> None:
    node = {**INT, "type": "array", "dtype": "int8", "shape": None, "of": "numpy"}
    flat = array_column("int8", np.zeros(2, np.uint8), np.array([[2]]))
    square = array_column("int8", np.zeros(4, np.uint8), np.array([[2, 2]]))
    with pytest.raises(SchemaError, match="takes one or the other"):
        written(LitdataSettings(), [flat, square], node)


@given(st.sampled_from(["batch", "sample", None]), st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_gives_rows_or_an_error_of_ours(level: Any, place: int, value: int) -> None:
    settings = LitdataSettings(chunk_size=20, compression=level and "zstd", level=level or "chunk", frame_rows=3)
    writer, chunks = written(settings, [bytes_column_of([f"row {i}".encode() * 3 for i in range(10)])], STR)
    data = bytearray(chunks[0].data)
    data[place % len(data)] = value
    storage = open_storage("memory://litdata-changed")
    storage.write(chunks[0].name, bytes(data))
    storage.write("index.json", writer.index([chunks[0].entry]))
    with contextlib.suppress(LeydenError):
        source = LitdataSource("memory://litdata-changed")
        assert source.open(0, source.fetch(0)).rows == 10
