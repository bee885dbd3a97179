"""Batches from columns equal torch's `default_collate` of the samples; uneven and missing values are named."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import default_collate

from leyden.core.errors import ConfigError
from leyden.data import StreamingDataset, optimize
from leyden.data.loader.collate import Collator
from leyden.data.read.stream import Rows

Point = namedtuple("Point", "x name")


def same(one: Any, other: Any) -> bool:
    """Return whether two batches are equal, types and dtypes included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def whole(dataset: StreamingDataset, collator: Collator) -> Any:
    stream = dataset.stream()
    rows = stream.positions(1, 0, dataset.num_rows)
    tray = stream.gather(Rows.of_one(rows.row, rows.copy, rows.lane))
    made = collator.of_table(tray.table())
    assert made is not None
    return made(0, len(rows))


def written(folder: Path, samples: list[Any]) -> StreamingDataset:
    optimize(lambda number: samples[number], list(range(len(samples))), str(folder), num_workers=0, verbose=False)
    return StreamingDataset(str(folder))


values = st.one_of(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(max_size=8),
    st.binary(max_size=8),
)


@st.composite
def alike(draw: st.DrawFn) -> list[Any]:
    """Draw samples of one structure."""
    kinds = st.sampled_from(["int", "float", "bool", "str", "bytes", "array", "tensor", "scalar", "ints", "texts", "json"])

    def node(depth: int) -> Any:
        choice = draw(st.sampled_from(["leaf", "leaf", "dict", "tuple", "point"] if depth else ["leaf"]))
        if choice == "leaf":
            return draw(kinds)
        if choice == "dict":
            return {f"k{place}": node(depth - 1) for place in range(draw(st.integers(1, 3)))}
        if choice == "point":
            return Point(node(depth - 1), node(depth - 1))
        return tuple(node(depth - 1) for _ in range(draw(st.integers(1, 3))))

    def value(kind: Any) -> Any:
        if isinstance(kind, dict):
            return {key: value(child) for key, child in kind.items()}
        if isinstance(kind, Point):
            return Point(*(value(child) for child in kind))
        if isinstance(kind, tuple):
            return tuple(value(child) for child in kind)
        number = draw(st.integers(0, 100))
        return {
            "int": number,
            "float": number / 7,
            "bool": number > 50,
            "str": f"é{number}",
            "bytes": bytes([number]),
            "array": np.full((2, 3), number, np.int16),
            "tensor": torch.full((4,), number, dtype=torch.bfloat16),
            "scalar": np.float32(number),
            "ints": [number, 2 * number],
            "texts": [str(number), "b"],
            "json": [{"a": number, "b": "c"}, 1.5],
        }[kind]

    tree = node(2)
    return [value(tree) for _ in range(draw(st.integers(1, 5)))]


@given(samples=alike())
def test_batches_equal_default_collate(samples: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset = written(tmp_path_factory.mktemp("data"), samples)
    ours, theirs = whole(dataset, Collator()), default_collate(dataset[:])
    assert same(_without_names(ours), _without_names(theirs)), (ours, theirs)


def _without_names(batch: Any) -> Any:
    """Named tuples read back are of a class of their own: compare them as plain ones."""
    if isinstance(batch, dict):
        return {key: _without_names(child) for key, child in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return ("named", *map(_without_names, batch))
    return [_without_names(child) for child in batch] if isinstance(batch, list) else batch


def test_uneven_arrays_are_named_or_made_what_one_asks_for(tmp_path: Path) -> None:
    dataset = written(tmp_path, [{"a": np.arange(n, dtype=np.float32)} for n in (1, 3, 2)])
    with pytest.raises(ConfigError, match=r"leaf 'a' has shapes \(1,\) and \(3,\).*ragged='list'"):
        whole(dataset, Collator())
    assert [row.tolist() for row in whole(dataset, Collator(ragged="list"))["a"]] == [[0], [0, 1, 2], [0, 1]]
    assert whole(dataset, Collator(ragged=-1))["a"].tolist() == [[0, -1, -1], [0, 1, 2], [0, 1, -1]]
    assert whole(dataset, Collator(ragged="nested"))["a"].is_nested
    padded = whole(dataset, Collator("numpy", ragged=9))["a"]
    assert isinstance(padded, np.ndarray)
    assert padded[0].tolist() == [0, 9, 9]


@pytest.mark.parametrize("names", [[["x"], ["y", "z"]], [["x"], ["y"]]])
@pytest.mark.parametrize("ragged", ["list", "nested", 0])
def test_lists_of_strings_stay_lists_where_uneven_ones_are_accepted(tmp_path: Path, names: list[list[str]], ragged: Any) -> None:
    dataset = written(tmp_path, [{"names": row} for row in names])
    assert whole(dataset, Collator(ragged=ragged)) == {"names": names}


def test_uneven_lists_of_strings_are_named(tmp_path: Path) -> None:
    dataset = written(tmp_path, [{"names": ["x"]}, {"names": ["y", "z"]}])
    with pytest.raises(ConfigError, match=r"leaf 'names' has lists of 1 and other numbers of strings.*ragged='list'"):
        whole(dataset, Collator())


def test_a_missing_value_is_named(tmp_path: Path) -> None:
    dataset = written(tmp_path, [{"a": 1, "b": "x"}, {"a": None, "b": None}])
    with pytest.raises(ConfigError, match=r"leaf '[ab]' is None"):
        whole(dataset, Collator())


@pytest.mark.parametrize("ragged", [True, "pad", None])
def test_ragged_takes_words_or_a_number(ragged: Any) -> None:
    with pytest.raises(ConfigError, match="'nested', or a number"):
        Collator(ragged=ragged)


def test_numpy_batches_have_the_same_form(tmp_path: Path) -> None:
    samples = [{"a": 1.5, "b": ("x", np.arange(2)), "c": [1, 2], "d": [{"k": 3}]}] * 2
    columns = whole(written(tmp_path, samples), Collator("numpy"))
    built = Collator("numpy").of_samples(samples)
    assert columns["a"].tolist() == built["a"].tolist() == [1.5, 1.5]
    assert columns["b"][0] == built["b"][0] == ("x", "x")
    assert columns["b"][1].shape == built["b"][1].shape == (2, 2)
    assert [part.tolist() for part in columns["c"]] == [part.tolist() for part in built["c"]] == [[1, 1], [2, 2]]
    assert columns["d"][0]["k"].tolist() == built["d"][0]["k"].tolist() == [3, 3]


def test_the_form_of_uneven_leaves_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    dataset = written(tmp_path, [{"a": np.zeros(n)} for n in (2, 2, 3)])
    stream = dataset.stream()
    rows = stream.positions(1, 0, 2)
    for ragged, kind in (("list", list), ("nested", torch.Tensor)):
        made = Collator(ragged=ragged).of_table(stream.gather(rows).table())  # type: ignore[arg-type]
        assert made is not None
        batch = made(0, 2)["a"]
        assert isinstance(batch, kind)
        assert isinstance(batch, list) or batch.is_nested
