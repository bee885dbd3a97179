"""`inspect`: what a checkpoint is and holds, without reading its tensors; with `verify`, whether its bytes are as written."""

import zipfile
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from leyden.core.files import is_leftover
from leyden.fabric.checkpoint import directory, layout, single_file
from leyden.fabric.checkpoint.dcp import DcpFolder
from leyden.fabric.checkpoint.legacy import Kind, deepspeed_folder, kind_of, safetensors_files
from leyden.fabric.checkpoint.opaque import Opaque
from leyden.fabric.checkpoint.opening import resolve
from leyden.fabric.checkpoint.saved import SavedTensor
from leyden.fabric.checkpoint.source import Source, key_of, open_source
from leyden.fabric.checkpoint.tensor_file import TensorFile


def inspect(path: str | Path, *, verify: bool = False) -> dict[str, Any]:
    """Describe a checkpoint of any kind; the result is JSON.

    Args:
        path: A file or folder.
        verify: Whether to read every byte and compare checksums where the kind has them: ours, `torch.save` files and
            DCP folders. safetensors have none, so only their sizes are compared.

    Raises:
        NotFoundError: Nothing is there, or no checkpoint.
        CorruptDataError: It is damaged, or a checksum differs.
        StorageError: It cannot be read.

    Example:
        ```python
        inspect("runs/demo/latest")["entries"]["model"]["parameters"]
        ```
    """
    place = resolve(path)
    kind = kind_of(place)
    files = sorted(file for file in place.rglob("*") if file.is_file() and not is_leftover(file.name)) if place.is_dir() else [place]
    report: dict[str, Any] = {
        "path": str(place),
        "kind": kind.value,
        "bytes": sum(file.stat().st_size for file in files),
        "files": {str(file.relative_to(place)) if place.is_dir() else file.name: file.stat().st_size for file in files},
    }
    if kind is Kind.DEEPSPEED or kind is Kind.LEYDEN_DEEPSPEED:
        report |= _deepspeed(place, kind)
    else:
        with open_source(place) as source:
            report |= _described(source)
    if verify:
        report["verified"] = _verify(place, kind)
    return report


def _described(source: Source) -> dict[str, Any]:
    meta = source.saved.meta
    described = _meta(meta) if meta is not None else _versions(source.values)
    entries: dict[str, Any] = {}
    for place, module in source.modules.items():
        entries[key_of(place)] = {"kind": "module", **_sizes(module.values.values())}
    for place, optimizer in source.optimizers.items():
        slots = [value for state in optimizer.state.values() for value in state.values()]
        entries[key_of(place)] = {"kind": "optimizer", "groups": len(optimizer.groups), **_sizes(slots)}
        entry = source.meta.entries.get(key_of(place), {})
        entries[key_of(place)] |= {name: entry[name] for name in ("class", "module") if name in entry}
    for key, value in source.values.items():
        if not any(name == key or name.startswith(f"{key}.") for name in entries):
            entries[key] = _value(value)
    for key, entry in source.meta.entries.items():
        entries.setdefault(key, {"kind": entry["kind"]})
    opaque = [{"place": place, "name": value.name} for place, value in source.opaque]
    return described | {"entries": entries, "opaque": opaque, "ranks": len(source.ranks)}


def _meta(meta: layout.Meta) -> dict[str, Any]:
    document = meta.to_dict()
    versions = {"format": document["version"], "leyden": document["leyden"], "torch": document["torch"]}
    shown = ("created", "strategy", "precision", "world_size", "mesh", "seed", "step")
    return {"versions": versions} | {name: document[name] for name in shown}


def _versions(values: Mapping[str, Any]) -> dict[str, Any]:
    version = values.get("pytorch-lightning_version")
    steps = [values[key] for key in ("step", "global_step") if type(values.get(key)) is int]
    return {"versions": {"lightning": version} if isinstance(version, str) else {}, "step": steps[0] if steps else None}


def _sizes(values: Iterable[Any]) -> dict[str, Any]:
    tensors = [value for value in values if isinstance(value, (Tensor, SavedTensor))]
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    return {
        "tensors": len(tensors),
        "parameters": sum(prod(tensor.shape) for tensor in tensors),
        "bytes": sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors),
        "dtypes": dtypes,
    }


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, Opaque):
        return {"kind": "opaque", "type": value.name}
    entry: dict[str, Any] = {"kind": "value", "type": type(value).__name__}
    if isinstance(value, (bool, int, float, str)) or value is None:
        entry["value"] = value
    elif isinstance(value, (Mapping, list, tuple, set)):
        entry["length"] = len(value)
    elif isinstance(value, Tensor):
        entry |= _sizes([value])
    return entry


def _deepspeed(path: Path, kind: Kind) -> dict[str, Any]:
    if kind is Kind.LEYDEN_DEEPSPEED:
        meta = layout.read_meta(path)
        return _meta(meta) | {"entries": meta.entries, "opaque": [], "ranks": meta.world_size}
    folder = deepspeed_folder(path) or path
    tags = sorted({file.parent.name for file in folder.glob("*/*_model_states.pt")})
    return {"versions": {}, "step": None, "tags": tags, "entries": {}, "opaque": []}


def _verify(path: Path, kind: Kind) -> str:
    """Compare what the kind lets us compare; returns what that was."""
    if kind in (Kind.LEYDEN_FULL, Kind.LEYDEN_SHARDED, Kind.LEYDEN_DEEPSPEED):
        meta = layout.read_meta(path)
        layout.check_files(path, meta)
        directory.verify(path, meta)
        return "checksums"
    if kind in (Kind.SAFETENSORS, Kind.HF):
        for file in safetensors_files(path):
            TensorFile(file).close()
        return "sizes"
    if kind in (Kind.DCP, Kind.LIGHTNING_FOLDER):
        folder = DcpFolder(path)
        for name in folder:
            folder.verify(name)
        return "checksums"
    if path.is_dir() or not zipfile.is_zipfile(path):
        return "sizes"
    single_file.verify(path)
    return "checksums"
