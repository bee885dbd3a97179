"""`inspect`: what a dataset holds, from its index and a few of its blocks."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leyden.core.arguments import whole
from leyden.core.errors import StorageError
from leyden.data.codecs.serializer import Serializer
from leyden.data.interop.litdata_chunks import Decrypts
from leyden.data.interop.sniff import format_of
from leyden.data.tools.facts import LeafFacts, shown
from leyden.data.tools.inspection import Inspection
from leyden.data.tools.opening import Access, live_rows, open_any
from leyden.data.tools.sheet import sheet

MOST_BLOCKS = 8


def inspect(  # noqa: PLR0913 - how it is opened and what is shown, flat as a command line gives them
    url: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    encryption: Decrypts | None = None,
    serializers: Mapping[str, Serializer] | None = None,
    block_size: int | None = None,
    version: int | None = None,
    rows: int = 5,
    html: str | os.PathLike[str] | None = None,
) -> Inspection:
    """Look at a dataset: its index, its first block and up to seven others, evenly spread.

    Args:
        url: A folder or URL.
        storage_options: Of the storage.
        encryption: What decrypts it.
        serializers: The user's own kinds of leaves.
        block_size: Tokens in a window, of LitData's token datasets.
        version: Which version, of our own format; the newest by default.
        rows: How many of the first rows are shown.
        html: Write a page with histograms, text and a contact sheet of images to this file.

    Raises:
        NotFoundError: There is no dataset.
        ConfigError: `rows` is no number ≥ 0.
        StorageError: The page cannot be written.
    """
    whole("rows", rows, 0)
    access = Access(
        storage_options=storage_options or {}, encryption=encryption, serializers=serializers or {}, block_size=block_size, version=version
    )
    source = open_any(url, access)
    table = source.table
    leaves = [LeafFacts(leaf=leaf) for leaf in source.schema.leaves]
    first: list[dict[str, str]] = []
    for block in np.unique(np.linspace(0, len(table.rows) - 1, MOST_BLOCKS).astype(int)).tolist() if len(table.rows) else []:
        opened = source.open(block, source.fetch(block))
        columns = [opened.column(number) for number in range(len(leaves))]
        for facts, column in zip(leaves, columns, strict=True):
            facts.add(column)
        pairs = [(facts.leaf, column) for facts, column in zip(leaves, columns, strict=True)]
        first += [{leaf.name: shown(leaf, column, row) for leaf, column in pairs} for row in range(min(opened.rows, rows - len(first)))]
    found = Inspection(
        url=url,
        format=format_of(url, storage_options) or "",
        version=source.version,
        digest=source.digest,
        num_rows=live_rows(source),
        num_chunks=len(source.chunk_names),
        num_blocks=len(table.rows),
        stored_bytes=int(table.stored_bytes.sum()),
        tree=source.schema.tree,
        leaves=leaves,
        first=first,
    )
    if html is not None:
        _write_page(Path(html), sheet(found))
    return found


def _write_page(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"html={str(path)!r} cannot be written: {error.strerror}.") from error
