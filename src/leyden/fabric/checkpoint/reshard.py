"""`reshard`: rewrite any checkpoint as a sharded directory with one shard for each of N ranks.

A sharded directory loads on any number of ranks as it is; after `reshard` each of N ranks finds its slices in one file and
reads it from front to back. Tensors are cut along their first axis as FSDP does; what is too small to cut goes whole to the
shard with the least in it. The run's own description stays (who wrote it, on how many ranks), and so do the ranks' states.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.files import make_directory
from leyden.fabric.checkpoint import directory, layout
from leyden.fabric.checkpoint.capture import Snapshot
from leyden.fabric.checkpoint.convert import check_opaque, entries_of, free_target, published, write_rest
from leyden.fabric.checkpoint.layout import Chunk, IndexedTensor, TensorIndex
from leyden.fabric.checkpoint.saved import SavedModule, SavedOptimizer, SavedTensor
from leyden.fabric.checkpoint.source import Scratch, Source, key_of, open_source, plain
from leyden.fabric.checkpoint.tensor_file import CODES, is_holdable, write_tensors

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def reshard(src: str | Path, dst: str | Path, *, ranks: int) -> Path:
    """Rewrite a checkpoint as a sharded directory for a number of ranks.

    Args:
        src: A checkpoint of any kind but DeepSpeed's.
        dst: The directory; nothing may be there.
        ranks: How many shards.

    Returns:
        `dst`.

    Raises:
        ConfigTypeError: `ranks` is no int.
        ConfigError: `ranks` is below 1; opaque values; an optimizer whose parameters are numbered and cannot be named.
        ConflictError: Something is at `dst`.
        NotFoundError: Nothing is at `src`, or no checkpoint.
        CorruptDataError: `src` is damaged.
    """
    if type(ranks) is not int:
        raise ConfigTypeError(f"ranks={ranks!r}: expected an int of at least 1.")
    if ranks < 1:
        raise ConfigError(f"ranks={ranks!r}: expected an int of at least 1.")
    target = free_target(dst)
    with open_source(src) as source:
        check_opaque(source)
        published(target, lambda temporary: _write(source, temporary, ranks))
    return target


def _write(source: Source, temporary: Path, ranks: int) -> None:
    make_directory(temporary / layout.SHARDS)
    meta = dataclasses.replace(source.meta, layout="sharded", entries=entries_of(source), files={})
    snapshot = Snapshot(meta=meta, tree=plain(source.values, "state"), precision=source.saved.precision)
    tensors: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for place, module in source.modules.items():
        _spread_module(key_of(place), module, snapshot, tensors, aliases)
    for place, optimizer in source.optimizers.items():
        named = optimizer if optimizer.by_name else _named(key_of(place), optimizer, source)
        _spread_optimizer(key_of(place), named, snapshot, tensors)
    indexed = _cut(tensors, ranks)
    records: dict[str, layout.FileRecord] = {}
    for rank in range(ranks):
        name = layout.shard_name(rank)
        with Scratch(temporary) as scratch:
            boxes = {
                chunk.key: scratch.box(tensors[tensor], chunk.offset, chunk.size)
                for tensor, entry in indexed.items()
                for chunk in entry.chunks
                if chunk.file == name
            }
            if boxes:
                metadata = {"aliases": json.dumps(aliases)} if aliases else None
                records[name] = write_tensors(temporary / name, boxes, metadata)
    index = TensorIndex(tensors=indexed, aliases=aliases).to_dict()
    records[layout.INDEX] = directory.write_json(temporary / layout.INDEX, index)
    write_rest(source, snapshot, temporary, records)


def _cut(tensors: Mapping[str, Any], ranks: int) -> dict[str, IndexedTensor]:
    """Return where each box of each tensor goes."""
    filled = [0] * ranks
    result = {}
    for name, tensor in tensors.items():
        shape, dtype = tuple(tensor.shape), tensor.dtype
        boxes = list(_boxes(shape, ranks))
        if len(boxes) == 1:
            boxes = [(filled.index(min(filled)), *boxes[0][1:])]
        chunks = []
        for rank, offset, size in boxes:
            filled[rank] += math.prod(size) * dtype.itemsize
            key = f"{name}@{','.join(map(str, offset))}"
            chunks.append(Chunk(offset=offset, size=size, file=layout.shard_name(rank), key=key))
        result[name] = IndexedTensor(dtype=dtype, shape=shape, chunks=tuple(chunks))
    return result


def _boxes(shape: tuple[int, ...], ranks: int) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Yield rank, offset and size of each part, as `torch.chunk` cuts along the first axis; one part if it cannot be cut."""
    if not shape or shape[0] < ranks or 0 in shape:
        yield 0, (0,) * len(shape), shape
        return
    step = -(-shape[0] // ranks)
    for rank, start in enumerate(range(0, shape[0], step)):
        yield rank, (start, *(0,) * (len(shape) - 1)), (min(step, shape[0] - start), *shape[1:])


def _spread_module(key: str, module: SavedModule, snapshot: Snapshot, tensors: dict[str, Any], aliases: dict[str, str]) -> None:
    first: dict[Any, str] = {}
    for name, value in module.values.items():
        if not _is_shardable(value):
            snapshot.extra.setdefault(key, {})[name] = plain(value, f"state[{key!r}].{name}")
            continue
        kept = first.setdefault(_identity(value), name)
        if kept != name:
            aliases[f"{key}.{name}"] = f"{key}.{kept}"
        else:
            tensors[f"{key}.{name}"] = value


def _spread_optimizer(key: str, optimizer: SavedOptimizer, snapshot: Snapshot, tensors: dict[str, Any]) -> None:
    for member, slots in optimizer.state.items():
        for name, value in slots.items():
            if _is_shardable(value):
                tensors[f"{key}.state.{member}.{name}"] = value
            else:
                plain_value = plain(value, f"state[{key!r}].state[{member!r}].{name}")
                snapshot.extra.setdefault(key, {}).setdefault(str(member), {})[name] = plain_value
    options: dict[str, Any] = {}
    for group in optimizer.groups:
        options |= dict.fromkeys(map(str, group.members), plain(group.options, f"state[{key!r}].param_groups"))
    order = [[str(member) for member in group.members] for group in optimizer.groups]
    snapshot.optimizers[key] = {"param_groups": options, "order": order}


def _named(key: str, optimizer: SavedOptimizer, source: Source) -> SavedOptimizer:
    """Return an optimizer by parameter name.

    torch numbers parameters in the order in which the optimizer got them. Names are only taken where that order leaves no
    doubt: one group, as many parameters as its module has, and every state of its parameter's shape.
    """
    module = source.meta.entries.get(key, {}).get("module")
    candidates = [saved for place, saved in source.modules.items() if module in (None, key_of(place))] or list(source.modules.values())
    names = _parameters(candidates[0]) if len(candidates) == 1 else {}
    members = optimizer.members
    fits = len(optimizer.groups) == 1 and len(members) == len(names)
    by_member = dict(zip(members, names, strict=True)) if fits else {}
    for member, slots in optimizer.state.items() if fits else ():
        shapes = [tuple(slot.shape) for slot in slots.values() if isinstance(slot, (Tensor, SavedTensor)) and len(slot.shape)]
        fits = fits and all(shape == names[by_member[member]] for shape in shapes)
    if not fits:
        raise ConfigError(
            f"{source.path}: the optimizer {key!r} numbers its {len(members)} parameters; a sharded checkpoint needs their names, "
            "which cannot be told from it. Load the file in the run that trains it and save there under a sharded strategy, "
            "or build the optimizer from model.named_parameters()."
        )
    groups = tuple(dataclasses.replace(group, members=tuple(by_member[member] for member in group.members)) for group in optimizer.groups)
    state: dict[str | int, dict[str, Any]] = {by_member[member]: slots for member, slots in optimizer.state.items()}
    return SavedOptimizer(groups=groups, state=state, by_name=True)


def _parameters(module: SavedModule) -> dict[str, tuple[int, ...]]:
    """Return name → shape of what looks like a parameter, tied ones once."""
    found: dict[Any, tuple[str, tuple[int, ...]]] = {}
    for name, value in module.values.items():
        is_tensor = isinstance(value, (Tensor, SavedTensor))
        if is_tensor and (value.dtype.is_floating_point or value.dtype.is_complex) and name.rpartition(".")[2] not in _BUFFERS:
            found.setdefault(_identity(value), (name, tuple(value.shape)))
    return dict(found.values())


def _is_shardable(value: Any) -> bool:
    return (isinstance(value, SavedTensor) and value.dtype in CODES) or (isinstance(value, Tensor) and is_holdable(value))


def _identity(value: Any) -> Any:
    """Return what is equal for tied tensors."""
    if isinstance(value, Tensor) and value.layout is torch.strided and value.numel():
        return value.data_ptr(), tuple(value.shape), value.stride(), value.dtype
    return id(value)
