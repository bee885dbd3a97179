"""`convert` and `consolidate`: rewrite any checkpoint as one of our formats, for Hugging Face, or for torch's DCP.

What is written is complete or not there, and never replaces anything. Tensors pass one at a time through memory that the
kernel may write out (`source.Scratch`), so a checkpoint may be larger than memory.
"""

import dataclasses
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from leyden.core.errors import ConfigError, ConflictError, closest, listed
from leyden.core.files import make_directory, sync_tree
from leyden.fabric.checkpoint import deepspeed, directory, layout, publish
from leyden.fabric.checkpoint.capture import Snapshot
from leyden.fabric.checkpoint.legacy import Kind, deepspeed_folder, kind_of
from leyden.fabric.checkpoint.opening import resolve
from leyden.fabric.checkpoint.saved import SavedTensor
from leyden.fabric.checkpoint.single_file import write_dict
from leyden.fabric.checkpoint.source import (
    Place,
    Scratch,
    Source,
    key_of,
    loaded_module,
    loaded_optimizer,
    open_source,
    plain,
    the_module,
    tied,
)
from leyden.fabric.checkpoint.tensor_file import is_holdable, write_tensors

Format = Literal["file", "directory", "hf", "dcp"]
_HF_FILE_BYTES = 5_000_000_000  # what Hugging Face's own writers use


def convert(src: str | Path, dst: str | Path, to: Format = "file", *, drop_opaque: bool = False) -> Path:
    """Rewrite a checkpoint of any kind.

    Args:
        src: Leyden's, Lightning 2.x's, torch's DCP, DeepSpeed's (merged by DeepSpeed, which must be installed, and runs the
            pickles in the folder), safetensors, or a `torch.save` file.
        dst: What to write; nothing may be there.
        to: `"file"`: one file that `torch.load(weights_only=True)` reads; `"directory"`: a safetensors file per module;
            `"hf"`: one module's weights as `model.safetensors` (with an index above 5 GB), or one file if `dst` ends in
            `.safetensors`; `"dcp"`: a folder of `torch.distributed.checkpoint`.
        drop_opaque: Whether to leave out values whose classes are not imported, instead of refusing.

    Returns:
        `dst`.

    Raises:
        ConfigError: An unknown format; opaque values without `drop_opaque`; values that no checkpoint can hold.
        ConflictError: Something is at `dst`.
        NotFoundError: Nothing is at `src`, or no checkpoint.
        CorruptDataError: `src` is damaged.
        MissingDependencyError: A DeepSpeed folder, and DeepSpeed is not installed.

    Example:
        ```python
        convert("epoch=9.ckpt", "model.ckpt", drop_opaque=True)
        convert("runs/demo/step-00000100", "exported", to="hf")
        ```
    """
    if to not in get_args(Format):
        raise ConfigError(f"to={to!r}: there are {listed(get_args(Format))}.{closest(str(to), get_args(Format))}")
    target = free_target(dst)
    place = resolve(src)
    if kind_of(place) in (Kind.DEEPSPEED, Kind.LEYDEN_DEEPSPEED):
        with tempfile.TemporaryDirectory(prefix="leyden-deepspeed-") as folder:
            return convert(_merged(place, Path(folder)), target, to, drop_opaque=drop_opaque)
    with open_source(place) as source, Scratch(target) as scratch:
        check_opaque(source, drop=drop_opaque)
        write(source, target, to, scratch)
    return target


def consolidate(path: str | Path, output: str | Path | None = None) -> Path:
    """Merge a directory or folder into one file that `torch.load(weights_only=True)` reads.

    Args:
        path: A full or sharded directory of ours, a 2.x FSDP folder, a DCP folder.
        output: The file; by default `<path>.consolidated`. Nothing may be there.

    Returns:
        The file.

    Raises:
        ConfigError: `path` is a single file already.
        ConflictError: Something is at `output`.
        NotFoundError: Nothing is at `path`, or no checkpoint.
        CorruptDataError: It is damaged.
    """
    place = resolve(path)
    target = Path(output) if output is not None else place.with_name(f"{place.name}.consolidated")
    if kind_of(place) in (Kind.LEYDEN_FILE, Kind.LIGHTNING_TRAINER, Kind.TORCH):
        raise ConfigError(f"{place} is one file already. To rewrite it in another format: leyden ckpt convert {place} DST --to directory")
    return convert(place, target, "file")


def write(source: Source, target: Path, to: Format, scratch: Scratch) -> None:
    """Write an opened source in a format and publish it at `target`."""
    writers: dict[str, Callable[[Source, Path, Scratch], None]] = {
        "file": _write_file,
        "directory": _write_directory,
        "hf": _write_hf,
        "dcp": _write_dcp,
    }
    published(target, lambda temporary: writers[to](source, temporary, scratch))


def published(target: Path, function: Callable[[Path], None]) -> None:
    """Run `function(temporary)` and put what it wrote at `target`; if it raises, nothing stays."""
    temporary = publish.begin(target)
    try:
        function(temporary)
        publish.commit(temporary, target)
    finally:
        publish.discard(temporary)


def entries_of(source: Source) -> dict[str, dict[str, Any]]:
    """Return what `meta` says about each entry, made up where a foreign file says nothing."""
    if source.meta.entries:
        return source.meta.entries
    found: dict[str, dict[str, Any]] = {}
    module = key_of(next(iter(source.modules), ()))
    for place, saved in source.modules.items():
        shapes = [value.shape for value in saved.values.values() if isinstance(value, (Tensor, SavedTensor))]
        found[key_of(place)] = {"kind": "module", "parameters": sum(map(math.prod, shapes))} | _path(place)
    for place in source.optimizers:
        found[key_of(place)] = {"kind": "optimizer", "module": module} | _path(place)
    heads = {place[0] for place in (*source.modules, *source.optimizers)}
    return found | {key: {"kind": "value"} for key in source.values if key not in heads}


def snapshot_of(source: Source, scratch: Scratch, kind: layout.Layout) -> Snapshot:
    """Return what a full directory is written from, tensors in scratch memory."""
    meta = dataclasses.replace(source.meta, layout=kind, entries=entries_of(source), files={})
    snapshot = Snapshot(meta=meta, tree=plain(source.values, "state"), precision=source.saved.precision)
    for place, module in source.modules.items():
        key, state = key_of(place), loaded_module(module, scratch)
        aliases = dict(tied(state))
        dense = {name: value for name, value in state.items() if isinstance(value, Tensor) and is_holdable(value)}
        snapshot.modules[key] = {name: value for name, value in dense.items() if name not in aliases}
        if aliases:
            snapshot.aliases[key] = aliases
        if rest := {name: value for name, value in state.items() if name not in dense}:
            snapshot.extra[key] = plain(rest, f"state[{key!r}]")
    for place, optimizer in source.optimizers.items():
        snapshot.optimizers[key_of(place)] = plain(loaded_optimizer(optimizer, scratch), f"state[{key_of(place)!r}]")
    return snapshot


def _write_file(source: Source, temporary: Path, scratch: Scratch) -> None:
    meta = dataclasses.replace(source.meta, layout="file", entries=entries_of(source), files={})
    tree = plain(source.values, "state")
    for place, module in source.modules.items():
        directory.place(tree, place, plain(loaded_module(module, scratch), f"state[{key_of(place)!r}]"))
    for place, optimizer in source.optimizers.items():
        directory.place(tree, place, plain(loaded_optimizer(optimizer, scratch), f"state[{key_of(place)!r}]"))
    extras = {"meta": meta.to_dict(), "ranks": source.ranks, "precision": source.saved.precision}
    write_dict(temporary, {**tree, layout.EXTRAS: extras})


def _write_directory(source: Source, temporary: Path, scratch: Scratch) -> None:
    make_directory(temporary)
    snapshot = snapshot_of(source, scratch, "full")
    write_rest(source, snapshot, temporary, {})


def write_rest(source: Source, snapshot: Snapshot, temporary: Path, files: Mapping[str, layout.FileRecord]) -> None:
    """Write what is left of a directory: modules of a full one, `train.pt`, ranks, and `meta.json` last."""
    records = dict(files) | directory.write_tree(snapshot, temporary)
    for rank, state in enumerate(source.ranks):
        (temporary / layout.RANKS).mkdir(exist_ok=True)
        records[layout.rank_name(rank)] = write_dict(temporary / layout.rank_name(rank), state)
    directory.write_meta(snapshot.meta, temporary, records)


def _write_hf(source: Source, temporary: Path, scratch: Scratch) -> None:
    place, module = the_module(source)
    state = loaded_module(module, scratch)
    aliases = dict(tied(state))
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor) and is_holdable(value) and name not in aliases}
    _say_left_out(source, place, [name for name in state if name not in tensors and name not in aliases])
    metadata = {"aliases": json.dumps(aliases)} if aliases else None
    if temporary.name.partition(".tmp-")[0].endswith(".safetensors"):
        write_tensors(temporary, tensors, metadata)
        return
    make_directory(temporary)
    parts = _parts(tensors)
    if len(parts) == 1:
        write_tensors(temporary / "model.safetensors", tensors, metadata)
        return
    names = [f"model-{number:05d}-of-{len(parts):05d}.safetensors" for number in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        write_tensors(
            temporary / name, part, metadata and {"aliases": json.dumps({a: kept for a, kept in aliases.items() if kept in part})}
        )
    weights = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())}, "weight_map": weights}
    directory.write_json(temporary / "model.safetensors.index.json", index)


def _write_dcp(source: Source, temporary: Path, scratch: Scratch) -> None:
    import torch.distributed.checkpoint as dcp  # half of `import torch`: only who writes this format pays

    tree: dict[str, Any] = {}
    for place, module in source.modules.items():
        tree[key_of(place)] = plain(loaded_module(module, scratch), f"state[{key_of(place)!r}]")
    for place, optimizer in source.optimizers.items():
        key = f"optimizer_{place[1]}" if place[0] == "optimizer_states" and len(place) == 2 else key_of(place)
        tree[key] = plain(loaded_optimizer(optimizer, scratch, by_name=True), f"state[{key_of(place)!r}]")
    taken = {place[0] for place in source.optimizers if len(place) > 1}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*single process")
        dcp.save(tree, storage_writer=dcp.FileSystemWriter(temporary), no_dist=True)
    # As Lightning 2.x lays it out: values beside. In the folder they would be pickled, and empty containers lost.
    values = plain({key: value for key, value in source.values.items() if key not in taken}, "state")
    if values:
        write_dict(temporary / "meta.pt", values)
    if source.ranks or source.saved.precision:
        warnings.warn("a DCP folder has no place for the ranks' RNG and loader states and the loss scale; they are left out.", stacklevel=2)
    sync_tree(temporary)


def _parts(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return tensors in groups of at most 5 GB."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if parts[-1] and size + tensor.nbytes > _HF_FILE_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    return parts


def _say_left_out(source: Source, place: Place, names: list[str]) -> None:
    keys = [key_of(other) for other in (*source.modules, *source.optimizers) if other != place] + list(source.values)
    missing = [repr(key) for key in (*keys, *names)]
    if missing:
        warnings.warn(f"{key_of(place)!r} alone is written, since this format holds weights; left out: {', '.join(missing)}.", stacklevel=2)


def _merged(place: Path, scratch: Path) -> Path:
    """Merge a DeepSpeed folder, a bare one or ours."""
    entries = layout.read_meta(place).entries if layout.is_complete(place) else {}
    module = next((key for key, entry in entries.items() if entry["kind"] == "module"), "model")
    return deepspeed.merge(deepspeed_folder(place) or place, scratch, rest=place / layout.TRAIN, key=module)


def check_opaque(source: Source, *, drop: bool = False) -> None:
    """Refuse values whose classes were not imported, or leave them out with a warning.

    Raises:
        ConfigError: There are some, and `drop` is off.
    """
    if not source.opaque:
        return
    shown = "; ".join(f"{value.name} at {place}" for place, value in source.opaque)
    if not drop:
        raise ConfigError(
            f"{source.path} holds {len(source.opaque)} value(s) whose classes are not imported, so they cannot be written: {shown}. "
            "Leave them out: convert(…, drop_opaque=True), or leyden ckpt convert --drop-opaque."
        )
    source.drop_opaque()
    warnings.warn(f"left out of {source.path}: {shown}.", stacklevel=3)


def free_target(path: str | Path) -> Path:
    """Return where to write.

    Raises:
        ConflictError: Something is there.
    """
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise ConflictError(f"{target} exists, and nothing is overwritten. Name another path, or remove it first.")
    return target


def _path(place: Place) -> dict[str, Any]:
    return {"path": list(place)} if len(place) > 1 else {}
