"""`open_foreign`: which format lies at a place, found by looking, and the source that reads it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from leyden.core.errors import ConfigError, CorruptDataError, NotFoundError, UnsupportedError
from leyden.core.storage import is_url, open_storage
from leyden.data.codecs.serializer import Serializer
from leyden.data.format.manifest import Manifest
from leyden.data.format.versions import find_manifest, list_versions, open_manifest
from leyden.data.interop.files import ForeignFiles
from leyden.data.interop.litdata_chunks import Decrypts
from leyden.data.interop.litdata_read import LitdataSource
from leyden.data.interop.mds import MdsSource
from leyden.data.interop.parquet import ParquetSource, parquet_names
from leyden.data.interop.webdataset import TarSource, tar_names

INDEX = "index.json"
GLOB = frozenset("*?[")


def format_of(url: str, options: Mapping[str, Any] | None = None) -> str | None:
    """Return `"leyden"`, `"litdata"`, `"mds"`, `"parquet"` or `"tar"`; `None` if nothing of these is there.

    Args:
        url: A folder or URL; its last part may be a pattern of Parquet files.
        options: Of the storage.

    Raises:
        CorruptDataError: There is an `index.json` that none of these writes.
    """
    if GLOB & set(split_pattern(url)[1] or ""):
        return "parquet"
    files = ForeignFiles(url, options)
    try:
        return _kind_of_index(files.read(INDEX), url)
    except (NotFoundError, CorruptDataError) as error:
        try:
            kind = _kind_of_files(files)
        except UnsupportedError:  # a web server lists nothing: its index is all that there could be
            kind = None
        if isinstance(error, CorruptDataError) and kind != "leyden":
            raise
        return kind


def _kind_of_files(files: ForeignFiles) -> str | None:
    if list_versions(files.storage):  # a lost or torn index of ours: manifests say the rest; journals alone make no dataset
        return "leyden"
    if parquet_names(files):
        return "parquet"
    return "tar" if tar_names(files) else None


def open_foreign(  # noqa: PLR0913 - what opening any format may need
    url: str,
    options: Mapping[str, Any] | None = None,
    *,
    encryption: Decrypts | None = None,
    serializers: Mapping[str, Serializer] | None = None,
    block_size: int | None = None,
    columns: Sequence[str] | None = None,
    trust: bool = False,
    index_path: str | None = None,
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
        index_path: Where `index_parquet_dataset` has put the index of Parquet files, if not beside them.

    Raises:
        ConfigError: `index_path` is given for another format.
    """
    kind = format_of(url, options)
    if index_path is not None and kind != "parquet":
        raise ConfigError(f"index_path={index_path!r}: only Parquet files are indexed elsewhere, and {url} holds none. Leave it out.")
    if kind == "litdata":
        return LitdataSource(url, options, encryption=encryption, serializers=serializers, block_size=block_size, trust=trust)
    if kind == "mds":
        return MdsSource(url, options)
    if kind == "parquet":
        root, pattern = split_pattern(url)
        index = _index_of_parquet(root, options, pattern, index_path)
        return ParquetSource(root, options, pattern=pattern, columns=columns, index=index)
    return TarSource(url, options) if kind == "tar" else None


def _index_of_parquet(root: str, options: Mapping[str, Any] | None, pattern: str | None, index_path: str | None) -> Manifest | None:
    """Return the index of Parquet files; `None` if there is none, so that footers are read.

    Raises:
        NotFoundError: It is not where it was said to be.
        ConfigError: What is there is no such index.
    """
    if index_path is not None:
        place = index_path.removesuffix(f"/{INDEX}")
        found: Manifest | None = open_manifest(open_storage(place, dict(options or {}) if is_url(place) else {}))
    else:
        found = None if pattern is not None else find_manifest(open_storage(root, dict(options or {})))
    if found is not None and found.storage != "parquet":
        raise ConfigError(f"{index_path or root} holds a dataset, and no index of Parquet files. Make one with index_parquet_dataset.")
    return found


def split_pattern(url: str) -> tuple[str, str | None]:
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
                return str(index.get("storage") or kind) if kind == "leyden" else kind
    raise CorruptDataError(f"{url}/{INDEX} is no index of Leyden, LitData or MDS.")
