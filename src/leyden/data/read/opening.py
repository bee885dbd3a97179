"""`open_source`: from a place to the blocks that lie there, whatever their format, behind the node cache if they are remote.

Formats of others are found by name, not imported: they stand on this room.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import CorruptDataError, LeydenError, NotFoundError
from leyden.core.lazy import Later
from leyden.core.storage import is_url
from leyden.data.codecs.serializer import Serializer
from leyden.data.config import TokensLoader
from leyden.data.read.absent import hint_at
from leyden.data.read.cache import Cache, DiskCache, MemoryCache
from leyden.data.read.cached import CachedSource
from leyden.data.read.folders import cache_budget, cache_folder
from leyden.data.read.native import open_native
from leyden.data.read.options import SourceOptions
from leyden.data.read.projected import WORTH_IT, Projection
from leyden.data.read.row import is_below
from leyden.data.read.source import BlockSource

_foreign: Any = Later("leyden.data.interop.sniff")
_PATTERN = frozenset("*?[")


class Opened(NamedTuple):
    """A source, and what is known of the dataset beside its blocks.

    Args:
        source: The blocks.
        serializers: Of leaves that only this format has.
        deleted: int64, stored rows that are gone, ascending; `None` if none is.
        find_key: Returns the stored row of a key; `None` if there are no keys.
        is_foreign: Whether it is of another format, which makes windows of tokens itself.
    """

    source: BlockSource
    serializers: Mapping[str, Serializer]
    deleted: NDArray[np.int64] | None = None
    find_key: Callable[[str | int], int] | None = None
    is_foreign: bool = False


def open_source(options: SourceOptions) -> Opened:
    """Return the source at a place.

    Raises:
        NotFoundError: There is no dataset.
        CorruptDataError: Its index is damaged.
        StorageError: The place cannot be read.
    """
    if options.index_path is not None or set(options.url.rpartition("/")[2]) & _PATTERN:
        return _opened_foreign(options)
    try:
        source = open_native(options)  # first: it is two requests at once, and most datasets are ours
    except (NotFoundError, CorruptDataError) as error:
        return _opened_foreign(options, error)
    return Opened(_native_behind_cache(source, options), {}, source.deleted, source.find_key)


def _opened_foreign(options: SourceOptions, error: LeydenError | None = None) -> Opened:
    source = _foreign_source(options)
    if source is None and isinstance(error, NotFoundError) and options.version is None:
        raise NotFoundError(f"{error}{hint_at(options.url, options.storage_options)}") from None
    if source is None:
        raise error or NotFoundError(f"there is no dataset at {options.url!r}: no file has a name like that.")
    return Opened(_behind_cache(source, options), source.serializers, is_foreign=True)


def _native_behind_cache(source: Any, options: SourceOptions) -> BlockSource:
    """Return the source, of which only the wanted columns are fetched if it lies elsewhere and that saves half of the bytes."""
    names, leaves = options.columns, source.schema.leaves
    if source.is_local or names is None or isinstance(options.item_loader, TokensLoader):
        return _behind_cache(source, options)
    wanted = [index for index, leaf in enumerate(leaves) if any(is_below(leaf.name, name) for name in names)]
    if not wanted or len(wanted) == len(leaves):
        return _behind_cache(source, options)
    projection = Projection(source, wanted)
    share = projection.share()
    if share > WORTH_IT:
        return _behind_cache(source, options)
    return CachedSource(source, projection, _cache(options), options.url, whole=source, share=share)


def _behind_cache(source: Any, options: SourceOptions) -> BlockSource:
    is_local = not is_url(options.url) or options.url.startswith("file:")
    return source if is_local else CachedSource(source, source, _cache(options), options.url)


def _foreign_source(options: SourceOptions) -> Any:
    loader = options.item_loader
    return _foreign.open_foreign(
        options.url,
        options.storage_options,
        encryption=options.encryption,
        serializers=options.serializers,
        block_size=loader.block_size if isinstance(loader, TokensLoader) else None,
        columns=options.columns,
        trust=options.trust,
        index_path=options.index_path,
    )


def _cache(options: SourceOptions) -> Cache:
    if options.max_cache_size == 0:
        return MemoryCache(options.ram_bytes)
    folder = cache_folder(options.cache_dir)
    return DiskCache(folder, cache_budget(options.max_cache_size, folder))
