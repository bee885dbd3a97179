"""Law: whatever samples may hold, and LitData's layout has a leaf for, comes back from it alike."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from leyden.core.storage import open_storage
from leyden.data.format.leaves import LeafRules
from leyden.data.format.tree import SampleBuilder
from leyden.data.interop.litdata_read import LitdataSource
from leyden.data.interop.litdata_write import LitdataSettings, LitdataWriter
from tests.support.foreign_rows import plain, same, samples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMPY = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64"]
TORCH = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "uint16"]


def numpy_arrays(rank: int, names: list[str] = NUMPY) -> st.SearchStrategy[Any]:
    shapes = st.tuples(*[st.integers(0 if rank == 1 else 1, 3)] * rank)
    return st.sampled_from(names).flatmap(lambda name: st.just(lambda draw: draw(arrays.arrays(name, shapes))))


LEAVES: list[Any] = [
    st.just(lambda draw: draw(st.integers(-(2**63), 2**63 - 1))),
    st.just(lambda draw: draw(st.floats(allow_nan=False))),
    st.just(lambda draw: draw(st.booleans())),
    st.just(lambda draw: draw(TEXT)),
    st.just(lambda draw: draw(st.binary(max_size=8))),
    st.just(lambda draw: draw(st.lists(st.integers(-5, 5), min_size=1, max_size=3))),
    st.just(lambda draw: draw(st.lists(TEXT, min_size=1, max_size=3))),
    numpy_arrays(1),
    numpy_arrays(2),
    numpy_arrays(3),
    numpy_arrays(2, TORCH).map(lambda make: lambda draw: torch.from_numpy(make(draw))),
    numpy_arrays(1, TORCH).map(lambda make: lambda draw: torch.from_numpy(make(draw))),
]
KEYS = st.text(st.sampled_from("ab/~é"), min_size=1, max_size=3) | st.integers(0, 5)
TREES = st.recursive(
    st.one_of(*LEAVES),
    lambda inner: (
        st.dictionaries(KEYS, inner, min_size=1, max_size=3).map(lambda d: lambda draw: {key: make(draw) for key, make in d.items()})
        | st.lists(inner, min_size=1, max_size=3).map(lambda children: lambda draw: tuple(make(draw) for make in children))
    ),
    max_leaves=5,
)


@st.composite
def datasets(draw: st.DrawFn) -> list[Any]:
    """Draw rows of one structure: a tree of leaf makers first, then values for each row."""
    make = draw(TREES)
    return [make(draw) for _ in range(draw(st.integers(1, 6)))]


@given(datasets(), st.sampled_from([None, "batch", "sample", "chunk"]), st.integers(1, 4))
def test_rows_come_back_from_litdatas_layout(rows: list[Any], level: Any, chunk_size: int) -> None:
    builder = SampleBuilder(LeafRules())
    for row in rows:
        builder.append(row)
    schema = builder.schema
    settings = LitdataSettings(chunk_size=chunk_size, compression=level and "zstd", level=level or "chunk", frame_rows=2)
    writer = LitdataWriter(schema.tree, schema.leaves, settings)
    chunks = writer.add(builder.finish()) + writer.finish()
    storage = open_storage("memory://litdata-laws")
    for chunk in chunks:
        storage.write(chunk.name, chunk.data)
    storage.write("index.json", writer.index([chunk.entry for chunk in chunks]))
    read = samples(LitdataSource("memory://litdata-laws"))
    assert same([plain(row) for row in read], [plain(row) for row in rows])
