"""`open_any`: the blocks of a dataset in whatever format, for tools: not cached, and every hash compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leyden.data.codecs.serializer import Serializer
from leyden.data.interop.blocks import ForeignSource
from leyden.data.interop.sniff import open_foreign
from leyden.data.read.native import NativeSource, open_native
from leyden.data.read.options import SourceOptions

AnySource = NativeSource | ForeignSource


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a dataset is opened.

    Args:
        storage_options: Of the storage.
        encryption: What decrypts it.
        serializers: The user's own kinds of leaves.
        block_size: Tokens in a window, of LitData's token datasets.
        version: Which version, of our own format; the newest by default.
    """

    storage_options: Mapping[str, Any] = field(default_factory=dict)
    encryption: Any = None
    serializers: Mapping[str, Serializer] = field(default_factory=dict)
    block_size: int | None = None
    version: int | None = None


def open_any(url: str, access: Access) -> AnySource:
    """Return the source of a dataset.

    Raises:
        NotFoundError: There is none.
    """
    foreign = open_foreign(
        url, access.storage_options, encryption=access.encryption, serializers=access.serializers, block_size=access.block_size
    )
    if foreign is not None:
        return foreign
    options = SourceOptions(
        url=url,
        cache_dir=None,
        max_cache_size=0,
        storage_options=access.storage_options,
        version=access.version,
        encryption=access.encryption,
        verify="always",
    )
    return open_native(options)


def live_rows(source: AnySource) -> int:
    """Return how many rows are not deleted."""
    return source.manifest.num_rows if isinstance(source, NativeSource) else int(source.table.rows.sum())
