"""Samples of a `BlockSource`, decoded leaf by leaf: what the tests of foreign formats compare."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from leyden.data.codecs.registry import decoder


def samples(source: Any, *, output: str = "torch", trust: bool = False, serializers: Mapping[str, Any] | None = None) -> list[Any]:
    return list(_samples(source, output, trust, {**getattr(source, "serializers", {}), **(serializers or {})}))


def _samples(source: Any, output: Any, trust: bool, serializers: Mapping[str, Any]) -> Iterator[Any]:
    leaves = source.schema.leaves
    encoded = {
        leaf.name: decoder(leaf.type, output=output, trust=trust, serializers=serializers)
        for leaf in leaves
        if leaf.type not in {"bool", "int", "float", "array", "list"}
    }
    for block in range(len(source.table.rows)):
        opened = source.open(block, source.fetch(block))
        assert opened.rows == source.table.rows[block]
        columns = {leaf.name: (leaf, opened.column(i)) for i, leaf in enumerate(leaves)}
        for row in range(opened.rows):
            yield _tree(source.schema.tree, {name: _value(*pair, row, encoded.get(name)) for name, pair in columns.items()})


def _tree(node: Any, values: Mapping[str, Any]) -> Any:
    if node["kind"] == "leaf":
        return values[node["name"]]
    children = [_tree(child, values) for child in node["children"]]
    if node["kind"] == "dict":
        return dict(zip(node["keys"], children, strict=True))
    return children if node["kind"] == "list" else tuple(children)


def _value(leaf: Any, column: Any, row: int, decode: Any) -> Any:
    if column.validity is not None and not column.validity[row // 8] >> (row % 8) & 1:
        return None
    if decode is not None:
        return decode(memoryview(column.values[column.offsets[row] : column.offsets[row + 1]]))
    if column.kind == 5:
        ends = column.inner_offsets[column.offsets[row] : column.offsets[row + 1] + 1]
        return [bytes(column.values[a:b]).decode() for a, b in pairwise(ends)]
    value = column.values[row] if column.kind == 1 else column.values[column.offsets[row] : column.offsets[row + 1]]
    if column.shapes is not None:
        value = value.reshape(column.shapes[row])
    if leaf.type in {"bool", "int", "float"}:
        return value.item()
    if leaf.type == "list":
        return value.tolist()
    array = np.array(value)
    return torch.from_numpy(array).view(getattr(torch, leaf.dtype)) if leaf.of == "torch" else array


def plain(value: Any) -> Any:
    """Return a value in a form that pickles without its library, as `tests/support/litdata_writer.py` does on its side."""
    if isinstance(value, torch.Tensor):
        return "torch", str(value.dtype), value.numpy()
    if isinstance(value, np.ndarray):
        return "numpy", str(value.dtype), value
    if hasattr(value, "getbands"):
        return "pil", value.mode, value.size, value.tobytes()
    if type(value).__name__ == "Graph":
        return "graph", {k: plain(getattr(value, k)) for k in ("x", "edge_index", "y", "data") if getattr(value, k) is not None}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return type(left) is type(right) and left == right
