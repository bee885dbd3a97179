"""A reader that shares no code with ours reads the same: golden files, and datasets of any structure."""

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from leyden.core.errors import CorruptDataError
from leyden.data import Jpeg, StreamingDataset, delete_rows, optimize, verify
from leyden.data.format import deletes, keys
from leyden.data.format.filling import Filler
from leyden.data.format.manifest import Chunk, Manifest
from leyden.data.format.schema import Schema
from tests.support import second_reader

GOLDEN = Path(__file__).parents[3] / "golden/data"
PAGE = Path(__file__).parents[4] / "docs/reference/data-format.md"
CHUNK = "chunk-a-00000000-0000-096b8fab.ldc"
ROWS = [{"id": index, "text": text} for index, text in enumerate(["zero", "one", "two"])]
Pair = namedtuple("Pair", "left right")


def test_golden_files_are_what_we_write(tmp_path: Path) -> None:
    filler = Filler(tmp_path, job="a", unit="0", durable=False)
    for row in ROWS:
        filler.append(row)
    entry = filler.finish()[0]
    assert (tmp_path / entry.name).read_bytes() == (GOLDEN / CHUNK).read_bytes()
    assert filler.schema is not None
    manifest = Manifest(version=1, schema=filler.schema, chunks=(Chunk.of(entry),), settings={})
    assert manifest.to_bytes() == (GOLDEN / "manifest-00000001.json").read_bytes()
    assert deletes.to_bytes([1, 5, 7]) == (GOLDEN / "deletes.bin").read_bytes()
    assert keys.to_bytes(["a", 7], [3, 5]) == (GOLDEN / "keys.bin").read_bytes()


def test_the_second_reader_reads_golden_files() -> None:
    manifest = second_reader.read_manifest((GOLDEN / "manifest-00000001.json").read_bytes())
    leaves = sorted(second_reader.leaves_of(manifest["schema"]), key=lambda leaf: leaf["name"])
    assert second_reader.read_chunk((GOLDEN / CHUNK).read_bytes(), manifest["chunks"][0], leaves) == ROWS
    assert second_reader.read_deletes((GOLDEN / "deletes.bin").read_bytes()) == [1, 5, 7]
    assert second_reader.read_keys((GOLDEN / "keys.bin").read_bytes()) == {"a": 3, 7: 5}
    assert Schema.from_json(manifest["schema"]).leaves[0].name == "id"


@pytest.mark.parametrize("name", [CHUNK, "deletes.bin", "keys.bin"])
def test_the_page_shows_the_golden_bytes(name: str) -> None:
    shown = PAGE.read_text(encoding="utf-8")
    data = (GOLDEN / name).read_bytes()
    for start in range(0, len(data), 32):
        row = data[start : start + 32]
        assert not any(row) or f"{start:04x}  {row.hex(' ', 4)}" in shown
    assert (GOLDEN / "manifest-00000001.json").read_text().strip() in shown


def value_of(kind: str, number: int) -> Any:
    makers = {
        "int": lambda: number,
        "float": lambda: number / 3,
        "bool": lambda: number % 2 == 0,
        "str": lambda: "é" * (number % 4),
        "bytes": lambda: bytes(number % 5),
        "fixed": lambda: np.full((2, 3), number, np.int16),
        "rank one": lambda: np.arange(number % 4, dtype=np.float32),
        "rank two": lambda: np.ones((number % 3, 2), np.uint8),
        "any rank": lambda: np.zeros((1,) * (number % 3), np.float64),
        "half": lambda: np.float16(number),
        "numbers": lambda: [number] * (number % 3),
        "texts": lambda: ["x", "yz"][: number % 3],
        "json": lambda: [{"a": number}, None],
        "jpeg": lambda: Jpeg(bytes=b"\xff\xd8\xff" + bytes([number % 256])),
        "missing": lambda: None if number % 3 == 0 else number,
        "missing array": lambda: None if number % 2 else np.full(2, number),
    }
    return makers[kind]()


KINDS = ["int", "float", "bool", "str", "bytes", "fixed", "rank one", "rank two", "any rank", "half", "numbers", "texts", "json", "jpeg"]
KINDS += ["missing", "missing array"]


@st.composite
def trees(draw: st.DrawFn, depth: int = 2) -> Any:
    """Draw the structure of a sample."""
    choice = draw(st.sampled_from(["leaf", "dict", "tuple", "pair"] if depth else ["leaf"]))
    if choice == "leaf":
        return draw(st.sampled_from(KINDS))
    inner = trees(depth - 1)
    if choice == "dict":
        return {f"k/{index}": draw(inner) for index in range(draw(st.integers(1, 3)))}
    return Pair(draw(inner), draw(inner)) if choice == "pair" else tuple(draw(inner) for _ in range(draw(st.integers(1, 3))))


def sample_of(tree: Any, number: int) -> Any:
    if isinstance(tree, dict):
        return {key: sample_of(child, number) for key, child in tree.items()}
    if isinstance(tree, Pair):
        return Pair(*(sample_of(child, number) for child in tree))
    if isinstance(tree, tuple):
        return tuple(sample_of(child, number) for child in tree)
    return value_of(tree, number)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | np.generic):
        return isinstance(other, np.ndarray | np.generic) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)


@settings(max_examples=settings().max_examples // 2, phases=(Phase.explicit, Phase.generate))
@given(tree=trees(), rows=st.integers(1, 90), compression=st.sampled_from([None, "zstd"]), block_rows=st.integers(1, 40))
def test_two_readers_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: Any, rows: int, compression: str | None, block_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("both")
    optimize(
        lambda number: sample_of(tree, number), list(range(rows)), str(folder), num_workers=0, fsync=False, compression=compression,
        block_rows=block_rows, verbose=False,
    )  # fmt: skip
    ours = StreamingDataset(str(folder), output="numpy", decode=False)[:]
    theirs = second_reader.read_dataset(folder)
    assert all(same(one, other) for one, other in zip(ours, theirs, strict=True)), (ours[:2], theirs[:2])


def test_deleted_rows_are_gone_for_both(tmp_path: Path) -> None:
    optimize(lambda number: {"x": number}, list(range(20)), str(tmp_path), num_workers=0, verbose=False)
    delete_rows(str(tmp_path), [3, 17])
    assert second_reader.read_dataset(tmp_path) == StreamingDataset(str(tmp_path))[:]


@pytest.mark.parametrize("name", ["chunk", "manifest", "keys", "deletes"])
@settings(max_examples=settings().max_examples // 2, phases=(Phase.explicit, Phase.generate))
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cuts=st.booleans())
@example(place=0.9999, flip=1, cuts=True)
@example(place=0.9999, flip=ord("\n") ^ ord(" "), cuts=False)
def test_every_damaged_byte_is_found(tmp_path_factory: pytest.TempPathFactory, name: str, place: float, flip: int, cuts: bool) -> None:
    folder = tmp_path_factory.mktemp("damage")
    optimize(lambda number: {"x": number, "t": "abc"}, list(range(9)), str(folder), num_workers=0, key_fn=lambda s: s["x"], fsync=False)
    delete_rows(str(folder), [2])
    manifest = folder / "_leyden/manifest-00000002.json"
    said = json.loads(manifest.read_bytes())
    files = {"keys": said["keys"], "deletes": said["chunks"][0]["deleted"], "chunk": said["chunks"][0]}
    path = manifest if name == "manifest" else folder / files[name]["name"]
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    if cuts:
        del data[at:]
    else:
        data[at] ^= flip
    path.write_bytes(data)
    (folder / "index.json").write_bytes(manifest.read_bytes())
    try:
        found = verify(str(folder)).faults
    except CorruptDataError:
        return
    assert found, (name, at, flip, cuts)
