"""The single file: what `torch.save` writes and `torch.load(path, weights_only=True)` reads.

One dictionary: the user's keys with state dicts in place, and `"__leyden__"` with the description, the precision's state
and every rank's own state. It is read through a memory map, so tensors nobody asks for are never read.
"""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from leyden.core import settings
from leyden.core.errors import CorruptDataError
from leyden.fabric.checkpoint.capture import Snapshot
from leyden.fabric.checkpoint.layout import EXTRAS, FileRecord, Meta
from leyden.fabric.checkpoint.saved import Saved
from leyden.fabric.checkpoint.stored_file import StoredFile
from leyden.fabric.checkpoint.tree import mapped, memory_key, tensors_of

_ZIP = b"PK\x03\x04"


def write_dict(path: Path, content: dict[str, Any]) -> FileRecord:
    """Write one dictionary with `torch.save`, on the disk when this returns.

    Raises:
        StorageError: The disk is full, or refuses.
    """
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(content))
    with StoredFile(path, needed_bytes=needed) as file:
        torch.save(on_cpu(content), cast(IO[bytes], file))  # it needs `write` and `flush` only
    return file.record


def content_of(snapshot: Snapshot, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the dictionary of a single file."""
    return {**snapshot.tree, EXTRAS: extras_of(snapshot, ranks)}


def extras_of(snapshot: Snapshot, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a checkpoint holds beside the user's dictionary."""
    return {"meta": snapshot.meta.to_dict(), "ranks": ranks, "precision": snapshot.precision}


def is_zip(path: Path) -> bool:
    """Return whether a file begins as `torch.save`'s do."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def is_ours(path: Path) -> bool:
    """Return whether a `torch.save` file is a checkpoint of Leyden, without unpickling it.

    Raises:
        CorruptDataError: It is truncated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            return name is not None and EXTRAS.encode() in archive.read(name)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise CorruptDataError(_damaged(path, error)) from error


def read_dict(path: Path, *, weights_only: bool | None, is_mapped: bool = True) -> dict[str, Any]:
    """Return the dictionary of a `torch.save` file, tensors mapped unless `is_mapped` is off.

    Raises:
        CorruptDataError: The file is damaged, or holds what a safe reader does not load.
    """
    safe = weights_only is not False
    if not safe:
        warnings.warn(f"weights_only=False: the pickle in {path} may run any code. Only do this with files you trust.", stacklevel=2)
    if settings.get("LEYDEN_FABRIC_VERIFY"):
        verify(path)
    try:
        content = torch.load(path, map_location="cpu", mmap=is_mapped, weights_only=safe)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        raise CorruptDataError(_damaged(path, error)) from error
    if not isinstance(content, dict):
        raise CorruptDataError(f"{path} holds a {type(content).__name__}, not a dictionary; it is no checkpoint.")
    return content


def open_file(path: Path, *, weights_only: bool | None = None) -> Saved:
    """Open a single file that `is_ours`.

    Raises:
        StorageError: A newer Leyden wrote it.
        CorruptDataError: It is damaged.
    """
    return from_dict(read_dict(path, weights_only=weights_only), str(path), is_mapped=True)


def from_dict(content: dict[str, Any], where: str, *, is_mapped: bool = False) -> Saved:
    """Return what a single file's dictionary, or a plug-in, holds; without extras it counts as foreign."""
    tree = {key: value for key, value in content.items() if key != EXTRAS}
    extras = content.get(EXTRAS)
    if not isinstance(extras, dict) or "meta" not in extras:
        return Saved(path=where, tree=tree, is_mapped=is_mapped)
    ranks = extras.get("ranks", [])
    return Saved(
        path=where,
        tree=tree,
        meta=Meta.from_dict(extras["meta"], where),
        precision=extras.get("precision", {}),
        rank_state=lambda rank: ranks[rank] if rank < len(ranks) else None,
        is_mapped=is_mapped,
    )


def verify(path: Path) -> None:
    """Compare every record of the zip with its checksum.

    Raises:
        CorruptDataError: One differs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise CorruptDataError(_damaged(path, error)) from error
    if bad is not None:
        raise CorruptDataError(f"{path}: the record {bad!r} does not have the checksum it was written with; load an older checkpoint.")


def on_cpu(content: dict[str, Any]) -> dict[str, Any]:
    """Return the dictionary with tensors on the CPU and views cut from larger storages, ties between tensors kept."""
    moved: dict[tuple[Any, ...], Tensor] = {}

    def move(tensor: Tensor, _path: Any) -> Tensor:
        key = memory_key(tensor)
        if key is None:
            return tensor.detach()
        if key not in moved:
            moved[key] = _compact(tensor)
        return moved[key]

    result: dict[str, Any] = mapped(content, move)
    return result


def _compact(tensor: Tensor) -> Tensor:
    """Return the tensor on the CPU in a storage of its own size: `torch.save` writes whole storages, also for a row."""
    tensor = tensor.detach().to("cpu")
    fits = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if fits else tensor.clone()


def _damaged(path: Path, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0][:200]
    return f"{path} cannot be read: {type(error).__name__} {reason}. It is truncated or damaged, or holds objects of classes unknown here."
