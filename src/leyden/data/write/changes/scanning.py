"""`scanned`: a dataset that is to be read once, block by block, and leaves nothing in the node's cache."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from leyden.core.errors import ConfigError, closest, listed
from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.row import is_below
from leyden.data.write.changes.target import Target

_RAM_BYTES = "128MiB"


def opened_once(target: Target, *, columns: Sequence[str] | None = None, **options: Any) -> StreamingDataset:
    """Return the rows of a target's version.

    Args:
        target: The dataset.
        columns: Which leaves are read, by name or by the name of a node above them.
        **options: Of `StreamingDataset`.

    Raises:
        ConfigError: There is no such leaf.
    """
    leaves = [leaf.name for leaf in target.manifest.schema.leaves]
    for name in columns or ():
        if not any(is_below(leaf, name) for leaf in leaves):
            raise ConfigError(f"columns: there is no leaf {name!r}.{closest(name, leaves)} There are {listed(leaves)}.")
    return StreamingDataset(
        target.url,
        version=target.manifest.version,
        storage_options=target.options,
        columns=columns,
        max_cache_size=0,
        ram_bytes=_RAM_BYTES,
        **options,
    )


@contextlib.contextmanager
def scanned(target: Target, **options: Any) -> Iterator[StreamingDataset]:
    """Open a target's version, and end the threads that fetch when the block ends."""
    dataset = opened_once(target, **options)
    try:
        yield dataset
    finally:
        dataset.close()
