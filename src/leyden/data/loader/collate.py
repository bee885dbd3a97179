"""`Collator`: a batch from the columns of a tray, equal to what torch's `default_collate` makes of the same samples.

Columns are sliced, not built up sample by sample: a batch of numbers or of arrays of one shape is a view of the tray. How
the leaves' batches are put together follows from the tree alone, so it is worked out once per dataset.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, final

import numpy as np

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.optional import require
from leyden.data.read.columns import BINARY, Dense, Objects, Ragged, TrayColumn
from leyden.data.read.merging import Table
from leyden.data.read.named import named
from leyden.data.read.row import WITHOUT_NUMPY, Output, numpy_array, torch_tensor
from leyden.data.read.source import Leaf

RaggedChoice = Literal["error", "list", "nested"] | float
BatchOf = Callable[[int, int], Any]
_WORDS = ("error", "list", "nested")


class _LeafBatch(NamedTuple):
    """A leaf's column, and whether its node makes lists or tuples of strings."""

    leaf: Leaf
    column: TrayColumn
    in_sequence: bool


@final
class Collator:
    """Makes batches. Pickles.

    Args:
        output: Whether arrays become torch tensors or numpy arrays.
        ragged: What becomes of arrays of several shapes: an `"error"`, a `"list"`, a `"nested"` tensor, or the number that fills them up
            to the longest.

    Raises:
        ConfigError: `ragged` is none of these.
    """

    def __init__(self, output: Output = "torch", ragged: RaggedChoice = "error") -> None:
        if isinstance(ragged, bool) or (isinstance(ragged, str) and ragged not in _WORDS) or not isinstance(ragged, str | int | float):
            raise ConfigError(f"ragged={ragged!r} is not accepted: it takes 'error', 'list', 'nested', or a number to pad with.")
        if ragged == "nested" and output != "torch":
            raise ConfigError("ragged='nested' makes nested tensors of torch: pass output='torch', or ragged='list'.")
        self.output: Output = output
        self.ragged: RaggedChoice = ragged

    def of_table(self, table: Table) -> BatchOf | None:
        """Return the function from a range of rows to their batch; `None` if the samples must be built first (graphs)."""
        columns = {leaf.name: column for leaf, column in zip(table.leaves, table.columns, strict=True)}
        leaves = {leaf.name: leaf for leaf in table.leaves}
        return self._node(table.tree, leaves, columns, in_sequence=False)

    def of_samples(self, samples: Sequence[Any]) -> Any:
        """Return the batch of samples, as `default_collate` makes it.

        Raises:
            ConfigTypeError: They cannot be put together.
        """
        if _is_graph(samples[0]):
            return _graph_batch(samples)
        if self.output == "numpy":
            return _stacked(samples)
        return torch_collated(samples)

    def _node(self, node: Any, leaves: Mapping[str, Leaf], columns: Mapping[str, TrayColumn], *, in_sequence: bool) -> BatchOf | None:
        kind = node["kind"]
        if kind == "graph":
            return None
        if kind == "leaf":
            return self._leaf(_LeafBatch(leaves[node["name"]], columns[node["name"]], in_sequence))
        found = [self._node(child, leaves, columns, in_sequence=kind != "dict") for child in node["children"]]
        children = [child for child in found if child is not None]
        if len(children) < len(found):
            return None
        if kind == "dict":
            keys = node["keys"]
            return lambda a, b: {key: child(a, b) for key, child in zip(keys, children, strict=True)}
        if kind == "namedtuple":
            made = named(node["name"], tuple(node["fields"]))
            return lambda a, b: made(*(child(a, b) for child in children))
        return lambda a, b: [child(a, b) for child in children]

    def _leaf(self, of: _LeafBatch) -> BatchOf:
        leaf, column = of.leaf, of.column
        if isinstance(column, Dense) and column.nulls is None and leaf.type != "list" and not self._splits(leaf):
            return self._slices(column.values, column.dtype)
        if isinstance(column, Ragged) and column.dtype == BINARY:
            return lambda a, b: self._texts(of, column.views(a, b))
        if isinstance(column, Objects) and column.kind in {"str", "bytes"}:
            return lambda a, b: self._texts(of, column.values[a:b])
        return lambda a, b: self._any(of, column.slice(a, b))

    def _slices(self, values: Any, dtype: str) -> BatchOf:
        if self.output == "numpy":
            return lambda a, b: numpy_array(values[a:b], dtype)
        whole = torch_tensor(values, dtype)
        if dtype in WITHOUT_NUMPY:
            return lambda a, b: whole[a:b]
        array, from_numpy = whole.numpy(), sys.modules["torch"].from_numpy
        return lambda a, b: from_numpy(array[a:b])  # half the time of a slice of the tensor

    def _any(self, of: _LeafBatch, column: TrayColumn) -> Any:
        if isinstance(column, Objects):
            return self._objects(of, column)
        _refuse_nulls(of.leaf, column.nulls is not None and bool(column.nulls.any()))
        if of.leaf.type == "list" and isinstance(column, Dense):
            return [self._array(np.ascontiguousarray(column.values[:, place]), column.dtype) for place in range(column.values.shape[1])]
        if isinstance(column, Dense) and not self._splits(of.leaf):
            return self._array(column.values, column.dtype)
        return self._uneven_rows(of.leaf, [column.row(index) for index in range(column.rows)], column.dtype)

    def _splits(self, leaf: Leaf) -> bool:
        """Return whether the leaf's arrays are not stacked, even where those of one batch have one shape."""
        is_open = leaf.type == "array" and (leaf.shape is None or None in leaf.shape)
        return is_open and isinstance(self.ragged, str) and self.ragged != "error"

    def _texts(self, of: _LeafBatch, rows: list[Any]) -> Any:
        _refuse_nulls(of.leaf, None in rows)
        return tuple(rows) if of.in_sequence else rows

    def _objects(self, of: _LeafBatch, column: Objects) -> Any:
        rows = column.values
        _refuse_nulls(of.leaf, any(row is None for row in rows))
        if isinstance(rows[0], np.ndarray):
            return self._uneven_rows(of.leaf, rows, "")
        if column.kind == "list" and self.ragged != "error":
            return rows  # also where a batch's are of one length, or code that reads it would depend on the data
        if column.kind == "list" and len({len(row) for row in rows}) > 1:
            return _refuse_uneven(of.leaf, f"lists of {len(rows[0])} and other numbers of strings")
        try:
            return self.of_samples(rows)
        except (TypeError, RuntimeError) as error:
            raise ConfigTypeError(
                f"leaf {of.leaf.name!r} ({of.leaf.type}): {type(rows[0]).__name__} objects cannot be put together to a batch. Pass "
                f"collate_fn=…, or transform=… that makes tensors, or leave it out with columns=…. ({error})"
            ) from error

    def _uneven_rows(self, leaf: Leaf, rows: list[Any], dtype: str) -> Any:
        if self.ragged == "error":
            shapes = sorted({row.shape for row in rows})
            return _refuse_uneven(leaf, f"shapes {shapes[0]} and {shapes[-1]}")
        arrays = [self._array(np.array(row), dtype) for row in rows]
        if self.ragged == "list":
            return arrays
        if self.ragged == "nested":
            torch = require("torch", purpose="ragged='nested'")
            return torch.nested.nested_tensor(arrays, layout=torch.jagged)
        return self._array(_padded(rows, float(self.ragged)), dtype)

    def _array(self, values: Any, dtype: str) -> Any:
        return torch_tensor(values, dtype) if self.output == "torch" else numpy_array(values, dtype)


def litdata_collate(samples: Sequence[Any]) -> Any:
    """Return the batch of samples as torch's `default_collate` makes it; graphs of PyG become a `Batch`.

    Args:
        samples: Samples that are built alike.

    Example:
        >>> litdata_collate([{"x": 1}, {"x": 2}])
        {'x': tensor([1, 2])}
    """
    return Collator("torch").of_samples(samples)


def torch_collated(samples: Sequence[Any]) -> Any:
    """Return what torch's `default_collate` makes of samples."""
    require("torch", purpose='output="torch"; output="numpy" needs none')
    from torch.utils.data import default_collate

    try:
        return default_collate(list(samples))
    except (TypeError, RuntimeError) as error:
        raise ConfigTypeError(
            f"samples such as {_told(samples[0])} cannot be put together to a batch: {error}. Pass collate_fn=… to the loader."
        ) from error


def _stacked(samples: Sequence[Any]) -> Any:
    """Return what `default_collate` makes of samples, with numpy arrays in the place of tensors."""
    first: Any = samples[0]
    if isinstance(first, str | bytes):
        return samples
    if isinstance(first, Mapping):
        return {key: _stacked([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(_stacked(parts) for parts in zip(*samples, strict=True)))
    if isinstance(first, Sequence):
        if len({len(sample) for sample in samples}) > 1:
            raise ConfigTypeError("samples hold lists of several lengths: pass collate_fn=… to the loader.")
        return [_stacked(parts) for parts in zip(*samples, strict=True)]
    if isinstance(first, bool | int | float | np.ndarray | np.generic) or type(first).__module__ == "torch":
        try:
            return np.stack([np.asarray(sample) for sample in samples])
        except ValueError as error:
            raise ConfigTypeError(f"samples hold arrays of several shapes: {error}. Pass collate_fn=… to the loader.") from error
    raise ConfigTypeError(f"samples such as {_told(first)} cannot be put together to a batch. Pass collate_fn=… to the loader.")


def _padded(rows: Sequence[Any], fill: float) -> Any:
    ranks = {row.ndim for row in rows}
    if len(ranks) > 1:
        raise ConfigError(f"ragged={fill:g} pads arrays of one rank; these have ranks {sorted(ranks)}. Pass ragged='list'.")
    longest = tuple(max(row.shape[axis] for row in rows) for axis in range(ranks.pop()))
    out = np.full((len(rows), *longest), fill, rows[0].dtype)
    for place, row in enumerate(rows):
        out[(place, *(slice(size) for size in row.shape))] = row
    return out


def _refuse_nulls(leaf: Leaf, has_nulls: bool) -> None:  # noqa: FBT001 - private
    if has_nulls:
        raise ConfigError(
            f"leaf {leaf.name!r} is None in a sample of this batch, so it has no batch. Give it a value in transform=…, pass collate_fn=…, "
            "or leave it out with columns=…."
        )


def _refuse_uneven(leaf: Leaf, what: str) -> Any:
    raise ConfigError(
        f"leaf {leaf.name!r} has {what} in one batch. Pass ragged='list' for a list of arrays, ragged='nested' for a nested tensor, "
        "ragged=0 to pad with zeros, or collate_fn=…."
    )


def _is_graph(sample: Any) -> bool:
    return type(sample).__module__.startswith("torch_geometric.data")


def _graph_batch(samples: Sequence[Any]) -> Any:
    return require("torch_geometric.data", purpose="batches of graphs").Batch.from_data_list(list(samples))


def _told(sample: Any) -> str:
    return f"{sample!r:.80}"
