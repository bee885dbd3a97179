"""`index_parquet_dataset`: what the footers of Parquet files say, once and for all, so that opening them reads one small file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from leyden.core.errors import ConfigError, ConflictError
from leyden.core.storage import open_storage
from leyden.data.format.manifest import Manifest
from leyden.data.format.versions import commit
from leyden.data.interop.files import ForeignFiles
from leyden.data.interop.parquet import indexed
from leyden.data.interop.sniff import split_pattern
from leyden.data.write.arguments import output_of
from leyden.data.write.changes.history import DatasetVersion, facts_of
from leyden.data.write.changes.target import Place, is_remote, software


def index_parquet_dataset(
    pq_dir_url: Place, cache_dir: Place | None = None, storage_options: Mapping[str, Any] | None = None, num_workers: int = 4
) -> DatasetVersion:
    """Write an index of Parquet files: which there are, their columns, and the rows of every row group.

    It is optional: without one, `StreamingDataset` reads all footers when it opens the files. Index again when files change.

    Args:
        pq_dir_url: The files' folder or URL; its last part may be a pattern, such as `train-*.parquet`.
        cache_dir: Where the index goes, to be read with `StreamingDataset(…, index_path=cache_dir)`; by default beside the files.
        storage_options: Of the storage.
        num_workers: Footers that are read at once.

    Returns:
        What is indexed.

    Raises:
        NotFoundError: There are no Parquet files.
        SchemaError: Two files have different columns.
        ConflictError: There is a dataset where the index would go.

    Example:
        ```python
        index_parquet_dataset("s3://bucket/table", "table-index")
        dataset = StreamingDataset("s3://bucket/table", index_path="table-index")
        ```
    """
    if not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 1:
        raise ConfigError(f"num_workers={num_workers!r} is not accepted: it takes a whole number ≥ 1.")
    root, pattern = split_pattern(output_of(pq_dir_url, is_alone=True))
    if pattern is not None and cache_dir is None:
        raise ConfigError(f"{pq_dir_url!r} is a pattern, and an index beside the files is of all of them: give a cache_dir=.")
    options = dict(storage_options or {})
    found = indexed(ForeignFiles(root, options), pattern, num_workers)
    place = root if cache_dir is None else output_of(cache_dir, is_alone=True)
    storage = open_storage(place, options if is_remote(place) else {})

    def make(newest: Manifest | None) -> Manifest:
        if newest is not None and newest.storage != "parquet":
            raise ConflictError(f"there is a dataset at {place}: put the index elsewhere with cache_dir=.")
        number = 1 if newest is None else newest.version + 1
        lineage = {**software(), "parents": [{"uri": root}]}
        return dataclasses.replace(found, version=number, parent=None if newest is None else newest.version, lineage=lineage)

    return facts_of(commit(storage, make))
