"""A `BlockSource` of samples in memory: what reads is tested on it without any file format."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from leyden.data.format.column import LIST, TENSOR, Column, bytes_column_of
from leyden.data.format.schema import Leaf, Schema
from leyden.data.format.table import BlockTable
from leyden.data.interop import columns as made
from leyden.data.interop.columns import ForeignBlock

_NUMBERS = {bool: ("bool", "bool"), int: ("int", "int64"), float: ("float", "float64")}


class ArraySource:
    """Samples that are flat dicts, cut into blocks of `per_block` rows (or of the sizes in a list).

    Args:
        samples: The rows; a value is a number, str, bytes, list of numbers or of str, array or `None`.
        per_block: Rows of each block.
        types: Leaf types that are not to be guessed, by name.
        tokens: Whether the one leaf is a stream of tokens.
    """

    def __init__(
        self,
        samples: Sequence[dict[str, Any]],
        per_block: int | Sequence[int],
        types: dict[str, str] | None = None,
        *,
        tokens: bool = False,
    ) -> None:
        self.samples = list(samples)
        sizes = [per_block] * -(-len(samples) // per_block) if isinstance(per_block, int) else list(per_block)
        starts = np.concatenate([[0], np.cumsum(sizes)]).clip(max=len(samples))
        self.parts = [self.samples[a:b] for a, b in itertools.pairwise(starts)]
        names = sorted(samples[0], key=str.encode)
        leaves = [leaf_of(name, [sample[name] for sample in samples], (types or {}).get(name)) for name in names]
        nodes = {leaf.name: leaf.to_json() for leaf in leaves}
        self.schema = Schema({"kind": "dict", "keys": list(samples[0]), "children": [nodes[name] for name in samples[0]]})
        count = len(self.parts)
        self.table = BlockTable(
            chunk=np.zeros(count, np.int32),
            first_row=starts[:-1].astype(np.int64),
            rows=np.diff(starts).astype(np.int64),
            offset=np.arange(count) * 1000,
            stored_bytes=np.full(count, 1000),
            tokens=np.array([sum(len(row["tokens"]) for row in part) for part in self.parts]) if tokens else None,
        )
        self.chunk_names = ["chunk"]
        self.digest = "d" * 32
        self.version = 1
        self.fetched: list[int] = []

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> Any:
        self.fetched.append(block)
        return block

    def open(self, block: int, buffer: Any) -> ForeignBlock:
        assert buffer == block
        part = self.parts[block]
        return ForeignBlock(
            len(part),
            int(self.table.first_row[block]),
            [column_of([row[leaf.name] for row in part], leaf) for leaf in self.schema.leaves],
        )


def leaf_of(name: str, values: list[Any], kind: str | None) -> Leaf:
    present = [value for value in values if value is not None]
    nullable = len(present) < len(values)
    first = present[0]
    if kind is not None:
        return Leaf(name, kind, nullable)
    if type(first) in _NUMBERS:
        return Leaf(name, *_NUMBERS[type(first)][:1], nullable=nullable, dtype=_NUMBERS[type(first)][1])
    if isinstance(first, np.ndarray):
        shapes = {value.shape for value in present}
        shape = first.shape if len(shapes) == 1 else None
        return Leaf(name, "array", nullable, first.dtype.name, shape, "numpy")
    return Leaf(name, {str: "str", bytes: "bytes", list: "list"}[type(first)], nullable)


def column_of(values: list[Any], leaf: Leaf) -> Column:
    present = [value for value in values if value is not None]
    validity = None if len(present) == len(values) else np.packbits([value is not None for value in values], bitorder="little")
    if not present:
        return Column(kind=0, dtype="none", dims=(), rows=len(values), values=np.zeros(0, np.uint8))
    if leaf.type in {"bool", "int", "float"}:
        return made.fixed_column(leaf.dtype, np.array([value or 0 for value in values], leaf.dtype), validity)
    if leaf.type == "array":
        return array_column(values, present, validity)
    if leaf.type == "list" and any(isinstance(item, str) for value in present for item in value):
        return strings_column([value or [] for value in values], validity)
    if leaf.type == "list":
        return array_column(
            [None if value is None else np.array(value) for value in values], [np.array(value) for value in present], validity
        )
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return bytes_column_of(encoded)


def array_column(values: list[Any], present: list[Any], validity: Any) -> Column:
    if len({value.shape for value in present}) == 1:
        zero = np.zeros_like(present[0])
        return made.fixed_column(present[0].dtype.name, np.stack([zero if value is None else value for value in values]), validity)
    rank = present[0].ndim
    shapes = np.array([(0,) * rank if value is None else value.shape for value in values])
    offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
    flat = np.concatenate([value.reshape(-1) for value in present])
    kind = LIST if rank == 1 else TENSOR
    return Column(
        kind, flat.dtype.name, (), len(values), flat, offsets, shapes=None if rank == 1 else shapes.astype(np.uint32), validity=validity
    )


def strings_column(values: list[list[str]], validity: Any) -> Column:
    texts = [text.encode() for value in values for text in value]
    inner = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int64)
    return made.strings_column(np.frombuffer(b"".join(texts), np.uint8), inner, offsets, validity)
