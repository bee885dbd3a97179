"""`verify`: reads a whole dataset and names each fault with its file, block and column."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.core.errors import LeydenError
from leyden.core.storage import open_storage
from leyden.data.codecs.registry import ENCODED, decoder
from leyden.data.codecs.serializer import Serializer
from leyden.data.format.column import BYTES, Column
from leyden.data.format.schema import Leaf
from leyden.data.interop.blocks import ForeignSource
from leyden.data.interop.litdata_chunks import Decrypts
from leyden.data.read.native import NativeSource
from leyden.data.tools.facts import raw_value, valid_rows
from leyden.data.tools.faults import Fault, file_faults
from leyden.data.tools.opening import Access, AnySource, live_rows, open_any

CHECKED_TEXTS = frozenset({"str", "text", "json"})


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What `verify` found.

    Args:
        url: The place.
        num_rows: The rows that the index promises.
        num_blocks: How many blocks there are.
        is_fast: Whether only the index and the files were looked at.
        faults: What is wrong; empty if nothing is.
    """

    url: str
    num_rows: int
    num_blocks: int
    is_fast: bool
    faults: tuple[Fault, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        known = {"url": self.url, "num_rows": self.num_rows, "num_blocks": self.num_blocks, "fast": self.is_fast}
        return {**known, "faults": [fault._asdict() for fault in self.faults]}


def verify(
    url: str,
    *,
    fast: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    encryption: Decrypts | None = None,
    serializers: Mapping[str, Serializer] | None = None,
    block_size: int | None = None,
    version: int | None = None,
) -> Verified:
    """Check a dataset: that the files are there, and without `fast` that every block holds what the index promises.

    Columns of text must be UTF-8 or JSON; media are not decoded, as their formats tolerate much.

    Args:
        url: A folder or URL.
        fast: Look at the index and for the files only.
        storage_options: Of the storage.
        encryption: What decrypts it.
        serializers: The user's own kinds of leaves.
        block_size: Tokens in a window, of LitData's token datasets.
        version: Which version, of our own format; the newest by default.

    Raises:
        NotFoundError: There is no dataset.
        CorruptDataError: The index itself cannot be read.
    """
    access = Access(
        storage_options=storage_options or {}, encryption=encryption, serializers=serializers or {}, block_size=block_size, version=version
    )
    source = open_any(url, access)
    if isinstance(source, NativeSource):
        storage = open_storage(url, access.storage_options)
        faults = [*file_faults(source.manifest, storage, fast=fast), *([] if fast else _damaged_blocks(source))]
    else:
        faults = list(_missing_files(source) if fast else _damaged_blocks(source))
    return Verified(url=url, num_rows=live_rows(source), num_blocks=len(source.table.rows), is_fast=fast, faults=tuple(faults))


def _missing_files(source: ForeignSource) -> Iterator[Fault]:
    for name in source.chunk_names:
        try:
            source.files.size(name)
        except (LeydenError, FileNotFoundError) as error:
            yield Fault(name, None, None, str(error))


def _damaged_blocks(source: AnySource) -> Iterator[Fault]:
    for block in range(len(source.table.rows)):
        chunk = source.chunk_names[int(source.table.chunk[block])]
        try:
            buffer = source.fetch(block)
            source.check(block, b"".join(buffer) if isinstance(buffer, list) else buffer)
            opened = source.open(block, buffer)
            columns = [opened.column(number) for number in range(len(source.schema.leaves))]
        except LeydenError as error:
            yield Fault(chunk, block, None, str(error))
            continue
        for leaf, column in zip(source.schema.leaves, columns, strict=True):
            message = _wrong(leaf, column, int(source.table.rows[block]))
            if message is not None:
                yield Fault(chunk, block, leaf.name, message)


def _wrong(leaf: Leaf, column: Column, rows: int) -> str | None:
    """Return what is wrong with a column, or `None`."""
    if column.rows != rows:
        return f"has {column.rows} rows where the index promises {rows}"
    offsets = column.offsets
    if offsets is not None and (len(offsets) != rows + 1 or (np.diff(offsets) < 0).any()):
        return "has offsets that are not ascending"
    if leaf.type not in CHECKED_TEXTS & ENCODED | {"str"} or column.kind != BYTES:
        return None
    decode = decoder(leaf.type)
    for row in np.flatnonzero(valid_rows(column)).tolist():
        try:
            decode(raw_value(column, row))
        except ValueError as error:
            return f"row {row} of the block is no {'JSON' if leaf.type == 'json' else 'UTF-8 text'}: {error}"
    return None
