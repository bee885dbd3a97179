"""`LitdataSource`: a dataset that LitData wrote, as blocks.

A block is a run of about 2 MiB of items of one chunk; of files that must be read whole it is still that run, cut from the
file that was decoded once.
Token datasets are read as LitData reads them: a row is a window, and windows do not cross chunks.
"""

import pickle
import threading
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from leyden.core.errors import ConfigError
from leyden.data.codecs.serializer import Serializer
from leyden.data.format.hashing import digest128
from leyden.data.format.schema import Schema, leaf_nodes
from leyden.data.interop import arrow
from leyden.data.interop.blocks import ForeignSource, Plan, pack_items, unpack_items
from leyden.data.interop.columns import ForeignBlock, array_column, storage_of
from leyden.data.interop.files import ForeignFiles
from leyden.data.interop.litdata_chunks import Chunks, Decrypts
from leyden.data.interop.litdata_graph import LitdataGraph
from leyden.data.interop.litdata_index import INDEX, LitdataIndex, node_of, parse_index
from leyden.data.interop.litdata_leaves import LeafFormat, leaf_format
from leyden.data.interop.spans import split_rows


@final
class LitdataSource(ForeignSource):
    """A LitData dataset as a `BlockSource`.

    Args:
        url: The folder or URL that holds `index.json`.
        options: Of the storage.
        encryption: What decrypts it, if it is encrypted.
        serializers: The user's own kinds of leaves.
        block_size: Tokens in a window, of a token dataset.
        trust: Whether pickled graphs may be loaded.

    Raises:
        ConfigError: The index names what is not read, or needs an argument that is missing.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        encryption: Decrypts | None = None,
        serializers: Mapping[str, Serializer] | None = None,
        block_size: int | None = None,
        trust: bool = False,
    ) -> None:
        self.files = ForeignFiles(url, options)
        content = self.files.read(INDEX)
        self.digest = digest128(content)
        self.index = parse_index(content, f"{url}/{INDEX}")
        self.chunks = Chunks(self.files, self.index, encryption)
        self.chunk_names = self.index.names
        self.serializers: Mapping[str, Serializer] = {"litdata-graph": LitdataGraph(trust=trust)}
        self._firsts = _FirstRow(self.chunks, len(self.index.formats))
        self.window = _window(self.index, block_size)
        self._arrow: Any = _arrow_schema(self.chunks) if self.window is None else None
        if self._arrow is not None:
            self._leaves = []
            node = arrow.node_of_schema(self._arrow)
        elif self.window is not None:
            self._leaves = [leaf_format(self.index.formats[0], lambda: None)]
            node = {"kind": "leaf", "name": "", "nullable": False, **_described(self._leaves[0], [self.window])}
        else:
            custom = frozenset(serializers or {})
            self._leaves = [leaf_format(name, lambda i=i: self._firsts.leaf(i), custom) for i, name in enumerate(self.index.formats)]
            node = node_of(self.index.tree, [_described(leaf) for leaf in self._leaves])
        self.schema = Schema.from_json(node)
        self._order = _order(node, self.schema) if self._leaves else []
        self._plan = _plan(self.index, self.window)
        self.table = self._plan.table

    def fetch(self, block: int, columns: Sequence[int] | None = None) -> bytes:
        """Return the block's items, plain, and where they begin."""
        del columns  # rows lie one after the other: none of them can be left out
        chunk, first, rows = self._plan.place(block)
        if self.window is not None:
            return self._tokens(chunk, first, rows)
        if self._arrow is not None:
            return self._arrow_rows(chunk, first, rows)
        items = self.chunks.items(chunk, first, first + rows)
        return pack_items(items.data, items.offsets)

    def open(self, block: int, buffer: Any) -> ForeignBlock:
        """Return the columns of a buffer of `fetch`."""
        rows, first_row = int(self.table.rows[block]), int(self.table.first_row[block])
        if self._arrow is not None:
            return ForeignBlock(rows, first_row, pickle.loads(buffer))  # noqa: S301 - what `fetch` made, here or in this node's cache
        if self.window is not None:
            shapes = np.full((rows, 1), self.window, np.int64)
            return ForeignBlock(rows, first_row, [array_column(self._leaves[0].dtype or "", np.frombuffer(buffer, np.uint8), shapes)])
        data, offsets = unpack_items(buffer)
        spans = split_rows(data, offsets, len(self._leaves))
        return ForeignBlock(rows, first_row, [self._leaves[leaf].read(spans[leaf]) for leaf in self._order])

    def _arrow_rows(self, chunk: int, first: int, rows: int) -> bytes:
        table = self.chunks.table(chunk)
        names = [leaf.name for leaf in self.schema.leaves]
        missing = [name for name in self._arrow.names if name not in table.column_names]
        for name in missing:
            table = table.append_column(self._arrow.field(name), arrow.pyarrow().nulls(len(table), self._arrow.field(name).type))
        part = table.select(self._arrow.names).cast(self._arrow).slice(first, rows)
        return pickle.dumps(arrow.columns_of(part, names))

    def _tokens(self, chunk: int, first: int, rows: int) -> bytes:
        """Return the bytes of some windows of a chunk: items lie back to back, so their borders do not matter."""
        items = int(self.index.rows[chunk])
        size = np.dtype(_storage(self._leaves[0])).itemsize * (self.window or 1)
        if not self.chunks.is_ranged or self.index.level != "chunk" or self.index.encryption is not None:
            return self.chunks.items(chunk, 0, items).data[first * size : (first + rows) * size].tobytes()
        return bytes(self.files.part(self.index.names[chunk], 4 * (items + 2) + first * size, rows * size))


@final
class _FirstRow:
    """The first row of the dataset, which is looked at only if a leaf's dtype lies there."""

    def __init__(self, chunks: Chunks, leaves: int) -> None:
        self.chunks = chunks
        self.leaves = leaves
        self._lock = threading.Lock()
        self._found: list[memoryview] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"chunks": self.chunks, "leaves": self.leaves}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["chunks"], state["leaves"])  # type: ignore[misc]

    def leaf(self, number: int) -> memoryview | None:
        with self._lock:
            if self._found is None and len(self.chunks.index.names):
                items = self.chunks.items(0, 0, 1)
                self._found = [spans.row(0) for spans in split_rows(items.data, items.offsets, self.leaves)]
        return self._found[number] if self._found else None


def _arrow_schema(chunks: Chunks) -> Any:
    """Return the Arrow schema that holds the rows of all chunks, if their rows are Arrow tables, else `None`."""
    if not len(chunks.index.names) or not any(chunks.is_arrow(number) for number in range(1)):
        return None
    pa = arrow.pyarrow()
    return pa.unify_schemas([chunks.table(chunk).schema for chunk in range(len(chunks.index.names))], promote_options="permissive")


def _window(index: LitdataIndex, block_size: int | None) -> int | None:
    if index.tokens is None:
        return None
    if block_size is None:
        raise ConfigError("the dataset holds tokens, and how many make a row is not said. Pass item_loader=TokensLoader(block_size=2049).")
    if not (index.tokens // block_size).sum():
        raise ConfigError(f"block_size={block_size:,}: no chunk has so many tokens; the largest has {index.tokens.max():,}.")
    return block_size


def _described(leaf: LeafFormat, shape: list[int] | None = None) -> dict[str, Any]:
    described: dict[str, Any] = {"type": leaf.type}
    if leaf.type == "array":
        described |= {"dtype": leaf.dtype, "shape": shape, "of": leaf.of}
    return described


def _order(node: Mapping[str, Any], schema: Any) -> list[int]:
    """Return, for each leaf of the schema, its number in LitData's order, which is that of the tree."""
    names = [each["name"] for each in leaf_nodes(node)]
    return [names.index(leaf.name) for leaf in schema.leaves]


def _storage(leaf: LeafFormat) -> Any:
    return storage_of(leaf.dtype or "")


def _plan(index: LitdataIndex, window: int | None) -> Plan:
    rows = index.rows if window is None or index.tokens is None else index.tokens // window
    is_framed = index.compression is not None and index.level == "batch"  # a frame is decompressed whole
    return Plan(rows, index.stored_bytes, index.frame_rows if is_framed else 1)
