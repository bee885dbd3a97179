"""`Samples`: from the columns of a tray back to the trees that were written.

The tree is compiled once: for each node a function from the values of its leaves to the node's value. Converting is
done per column (`tolist` makes a thousand Python numbers at once), building per sample.
"""

import copy
import difflib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, final

import numpy as np

from leyden.core.errors import ConfigError, listed
from leyden.core.optional import require
from leyden.data.codecs.registry import decoder
from leyden.data.codecs.serializer import Serializer
from leyden.data.read.columns import BINARY, Dense, Objects, Ragged, TrayColumn
from leyden.data.read.gather import Wanted
from leyden.data.read.named import named
from leyden.data.read.source import Leaf
from leyden.data.types import Graph

Output = Literal["torch", "numpy"]
Binary = Literal["bytes", "view"]
Build = Callable[[Sequence[Any]], Any]
_PLAIN = frozenset({"bool", "int", "float", "array", "list"})
_NO_MEDIA = frozenset({"str", "text", "json"})  # `decode=False` is about files
_IMAGES = frozenset({"jpeg", "image"})
WITHOUT_NUMPY = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2"})
"""The dtypes that torch has and numpy has not."""


@final
class Samples:
    """What the leaves of a dataset become, and how they are put together. Pickles; thread safe.

    Args:
        tree: The schema's tree, as JSON.
        leaves: The schema's leaves, in the order of the columns.
        columns: Which leaves are wanted, by name or by the name of a node above them; `None` is all.
        output: Whether arrays become torch tensors or numpy arrays.
        decode: Whether encoded leaves are decoded; or a dict by leaf.
        serializers: The user's own kinds of leaves.
        trust: Whether pickled leaves may be loaded.
    """

    def __init__(
        self,
        tree: Any,
        leaves: Sequence[Leaf],
        *,
        columns: Sequence[str] | None = None,
        output: Output = "torch",
        decode: "bool | Mapping[str, bool]" = True,
        serializers: Mapping[str, Serializer] | None = None,
        trust: bool = False,
    ) -> None:
        self.output: Output = output
        self.wanted: list[Wanted] = []
        self.leaves: list[Leaf] = []
        for index, leaf in enumerate(leaves):
            if columns is None or any(is_below(leaf.name, name) for name in columns):
                is_decoded = decode or leaf.type in _NO_MEDIA if isinstance(decode, bool) else decode.get(leaf.name, True)
                self.wanted.append(_wanted(index, leaf, is_decoded=is_decoded, serializers=serializers, trust=trust))
                self.leaves.append(leaf)
        _refuse_unknown("columns", columns or (), leaves)
        _refuse_unknown("decode", () if isinstance(decode, bool) else decode, leaves)
        self.tree = prune(tree, {leaf.name for leaf in self.leaves})
        self._build: Build | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_build": None}  # functions that were made here cannot be sent

    def with_output(self, output: Output) -> "Samples":
        """Return the same with arrays of the other library."""
        other = copy.copy(self)  # without what was compiled
        other.output = output
        return other

    def with_binary(self, binary: Binary) -> "Samples":
        """Return the same with rows of bytes as objects of their own, or as views of the tray."""
        other = copy.copy(self)
        other.wanted = [replace(leaf, as_views=binary == "view" and _is_binary(leaf)) for leaf in self.wanted]
        return other

    def values(self, columns: Sequence[TrayColumn], start: int, stop: int) -> list[Any]:
        """Return rows `start` to `stop` as samples."""
        if self._build is None:
            self._build = compile_tree(self.tree, {leaf.name: place for place, leaf in enumerate(self.leaves)}, self.output)
        build = self._build
        leaves = zip(self.wanted, columns, strict=True)
        converted = [self._converted(place, leaf, column.slice(start, stop)) for place, (leaf, column) in enumerate(leaves)]
        return [build(row) for row in zip(*converted, strict=True)] if converted else [build(()) for _ in range(stop - start)]

    def _converted(self, place: int, leaf: Wanted, column: TrayColumn) -> list[Any]:
        """Return the values of one leaf, one per row."""
        of = self.leaves[place].of if leaf.type == "array" else "torch"
        if isinstance(column, Objects):
            return [self._leaf_array(row, leaf.dtype or "", of) if isinstance(row, np.ndarray) else row for row in column.values]
        if isinstance(column, Ragged) and column.dtype == BINARY:
            return column.views(0, column.rows)
        nulls = column.nulls
        if isinstance(column, Dense) and column.values.ndim == 1 and (leaf.type in {"bool", "int", "float"}):
            found = column.values.tolist()
        elif leaf.type == "list":
            found = [column.values[a:b].tolist() for a, b in _pairs(column)] if isinstance(column, Ragged) else column.values.tolist()
        else:
            found = [self._leaf_array(column.row(row), column.dtype, of) for row in range(column.rows)]
        return found if nulls is None else [None if null else value for value, null in zip(found, nulls.tolist(), strict=True)]

    def _leaf_array(self, row: Any, dtype: str, of: str | None) -> Any:
        if row is None:
            return None
        if of == "scalar":
            return row[()]
        return self._array(row, dtype) if of == "torch" else numpy_array(row, dtype)

    def _array(self, row: Any, dtype: str) -> Any:
        return torch_tensor(row, dtype) if self.output == "torch" else numpy_array(row, dtype)


def torch_tensor(array: Any, dtype: str) -> Any:
    """Return a tensor that shares the array's memory; of the dtypes that numpy lacks, the bits become what they are."""
    torch = sys.modules.get("torch") or require("torch", purpose='output="torch"; output="numpy" needs none')
    array = array if array.flags.writeable and array.flags.c_contiguous else array.copy()
    tensor = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    return tensor.view(getattr(torch, dtype)) if dtype in WITHOUT_NUMPY else tensor


def numpy_array(array: Any, dtype: str) -> Any:
    """Return the array; `bfloat16` as float32, which holds all its values."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array


def compile_tree(node: Any, places: Mapping[str, int], output: Output = "torch") -> Build:
    """Return the function from the values of all leaves to a sample.

    Args:
        node: The tree, as JSON.
        places: The name of a leaf to its place among the values.
        output: For graphs.
    """
    kind = node["kind"]
    if kind == "leaf":
        place = places[node["name"]]
        return lambda row: row[place]
    children = [compile_tree(child, places, output) for child in node["children"]]
    if kind == "dict":
        return _dict_of(node, places, children)
    if kind == "namedtuple":
        made = named(node["name"], tuple(node["fields"]))
        return lambda row: made(*(child(row) for child in children))
    if kind == "graph":
        fields = node.get("keys") or [leaf_name(child["name"]) for child in node["children"]]
        hetero = bool(node["hetero"])
        return lambda row: Graph.decode({name: child(row) for name, child in zip(fields, children, strict=True)}, hetero=hetero)
    if kind == "list":
        return lambda row: [child(row) for child in children]
    return lambda row: tuple(child(row) for child in children)


def _dict_of(node: Any, places: Mapping[str, int], children: Sequence[Build]) -> Build:
    keys = node["keys"]
    if all(child["kind"] == "leaf" for child in node["children"]):  # the usual sample: no call per leaf
        order = [places[child["name"]] for child in node["children"]]
        if order == list(range(len(places))):
            return lambda row: dict(zip(keys, row, strict=True))
        return lambda row: {key: row[place] for key, place in zip(keys, order, strict=True)}
    return lambda row: {key: child(row) for key, child in zip(keys, children, strict=True)}


def prune(node: Any, names: "set[str]") -> Any:
    """Return the tree without the leaves that are not wanted, and without nodes that lose all theirs."""
    if node["kind"] == "leaf":
        return node if node["name"] in names else None
    kept = [(place, child) for place, each in enumerate(node["children"]) if (child := prune(each, names)) is not None]
    if not kept and node["children"]:
        return None
    if len(kept) == len(node["children"]):
        return {**node, "children": [child for _, child in kept]}
    pruned = {**node, "children": [child for _, child in kept]}
    for key in ("keys", "fields"):
        if key in node:
            pruned[key] = [node[key][place] for place, _ in kept]
    return pruned


def is_below(leaf: str, name: str) -> bool:
    """Return whether a leaf is the one of that name, or below the node of that name."""
    return leaf == name or leaf.startswith(f"{name}/")


def leaf_name(path: str) -> str:
    """Return the last part of a leaf's name as it was written.

    Example:
        >>> leaf_name("graph/a~1b")
        'a/b'
    """
    return path.rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def _refuse_unknown(argument: str, names: Iterable[str], leaves: Sequence[Leaf]) -> None:
    unknown = next((name for name in names if not any(is_below(leaf.name, name) for leaf in leaves)), None)
    if unknown is not None:
        known = [leaf.name for leaf in leaves]
        near = difflib.get_close_matches(str(unknown), known, 1)
        raise ConfigError(
            f"{argument}: this dataset has no leaf {unknown!r}{f', but {near[0]!r}' if near else ''}. It has {listed(known)}."
        )


def _wanted(index: int, leaf: Leaf, *, is_decoded: bool, serializers: Mapping[str, Serializer] | None, trust: bool) -> Wanted:
    shape = None if leaf.shape is None or None in leaf.shape else tuple(leaf.shape)
    if leaf.type in _PLAIN:
        return Wanted(index=index, name=leaf.name, type=leaf.type, dtype=leaf.dtype, shape=shape if leaf.type == "array" else _scalar(leaf))
    decode = None
    if is_decoded or leaf.type == "str":
        decode = decoder(leaf.type, output="numpy" if leaf.type in _IMAGES else "torch", serializers=serializers, trust=trust)
    return Wanted(index=index, name=leaf.name, type=leaf.type, decode=decode, is_array=is_decoded and leaf.type in _IMAGES)


def _is_binary(leaf: Wanted) -> bool:
    return leaf.type not in _PLAIN and (leaf.type in {"bytes", "file"} or (leaf.decode is None and leaf.type not in _NO_MEDIA))


def _scalar(leaf: Leaf) -> tuple[int, ...] | None:
    return () if leaf.type != "list" else None


def _pairs(column: Ragged) -> "zip[tuple[Any, Any]]":
    return zip(column.offsets[:-1].tolist(), column.offsets[1:].tolist(), strict=True)
