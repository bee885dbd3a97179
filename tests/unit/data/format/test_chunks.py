"""Chunk files: byte for byte those of the format, read as they were written, and never read damaged."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.data.errors import SchemaError
from leyden.data.format.block import BlockView
from leyden.data.format.chunk import HEADER, read_footer, read_header
from leyden.data.format.cipher import AesGcm, DatasetCiphers
from leyden.data.format.column import Column, bytes_column_of
from leyden.data.format.filling import Filler, FillSettings
from leyden.data.format.leaves import LeafRules
from leyden.data.format.tree import SampleBuilder

Pair = namedtuple("Pair", "x y")


def written(folder: Path, samples: list[Any], **options: Any) -> tuple[Filler, list[bytes]]:
    filler = Filler(folder, job="a", unit="0", durable=False, **options)
    for sample in samples:
        filler.append(sample)
    return filler, [(folder / entry.name).read_bytes() for entry in filler.finish()]


def blocks_of(data: bytes) -> list[BlockView]:
    blocks = [data[offset : offset + stored] for _, offset, stored, _ in read_footer(data, "chunk")["blocks"]]
    return [BlockView(block) for block in blocks]


def plain(column: Column, row: int) -> Any:
    """Return a row's value as Python holds it."""
    value = column.row(row)
    if value is None or column.kind in (1, 3, 4):
        return value if value is None else value.tolist()
    return bytes(value) if column.kind == 2 else [bytes(text) for text in value]


def test_three_rows_are_the_bytes_of_the_format(tmp_path: Path) -> None:
    samples = [{"id": number, "text": text} for number, text in enumerate(["zero", "one", "two"])]
    _, (data,) = written(tmp_path, samples)
    assert [path.name for path in tmp_path.iterdir()] == ["chunk-a-00000000-0000-096b8fab.ldc"]
    assert (len(data), read_header(data, "chunk").chunk_id) == (915, 0x2E68E93193CD7FC5)
    (block,) = blocks_of(data)
    assert (block.stored_bytes, block.header_hash, len(data[576:-32])) == (512, 0xD4E89F0725D3A260, 307)
    assert data[-32 + 12 : -32 + 16] == bytes.fromhex("07988ead")  # crc32c of the footer, little-endian


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_every_changed_byte_of_a_chunk_is_found(tmp_path: Path, compression: str | None) -> None:
    samples = [{"id": number, "text": "word " * 40, "vector": np.full(3, number, np.float32), "none": None} for number in range(4)]
    _, (data,) = written(tmp_path, samples, settings=FillSettings(compression=compression))
    for place in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        with pytest.raises(CorruptDataError):
            check(bytes(damaged))


def check(data: bytes) -> None:
    """Look at everything that a verifier looks at; the digest in the manifest holds the rest."""
    header, footer = read_header(data, "chunk"), read_footer(data, "chunk")
    end = HEADER.size
    for block, (_, offset, stored, digest) in zip(blocks_of(data), footer["blocks"], strict=True):
        if (offset, block.chunk_id, f"{block.header_hash:016x}") != (end, header.chunk_id, digest):
            raise CorruptDataError("header and footer do not agree")
        block.check()
        end = offset + stored
    if header.is_encrypted or any(header.salt):
        raise CorruptDataError("a chunk that is not encrypted has a salt")


leaves = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.lists(st.integers(-5, 5), max_size=4),
    st.lists(st.text(max_size=3), max_size=4),
)


@given(
    rows=st.lists(st.tuples(st.integers(-9, 9), st.one_of(st.none(), st.text(max_size=5)), st.booleans()), min_size=1, max_size=40),
    block_rows=st.integers(1, 7),
)
def test_rows_are_read_as_they_were_written(rows: list[tuple[int, str | None, bool]], block_rows: int, tmp_path_factory: Any) -> None:
    samples = [{"a": a, "b": {"c": b}, "d": Pair(flag, np.full((a % 3, 2), a))} for a, b, flag in rows]
    filler, chunks = written(tmp_path_factory.mktemp("rows"), samples, settings=FillSettings(block_rows=block_rows, chunk_size=10))
    assert filler.schema is not None
    assert [leaf.name for leaf in filler.schema.leaves] == ["a", "b/c", "d/0", "d/1"]
    found = [
        tuple(plain(column, row) for column in map(block.column, range(block.num_columns)))
        for data in chunks
        for block in blocks_of(data)
        for row in range(block.rows)
    ]
    assert found == [(a, None if b is None else b.encode(), flag, np.full((a % 3, 2), a).tolist()) for a, b, flag in rows]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    block_bytes=st.integers(20, 200),
    block_rows=st.integers(1, 8),
    chunk_size=st.one_of(st.none(), st.integers(1, 12)),
)
def test_blocks_and_chunks_end_where_the_format_says(
    lengths: list[int], block_bytes: int, block_rows: int, chunk_size: int | None, tmp_path_factory: Any
) -> None:
    settings = FillSettings(block_bytes=block_bytes, block_rows=block_rows, chunk_size=chunk_size, chunk_bytes=None)
    _, chunks = written(tmp_path_factory.mktemp("rows"), [bytes(length) for length in lengths], settings=settings)
    expected: list[list[list[int]]] = [[[]]]
    for length in lengths:
        chunk, block = expected[-1], expected[-1][-1]
        if chunk_size is not None and sum(map(len, chunk)) == chunk_size:
            expected.append([[length]])
        elif block and (len(block) == block_rows or sum(8 + each for each in block) + 8 + length > block_bytes):
            chunk.append([length])
        else:
            block.append(length)
    assert [[block.rows for block in blocks_of(data)] for data in chunks] == [[len(block) for block in chunk] for chunk in expected]


@given(st.lists(leaves, min_size=1, max_size=6))
def test_a_sample_that_is_refused_leaves_nothing(values: list[Any]) -> None:
    samples, kept = SampleBuilder(LeafRules()), 0
    for value in values:
        try:
            samples.append((1, value))
            kept += 1
        except SchemaError:
            pass
        assert samples.rows == kept
    assert {column.rows for column in samples.finish()} == ({kept} if kept else set())


def test_encrypted_buffers_need_the_key(tmp_path: Path) -> None:
    ciphers = DatasetCiphers(AesGcm(key=bytes(32)))
    filler, (data,) = written(tmp_path, [{"text": "secret"}] * 3, ciphers=ciphers)
    header, (_, offset, stored, _) = read_header(data, "chunk"), read_footer(data, "chunk")["blocks"][0]
    assert header.is_encrypted
    assert b"secret" not in data
    block = data[offset : offset + stored]
    opened = BlockView(block, cipher=DatasetCiphers(AesGcm(key=bytes(32)), ciphers.entry).of_chunk(header.chunk_id, header.salt, None))
    assert bytes(opened.column(0).row(1)) == b"secret"
    with pytest.raises(ConfigError, match="the key or password is another one than the dataset was written with"):
        DatasetCiphers(AesGcm(key=b"1" * 32), ciphers.entry)
    older = {name: value for name, value in ciphers.entry.items() if name != "check"}  # before keys were compared
    wrong = DatasetCiphers(AesGcm(key=b"1" * 32), older).of_chunk(header.chunk_id, header.salt, None)
    with pytest.raises(CorruptDataError, match="key or password"):
        BlockView(block, cipher=wrong).column(0)
    with pytest.raises(CorruptDataError, match="encryption="):
        BlockView(block)
    assert filler.rows == 3


def test_nulls_are_told_apart_from_nothing() -> None:
    column = bytes_column_of([b"", None, b"x"])
    assert [column.row(row) is None for row in range(3)] == [False, True, False]
