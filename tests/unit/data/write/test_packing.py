"""Packing: small chunks become few, rows stay what they were, and the layout is the one of a single writer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from leyden.data import StreamingDataset, TokensLoader, optimize, verify
from leyden.data.format.cipher import AesGcm
from leyden.data.format.column import Column
from leyden.data.format.filling import ChunkFiller, Filler, FillSettings
from leyden.data.format.schema import Schema
from leyden.data.read.native import open_native
from leyden.data.read.options import source_options
from leyden.data.write.packing import ColumnFiller, packs_of


def written(folder: Path, samples: list[Any], **options: Any) -> StreamingDataset:
    loader = {key: options[key] for key in ("encryption",) if key in options}
    reading = {"item_loader": TokensLoader(block_size=3)} if "item_loader" in options else {}
    optimize(lambda number: samples[number], list(range(len(samples))), str(folder), num_workers=0, fsync=False, verbose=False, **options)
    return StreamingDataset(str(folder), **loader, **reading)


def same(one: Any, other: Any) -> bool:
    """Return whether two samples are equal, types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)


def layout(dataset: StreamingDataset) -> list[list[int]]:
    """Return the rows of each block, chunk by chunk."""
    table = dataset.reading.source.table
    return [table.rows[table.chunk == chunk].tolist() for chunk in np.unique(table.chunk)]


def single_writer(folder: Path, samples: list[Any], settings: FillSettings) -> tuple[list[list[int]], list[list[Column]]]:
    """Return the layout that one writer of all rows gives, and the columns of its blocks."""
    folder.mkdir()
    filler = Filler(folder, job="a", unit="0", settings=settings, durable=False)
    for sample in samples:
        filler.append(sample)
    entries = filler.finish()
    return [[rows for rows, _ in entry.blocks] for entry in entries], []


def sample(number: int, kind: str) -> Any:
    return {
        "numbers": {"id": number, "score": number / 7, "even": number % 2 == 0},
        "text": {"t": "é" * (number % 5), "b": bytes(number % 7)},
        "uneven": {"v": np.arange(number % 4, dtype=np.int16), "m": np.ones((number % 3, 2), np.float32)},
        "ranks": {"a": np.zeros((1,) * (number % 3), np.uint8)},
        "lists": {"n": [number] * (number % 3), "s": ["x"] * (number % 4)},
        "missing": {"a": None if number % 3 == 0 else number, "b": None if number % 4 == 0 else "x"},
        "json": {"j": {"k": [number]}},
        "tensor": {"h": torch.full((2,), number, dtype=torch.bfloat16)},
    }[kind]


KINDS = ["numbers", "text", "uneven", "ranks", "lists", "missing", "json", "tensor"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, phases=(Phase.explicit, Phase.generate))
@given(rows=st.integers(66, 200), chunk_size=st.integers(5, 60), block_rows=st.integers(2, 40), block_bytes=st.integers(40, 2000))
def test_the_layout_is_a_single_writers(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rows: int, chunk_size: int, block_rows: int, block_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    samples = [sample(number, kind) for number in range(rows)]
    options = {"chunk_size": chunk_size, "block_rows": block_rows, "block_bytes": block_bytes}
    dataset = written(folder / "data", samples, **options)
    expected, _ = single_writer(folder / "one", samples, FillSettings(chunk_bytes=None, **options))
    assert layout(dataset) == expected
    assert [same(one, other) for one, other in zip(dataset[:], samples, strict=True)] == [True] * rows


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"encryption": AesGcm(key=bytes(32))}])
def test_a_small_dataset_is_one_chunk_and_verified(tmp_path: Path, options: dict[str, Any]) -> None:
    samples = [{"id": number, "text": f"{number:050d}"} for number in range(1000)]
    dataset = written(tmp_path / "data", samples, **options)
    assert layout(dataset) == [[1000]]
    assert dataset[:] == samples
    assert [path.suffix for path in (tmp_path / "data").glob("*chunk*")] == [".ldc"], "the small chunks are gone"
    if not options.get("encryption"):
        assert not verify(str(tmp_path / "data")).faults


def test_packed_columns_are_those_of_a_single_writer(tmp_path: Path) -> None:
    for kind in KINDS:
        samples = [sample(number, kind) for number in range(130)]
        dataset = written(tmp_path / kind, samples, chunk_size=1000)
        (tmp_path / f"{kind}-one").mkdir()
        optimize(
            lambda numbers, samples=samples: (samples[number] for number in numbers),
            [list(range(130))],
            str(tmp_path / f"{kind}-one"),
            num_workers=0,
            chunk_size=1000,
            verbose=False,
        )
        one = StreamingDataset(str(tmp_path / f"{kind}-one"))
        packed, whole = (each.reading.open_block(0) for each in (dataset, one))
        for index in range(len(dataset.schema.leaves)):
            ours, theirs = packed.column(index), whole.column(index)
            assert (ours.kind, ours.dtype, list(ours.dims)) == (theirs.kind, theirs.dtype, list(theirs.dims)), (kind, index)
            for name in ("values", "offsets", "inner_offsets", "shapes", "validity"):
                mine, other = getattr(ours, name), getattr(theirs, name)
                assert (mine is None) == (other is None), (kind, index, name)
                assert mine is None or np.array_equal(mine, other), (kind, index, name)


def test_units_whose_types_differ_become_one_type(tmp_path: Path) -> None:
    samples = [{"x": number if number < 100 else number / 2, "y": [1, 2] if number < 50 else ["a"]} for number in range(200)]
    dataset = written(tmp_path / "data", samples)
    assert layout(dataset) == [[200]]
    assert dataset[:] == samples


def test_tokens_are_packed_too(tmp_path: Path) -> None:
    documents = [np.arange(number, number + 5) for number in range(300)]
    dataset = written(tmp_path / "data", documents, item_loader=TokensLoader())
    assert len(layout(dataset)) == 1
    assert np.concatenate([window.numpy() for window in dataset[:]]).tolist() == np.concatenate(documents).tolist()


def test_chunks_of_the_size_asked_for_are_left_alone() -> None:
    record = {"chunks": [_entry(100, 64_000_000), _entry(100, 30_000_000)], "schema": None}
    assert packs_of([record], FillSettings()) == []
    assert packs_of([{"chunks": [_entry(1, 10)], "schema": None}], FillSettings()) == []
    exact = {"chunks": [_entry(10, 1), _entry(10, 1), _entry(3, 1)], "schema": None}
    assert packs_of([exact], FillSettings(chunk_bytes=None, chunk_size=10)) == []


def _entry(rows: int, size: int) -> dict[str, Any]:
    return {"name": "a", "bytes": size, "rows": rows, "digest": "", "blocks": [(rows, size)], "tokens": None, "key": None}


def test_a_filler_of_columns_takes_them_in_any_pieces(tmp_path: Path) -> None:
    samples = [sample(number, "uneven") for number in range(90)]
    source = open_native(source_options(str(_plain(tmp_path, samples)), None, None, _given()))
    schema = Schema.from_json(source.schema.tree)
    found = []
    for step in (1, 7, 90):
        settings = FillSettings(block_rows=20, block_bytes=300, chunk_size=33, chunk_bytes=None)
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        filler = ColumnFiller(ChunkFiller(folder, "a", "p0", settings, None, durable=False), schema, settings)
        block = source.open(0, source.fetch(0))
        from leyden.data.format.joining import cut

        for start in range(0, 90, step):
            filler.add([cut(block.column(index), start, min(start + step, 90)) for index in range(2)])
        found.append([entry.digest for entry in filler.finish()])
    assert found[0] == found[1] == found[2]


def _plain(folder: Path, samples: list[Any]) -> Path:
    optimize(lambda numbers: (samples[number] for number in numbers), [list(range(len(samples)))], str(folder / "p"), num_workers=0)
    return folder / "p"


def _given() -> dict[str, Any]:
    names = ("cache_dir", "max_cache_size", "storage_options", "session_options", "index_path", "version", "encryption", "serializers")
    return {**dict.fromkeys(names), "trust": False, "verify": "first", "ram_bytes": 2**20}
