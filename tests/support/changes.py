"""Small datasets whose chunks and blocks are few rows long, to be changed by tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leyden import data as ld
from leyden.core.storage import open_storage
from leyden.data.format.versions import files_of, list_versions, open_manifest


def record(number: int) -> dict[str, Any]:
    return {"id": number, "text": f"row {number}"}


def document(number: int) -> list[int]:
    return [number] * (number % 4 + 1)


def double(sample: Any) -> dict[str, Any]:
    return {"double": sample["id"] * 2}


def key_of(sample: Any) -> int:
    return int(sample["id"])


def write(place: "Path | str", numbers: Sequence[int], *, fn: Any = record, **changes: Any) -> Any:
    """Make or change a dataset: two rows a block, about four a chunk."""
    settings: dict[str, Any] = {"block_rows": 2, "chunk_size": 4, "num_workers": 0, "fsync": False, "resume": False, **changes}
    if fn is document:
        settings = {"item_loader": ld.TokensLoader(), **settings, "chunk_size": 12}
    return ld.optimize(fn, list(numbers), str(place), **settings)


def ids(place: "Path | str", **options: Any) -> list[int]:
    """Return the ids of all rows, as a reader sees them, everything checked."""
    return [int(sample["id"]) for sample in opened(place, **options)[:]]


def documents(place: "Path | str", **options: Any) -> list[list[int]]:
    """Return the documents of a token dataset."""
    return [[int(token) for token in row] for row in opened(place, **options)[:]]


def opened(place: "Path | str", **options: Any) -> Any:
    return ld.StreamingDataset(str(place), output="numpy", verify="always", **{"max_cache_size": 0, **options})


def faults(place: "Path | str", **options: Any) -> list[str]:
    return [str(fault) for fault in ld.verify(str(place), **options).faults]


def missing_files(place: "Path | str", options: Any = None) -> list[str]:
    """Return the files that versions name and that are not there."""
    storage = open_storage(str(place), options)
    there = {entry.key for entry in storage.list()}
    named = [name for found in list_versions(storage) for name in files_of(open_manifest(storage, found.version))]
    return sorted(set(named) - there)


def unnamed_files(place: "Path | str", options: Any = None) -> list[str]:
    """Return chunks, deletes and keys that no version names."""
    storage = open_storage(str(place), options)
    named = {name for found in list_versions(storage) for name in files_of(open_manifest(storage, found.version))}
    kinds = (".ldc", ".bin", ".tmp")
    return sorted(entry.key for entry in storage.list() if entry.key.endswith(kinds) and entry.key not in named)
