"""`Source`: any checkpoint, ours or foreign, taken apart into modules, optimizers and plain values, for `convert`.

Our own checkpoints say in `meta` what each entry is; in foreign ones a dictionary of tensors counts as a module and
`{"state", "param_groups"}` as an optimizer. Tensors stay in their files. A `Scratch` gives each one memory that is a file
of its own beside the target, so that rewriting a checkpoint larger than memory works: the kernel writes pages out.
"""

import argparse
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.core.files import make_directory, storage_error, temporary_beside
from leyden.fabric.checkpoint import directory, single_file
from leyden.fabric.checkpoint.layout import Meta
from leyden.fabric.checkpoint.legacy import Kind, kind_of, open_foreign
from leyden.fabric.checkpoint.opaque import Opaque, opaque_values
from leyden.fabric.checkpoint.opening import resolve
from leyden.fabric.checkpoint.saved import MemoryTensor, Saved, SavedGroup, SavedModule, SavedOptimizer, SavedTensor, as_optimizer
from leyden.fabric.checkpoint.tree import storable

Place = tuple[str | int, ...]


@dataclass(kw_only=True, slots=True)
class Source:
    """An opened checkpoint in parts.

    Args:
        path: Where it lies.
        kind: What it is.
        saved: What was opened.
        modules: Place in the tree → module.
        optimizers: Place → optimizer.
        values: The tree without them; `None` where one lay below the top.
        meta: What it says about itself, or what can be said about a foreign one.
        ranks: The own state of each rank that wrote it.
        opaque: Places and values whose classes were not imported.
    """

    path: Path
    kind: Kind
    saved: Saved
    meta: Meta
    modules: dict[Place, SavedModule] = field(default_factory=dict)
    optimizers: dict[Place, SavedOptimizer] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    ranks: list[dict[str, Any]] = field(default_factory=list)
    opaque: list[tuple[str, Opaque]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.saved.close()

    def drop_opaque(self) -> None:
        """Leave out every opaque value: keys vanish, elements of lists become `None`."""
        self.values = _without_opaque(self.values)
        for place, module in self.modules.items():
            self.modules[place] = SavedModule(values=_without_opaque(module.values))
        for place, optimizer in self.optimizers.items():
            groups = tuple(SavedGroup(options=_without_opaque(group.options), members=group.members) for group in optimizer.groups)
            self.optimizers[place] = SavedOptimizer(groups=groups, state=optimizer.state, by_name=optimizer.by_name)
        self.opaque = []


def open_source(path: str | Path) -> Source:
    """Open a checkpoint of any kind but DeepSpeed's.

    Args:
        path: A file or folder.

    Raises:
        NotFoundError: Nothing is there, or no checkpoint.
        CorruptDataError: It is damaged.
        StorageError: It cannot be read, or a newer Leyden wrote it.
        UnsupportedError: A DeepSpeed folder.
    """
    place = resolve(path)
    kind = kind_of(place)
    if kind is Kind.LEYDEN_FILE:
        saved = single_file.open_file(place)
    elif kind in (Kind.LEYDEN_FULL, Kind.LEYDEN_SHARDED):
        saved = directory.open_directory(place)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*of classes that are not read")  # they are in `opaque`
            saved = open_foreign(place)
    steps = [saved.tree[key] for key in ("step", "global_step") if type(saved.tree.get(key)) is int]
    meta = saved.meta or Meta(layout="file", strategy=kind.value, precision="unknown", step=steps[0] if steps else None)
    source = Source(path=place, kind=kind, saved=saved, meta=meta)
    if saved.meta is not None:
        states = [saved.rank_state(rank) for rank in range(meta.world_size)]
        source.ranks = [state for state in states if state is not None]
    left = {key: _sorted_out(value, (key,), source) for key, value in saved.tree.items()}
    source.values = {key: value for key, value in left.items() if value is not _TAKEN}
    source.opaque = list(_opaque_of(source))
    return source


def _opaque_of(source: Source) -> Iterator[tuple[str, Opaque]]:
    yield from opaque_values(source.values)
    for place, module in source.modules.items():
        yield from opaque_values(module.values, f"[{key_of(place)!r}]")
    for place, optimizer in source.optimizers.items():
        for number, group in enumerate(optimizer.groups):
            yield from opaque_values(group.options, f"[{key_of(place)!r}]['param_groups'][{number}]")


class _Taken:
    """Stands where a module or optimizer was."""


_TAKEN = _Taken()


def _sorted_out(value: Any, place: Place, source: Source) -> Any:
    """Move the modules and optimizers of a tree to the source; return what is left."""
    declared = source.meta.entries.get(".".join(map(str, place)), {}).get("kind")
    optimizer = _as_optimizer(value) if declared in (None, "optimizer") else None
    if optimizer is not None:
        source.optimizers[place] = optimizer
        return _TAKEN
    if isinstance(value, SavedModule) or declared == "module" or (declared is None and len(place) == 1 and _is_state_dict(value)):
        source.modules[place] = value if isinstance(value, SavedModule) else SavedModule(values=dict(value))
        return _TAKEN
    if isinstance(value, (list, tuple)) and any(_as_optimizer(item) is not None for item in value):
        left = [_sorted_out(item, (*place, index), source) for index, item in enumerate(value)]
        return [None if item is _TAKEN else item for item in left]
    return value


def _as_optimizer(value: Any) -> SavedOptimizer | None:
    if isinstance(value, SavedOptimizer):
        return value
    if not isinstance(value, Mapping) or not {"state", "param_groups"} <= value.keys():
        return None
    return as_optimizer(_with_names(value), is_mapped=True)


def _with_names(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an optimizer's state by name where it holds them: of `torch.optim.Adam(model.named_parameters())`."""
    groups = value["param_groups"]
    if not groups or any(len(group.get("param_names") or ()) != len(group["params"]) for group in groups):
        return value
    names = {number: name for group in groups for number, name in zip(group["params"], group["param_names"], strict=True)}
    state = {names[number]: slots for number, slots in value["state"].items() if number in names}
    return {"state": state, "param_groups": [{**group, "params": list(group["param_names"])} for group in groups]}


def _is_state_dict(value: Any) -> bool:
    """Return whether a foreign value is a module's state: names to tensors, and little else."""
    if not isinstance(value, Mapping) or not value or any(not isinstance(name, str) for name in value):
        return False
    others = [item for item in value.values() if not isinstance(item, (Tensor, SavedTensor))]
    return len(others) < len(value) and all(isinstance(item, (Opaque, Mapping, bytes)) for item in others)


def _without_opaque(value: Any) -> Any:
    if isinstance(value, Opaque):
        return None
    if isinstance(value, (argparse.Namespace, SimpleNamespace)):
        return _without_opaque(vars(value))
    if isinstance(value, Mapping):
        return {key: _without_opaque(item) for key, item in value.items() if not isinstance(item, Opaque)}
    if type(value) in (list, tuple):
        return type(value)(_without_opaque(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return {item for item in value if not isinstance(item, Opaque)}
    return value


def plain(value: Any, where: str) -> Any:
    """Return a value as our checkpoints store it, namespaces as dictionaries.

    Args:
        value: A foreign tree.
        where: How it is reached, for the error.

    Raises:
        ConfigError: It holds what a checkpoint cannot.
    """
    return storable(_plain(value), where)


def _plain(value: Any) -> Any:
    if isinstance(value, (argparse.Namespace, SimpleNamespace)):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, frozenset):
        return set(value)
    return bytes(value) if isinstance(value, bytearray) else value


def key_of(place: Place) -> str:
    """Return a place as one word, as `meta` names entries."""
    return ".".join(map(str, place))


def the_module(source: Source) -> tuple[Place, SavedModule]:
    """Return the module that a format for weights alone would hold.

    Raises:
        ConfigError: There is none, or several and none is called `model` or `state_dict`.
        UnsupportedError: A foreign file of bare tensors under no key, which is a state dict itself.
    """
    if len(source.modules) == 1:
        return next(iter(source.modules.items()))
    for name in ("model", "state_dict"):
        if (name,) in source.modules:
            return (name,), source.modules[(name,)]
    names = ", ".join(map(key_of, source.modules))
    if names:
        raise UnsupportedError(
            f"{source.path} holds the modules {names}; this format takes one. Convert to 'directory': one safetensors file each."
        )
    raise ConfigError(f"{source.path} holds no module: its keys are {', '.join(map(repr, source.values))}.")


class Scratch:
    """Memory for tensors in files that vanish at the end: a context manager.

    Args:
        beside: The target; the files lie on the same disk.
    """

    def __init__(self, beside: Path) -> None:
        self._folder = temporary_beside(beside.with_name(f"{beside.name}.scratch"))
        self._loaded: dict[int, tuple[Any, Tensor]] = {}

    def __enter__(self) -> Self:
        try:
            make_directory(self._folder, durable=False)
        except OSError as error:
            raise storage_error(error, self._folder) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._loaded.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def load(self, value: Any) -> Any:
        """Return a tensor that lies in files as one in scratch memory, tied ones as one; anything else as it is."""
        if not isinstance(value, SavedTensor):
            return value.detach() if isinstance(value, Tensor) else value
        if id(value) not in self._loaded:
            self._loaded[id(value)] = (value, self._read(value))
        return self._loaded[id(value)][1]

    def box(self, value: Any, offset: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        """Return a box of a tensor in scratch memory."""
        if isinstance(value, Tensor):
            inside = tuple(slice(at, at + length) for at, length in zip(offset, size, strict=True))
            return value.detach()[inside]
        target = self.empty(size, value.dtype)
        value.read_into(target, offset)
        return target

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor whose pages the kernel may write out."""
        numel = torch.Size(shape).numel()
        if numel * dtype.itemsize < 1 << 16:  # not worth a file
            return torch.empty(shape, dtype=dtype)
        file = self._folder / "tensor"
        try:
            with file.open("wb") as opened:
                _reserve(opened.fileno(), numel * dtype.itemsize)
            flat = torch.from_file(str(file), shared=True, size=numel, dtype=dtype)
        except OSError as error:
            raise storage_error(error, file, numel * dtype.itemsize) from error
        finally:
            file.unlink(missing_ok=True)  # the mapping keeps it until the tensor is gone
        return flat.view(shape)

    def _read(self, value: SavedTensor) -> Tensor:
        if isinstance(value, MemoryTensor):
            return value.load()
        target = self.empty(value.shape, value.dtype)
        value.read_into(target)
        return target


def _reserve(descriptor: int, size: int) -> None:
    """Claim the bytes now: a mapped page that a full disk cannot take would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def loaded_module(module: SavedModule, scratch: Scratch) -> dict[str, Any]:
    """Return a module's state dict with its tensors in scratch memory."""
    return {name: scratch.load(value) for name, value in module.values.items()}


def loaded_optimizer(optimizer: SavedOptimizer, scratch: Scratch, *, by_name: bool = False) -> dict[str, Any]:
    """Return an optimizer's state dict with its tensors in scratch memory.

    Args:
        optimizer: The optimizer.
        scratch: Where its tensors go.
        by_name: Whether parameters keep their names, if they have them; else they are numbered, as torch has it.
    """
    members = optimizer.members
    numbered = optimizer.by_name and not by_name
    label = {member: number if numbered else member for number, member in enumerate(members)}
    state = {label[m]: {name: scratch.load(value) for name, value in slots.items()} for m, slots in optimizer.state.items() if m in label}
    groups = [{**group.options, "params": [label[member] for member in group.members]} for group in optimizer.groups]
    return {"state": state, "param_groups": groups}


def tied(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield `(name, earlier name)` of tensors that are one."""
    seen: dict[Any, str] = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and value.layout is torch.strided and value.numel():
            first = seen.setdefault((value.data_ptr(), tuple(value.shape), value.stride(), value.dtype), name)
            if first != name:
                yield name, first
