"""Checkpoint directories: what each rank writes, and how one is opened, full or sharded.

A **full** directory has one safetensors file per module, for readers that know safetensors and nothing of us. What the
two layouts share is here too: `train.pt` (everything that is no module), `ranks/`, and `meta.json`, written last.
Tensors of a sharded directory are `shards`' business.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden.core import settings
from leyden.core.errors import CorruptDataError
from leyden.core.failpoints import failpoint
from leyden.core.files import sync_directory
from leyden.fabric.checkpoint import layout
from leyden.fabric.checkpoint.capture import Snapshot
from leyden.fabric.checkpoint.layout import Chunk, FileRecord, IndexedTensor, Meta
from leyden.fabric.checkpoint.saved import FileTensor, OpenFiles, Saved, SavedGroup, SavedModule, SavedOptimizer, as_optimizer
from leyden.fabric.checkpoint.single_file import read_dict, write_dict
from leyden.fabric.checkpoint.stored_file import StoredFile, crc32_of
from leyden.fabric.checkpoint.tensor_file import write_tensors


def write_rank(snapshot: Snapshot, directory: Path, rank: int) -> dict[str, FileRecord]:
    """Write what every rank writes: its own state. Returns path → record."""
    name = layout.rank_name(rank)
    (directory / layout.RANKS).mkdir(exist_ok=True)
    return {name: write_dict(directory / name, snapshot.rank)}


def write_tree(snapshot: Snapshot, directory: Path) -> dict[str, FileRecord]:
    """Write what rank 0 writes: the modules of a full directory and `train.pt`. Returns path → record."""
    records = {}
    for key, tensors in snapshot.modules.items():
        aliases = snapshot.aliases.get(key, {})
        name = layout.file_name(key)
        records[name] = write_tensors(directory / name, tensors, {"aliases": json.dumps(aliases)} if aliases else None)
    train = {"values": snapshot.tree, "optimizers": snapshot.optimizers, "extra": snapshot.extra, "precision": snapshot.precision}
    records[layout.TRAIN] = write_dict(directory / layout.TRAIN, train)
    return records


def write_meta(meta: Meta, directory: Path, files: Mapping[str, FileRecord]) -> None:
    """Write `meta.json`, the mark of a complete checkpoint, after making everything before it durable."""
    for folder in (layout.RANKS, layout.SHARDS):
        if (directory / folder).is_dir():
            sync_directory(directory / folder)
    failpoint("checkpoint.before_meta")
    document = dataclasses.replace(meta, files=dict(sorted(files.items()))).to_dict()
    write_json(directory / layout.META, document)
    sync_directory(directory)


def write_json(path: Path, document: Any, *, is_for_people: bool = True) -> FileRecord:
    """Write a JSON document, on the disk when this returns; without line breaks unless people read it."""
    with StoredFile(path) as file:
        file.write(json.dumps(document, indent=1 if is_for_people else None).encode())
    return file.record


def records_of(directory: Path, known: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    """Return the records of files that others (an engine) wrote into the directory."""
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
    ours = (layout.RANKS, layout.SHARDS)
    return {
        name: FileRecord(bytes=(directory / name).stat().st_size, crc32=crc32_of(directory / name))
        for name in names
        if name not in known and name.split("/")[0] not in ours
    }


def open_directory(path: Path, *, weights_only: bool | None = None) -> Saved:
    """Open a directory that has a `meta.json`.

    Raises:
        CorruptDataError: A file is missing, truncated, or (with `LEYDEN_FABRIC_VERIFY=1`) has another checksum.
        StorageError: A newer Leyden wrote it.
    """
    meta = layout.read_meta(path)
    layout.check_files(path, meta)
    if settings.get("LEYDEN_FABRIC_VERIFY"):
        verify(path, meta)
    train = read_dict(path / layout.TRAIN, weights_only=weights_only)
    files = OpenFiles(path)
    with files.closed_on_error():
        modules, optimizers = _sharded(path, meta, train, files) if meta.layout == "sharded" else _full(path, meta, train, files)
    tree = train["values"]
    for key, entry in meta.entries.items():
        stored = modules.get(key) if entry["kind"] == "module" else optimizers.get(key) if entry["kind"] == "optimizer" else None
        if stored is not None:
            place(tree, tuple(entry.get("path", (key,))), stored)

    def rank_state(rank: int) -> dict[str, Any] | None:
        name = layout.rank_name(rank)
        return read_dict(path / name, weights_only=weights_only, is_mapped=False) if name in meta.files else None

    return Saved(
        path=str(path), tree=tree, meta=meta, precision=train.get("precision", {}), rank_state=rank_state, is_mapped=True, files=files
    )


def place(tree: dict[str, Any], path: tuple[str | int, ...], value: Any) -> None:
    """Put a value at a path of a tree whose containers exist, tuples included."""
    *above, last = path
    holder: Any = tree
    for part in above:
        if isinstance(holder[part], tuple):
            holder[part] = list(holder[part])  # a tuple cannot be filled; a state's structure is the user's, not the file's
        holder = holder[part]
    holder[last] = value


def verify(path: Path, meta: Meta) -> None:
    """Compare every file's checksum with what `meta` says.

    Raises:
        CorruptDataError: One differs.
    """
    for name, record in meta.files.items():
        if crc32_of(path / name) != record.crc32:
            raise CorruptDataError(
                f"{path / name} does not have the checksum {record.crc32} it was written with; load an older checkpoint."
            )


Parts = tuple[dict[str, SavedModule], dict[str, SavedOptimizer]]


def _full(path: Path, meta: Meta, train: dict[str, Any], files: OpenFiles) -> Parts:
    modules = {}
    for key, entry in meta.entries.items():
        if entry["kind"] != "module" or layout.file_name(key) not in meta.files:
            continue
        name = layout.file_name(key)
        values: dict[str, Any] = {}
        for tensor, span in files[name].tensors.items():
            chunk = Chunk(offset=(0,) * len(span.shape), size=span.shape, file=name, key=tensor)
            values[tensor] = FileTensor(files, span.dtype, span.shape, (chunk,), tensor)
        values |= {alias: values[kept] for alias, kept in json.loads(files[name].metadata.get("aliases", "{}")).items()}
        modules[key] = SavedModule(values=values | train.get("extra", {}).get(key, {}))
    optimizers = {key: as_optimizer(state, is_mapped=True) for key, state in train["optimizers"].items()}
    return modules, {key: optimizer for key, optimizer in optimizers.items() if optimizer is not None}


def _sharded(path: Path, meta: Meta, train: dict[str, Any], files: OpenFiles) -> Parts:
    index = layout.read_index(path)
    tensors: dict[str, Any] = {name: _indexed(files, name, tensor) for name, tensor in index.tensors.items()}
    tensors |= {alias: tensors[kept] for alias, kept in index.aliases.items()}
    extra = train.get("extra", {})
    modules: dict[str, SavedModule] = {}
    optimizers: dict[str, SavedOptimizer] = {}
    for key, entry in meta.entries.items():
        if entry["kind"] == "module":
            values = {name.removeprefix(f"{key}."): tensor for name, tensor in tensors.items() if name.startswith(f"{key}.")}
            modules[key] = SavedModule(values=values | extra.get(key, {}))
        elif entry["kind"] == "optimizer" and key in train["optimizers"]:
            optimizers[key] = _named_optimizer(key, train["optimizers"][key], tensors, extra.get(key, {}))
    return modules, optimizers


def _indexed(files: OpenFiles, name: str, tensor: IndexedTensor) -> FileTensor:
    return FileTensor(files, tensor.dtype, tensor.shape, tensor.chunks, name)


def _named_optimizer(key: str, saved: dict[str, Any], tensors: dict[str, Any], extra: dict[str, Any]) -> SavedOptimizer:
    options, order = saved["param_groups"], saved["order"]
    state: dict[str | int, dict[str, Any]] = {member: dict(values) for member, values in extra.items()}
    prefix = f"{key}.state."
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            member, _, slot = name.removeprefix(prefix).rpartition(".")  # an optimizer's own names have no dots
            state.setdefault(member, {})[slot] = tensor
    groups = tuple(SavedGroup(options=dict(options[members[0]]) if members else {}, members=tuple(members)) for members in order)
    return SavedOptimizer(groups=groups, state=state, by_name=True)
