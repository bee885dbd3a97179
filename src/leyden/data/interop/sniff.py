"""`open_foreign`: which format lies at a place, found by looking, and the source that reads it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from leyden.core.errors import CorruptDataError, NotFoundError
from leyden.data.codecs.serializer import Serializer
from leyden.data.interop.files import ForeignFiles
from leyden.data.interop.litdata_chunks import Decrypts
from leyden.data.interop.litdata_read import LitdataSource
from leyden.data.interop.mds import MdsSource
from leyden.data.interop.parquet import ParquetSource, parquet_names
from leyden.data.interop.webdataset import TarSource, tar_names

INDEX, MANIFESTS = "index.json", "_leyden"
GLOB = frozenset("*?[")


def format_of(url: str, options: Mapping[str, Any] | None = None) -> str | None:
    """Return `"leyden"`, `"litdata"`, `"mds"`, `"parquet"` or `"tar"`; `None` if nothing of these is there.

    Args:
        url: A folder or URL; its last part may be a pattern of Parquet files.
        options: Of the storage.

    Raises:
        CorruptDataError: There is an `index.json` that none of these writes.
    """
    if GLOB & set(_split(url)[1] or ""):
        return "parquet"
    files = ForeignFiles(url, options)
    try:
        return _kind_of_index(files.read(INDEX), url)
    except (NotFoundError, CorruptDataError):
        if next(iter(files.storage.list(MANIFESTS)), None) is not None:  # a lost or torn index of ours: manifests say the rest
            return "leyden"
        if files.storage.exists(INDEX):
            raise
    if parquet_names(files):
        return "parquet"
    return "tar" if tar_names(files) else None


def open_foreign(
    url: str,
    options: Mapping[str, Any] | None = None,
    *,
    encryption: Decrypts | None = None,
    serializers: Mapping[str, Serializer] | None = None,
    block_size: int | None = None,
    columns: Sequence[str] | None = None,
    trust: bool = False,
) -> LitdataSource | MdsSource | ParquetSource | TarSource | None:
    """Return the source of a dataset in another format; `None` if it is ours, or nothing is there.

    Args:
        url: A folder or URL; its last part may be a pattern of Parquet files.
        options: Of the storage.
        encryption: What decrypts LitData's items or chunks.
        serializers: The user's own kinds of leaves.
        block_size: Tokens in a window, of LitData's token datasets.
        columns: Which columns of Parquet files are read.
        trust: Whether pickled leaves may be loaded.
    """
    kind = format_of(url, options)
    if kind == "litdata":
        return LitdataSource(url, options, encryption=encryption, serializers=serializers, block_size=block_size, trust=trust)
    if kind == "mds":
        return MdsSource(url, options)
    if kind == "parquet":
        root, pattern = _split(url)
        return ParquetSource(root, options, pattern=pattern, columns=columns)
    return TarSource(url, options) if kind == "tar" else None


def _split(url: str) -> tuple[str, str | None]:
    """Return the root and the pattern of a place."""
    root, _, last = url.rstrip("/").rpartition("/")
    return (root or ".", last) if GLOB & set(last) else (url, None)


def _kind_of_index(data: bytes, url: str) -> str:
    try:
        index = json.loads(data)
    except ValueError as error:
        raise CorruptDataError(f"{url}/{INDEX} is no JSON: {error}. `leyden data repair {url}` rebuilds what can be.") from error
    if isinstance(index, dict):
        kinds = {"format": "leyden", "config": "litdata", "shards": "mds"}
        for field, kind in kinds.items():
            if field in index:
                return kind
    raise CorruptDataError(f"{url}/{INDEX} is no index of Leyden, LitData or MDS.")
