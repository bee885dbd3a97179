"""`Saved`: a checkpoint that has been opened and not yet read, the same for every kind of file.

Its `tree` is the user's dictionary. Where a module or an optimizer was, directories have a `SavedModule` or a
`SavedOptimizer`, whose tensors still lie in their files; single files have the plain state dict, which `as_module` and
`as_optimizer` bring into the same form. A `SavedTensor` copies any box of itself into memory that wants it, so a rank of a
sharded run reads its own slices and nothing else.
"""

import contextlib
import ctypes
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import CorruptDataError
from leyden.fabric.checkpoint.layout import Chunk, Meta
from leyden.fabric.checkpoint.tensor_file import TensorFile
from leyden.fabric.checkpoint.tree import plain_name

_PIECE_BYTES = 1 << 24


class SavedTensor(ABC):
    """A tensor whose bytes are not read yet."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @abstractmethod
    def read_into(self, target: Tensor, offset: Sequence[int] | None = None) -> None:
        """Copy the box of `target`'s shape that begins at `offset` (the origin if absent) into `target`."""

    @abstractmethod
    def load(self) -> Tensor:
        """Return the whole tensor, on the CPU, in memory of its own."""


class MemoryTensor(SavedTensor):
    """A tensor of a single file: mapped, or in memory already.

    Args:
        tensor: The tensor.
        is_mapped: Whether its pages belong to a file and may be forgotten once they have been copied.
    """

    def __init__(self, tensor: Tensor, *, is_mapped: bool = False) -> None:
        self.dtype = tensor.dtype
        self.shape = tuple(tensor.shape)
        self._tensor = tensor.detach()
        self._is_mapped = is_mapped

    def read_into(self, target: Tensor, offset: Sequence[int] | None = None) -> None:
        begin = offset if offset is not None else (0,) * len(self.shape)
        box = self._tensor[tuple(slice(at, at + size) for at, size in zip(begin, target.shape, strict=True))]
        with torch.no_grad():
            if not self._is_mapped or box.dim() == 0 or not box.numel():
                target.copy_(box)
                return
            # In pieces: at once, the pages of the largest tensor are memory on top of the model (1 GB in 8 tensors: a peak of 1.13).
            rows = max(1, _PIECE_BYTES * len(box) // (box.numel() * box.element_size()))
            for part, piece in zip(target.split(rows), box.split(rows), strict=True):
                part.copy_(piece)
                _forget_pages(piece)

    def load(self) -> Tensor:
        return self._tensor.clone() if self._is_mapped else self._tensor


class OpenFiles:
    """The safetensors files of a directory, opened when first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: dict[str, TensorFile] = {}

    def __getitem__(self, name: str) -> TensorFile:
        if name not in self._open:
            self._open[name] = TensorFile(self.directory / name)
        return self._open[name]

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close them if the block raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close them."""
        for file in self._open.values():
            file.close()
        self._open.clear()


class FileTensor(SavedTensor):
    """A tensor that lies in one or more boxes in safetensors files.

    Args:
        files: The open files.
        dtype: Its dtype.
        shape: Its whole shape.
        chunks: The boxes.
        name: For errors.
    """

    def __init__(self, files: OpenFiles, dtype: torch.dtype, shape: tuple[int, ...], chunks: Sequence[Chunk], name: str) -> None:
        self.dtype = dtype
        self.shape = shape
        self._files = files
        self._chunks = chunks
        self._name = name

    def read_into(self, target: Tensor, offset: Sequence[int] | None = None) -> None:
        begin = tuple(offset) if offset is not None else (0,) * len(self.shape)
        filled = 0
        for chunk in self._chunks:
            box = _overlap(begin, tuple(target.shape), chunk)
            if box is None:
                continue
            low, size = box
            inside = tuple(slice(at - start, at - start + length) for at, start, length in zip(low, begin, size, strict=True))
            part = target[inside]
            self._file(chunk).read_into(chunk.key, part, [at - start for at, start in zip(low, chunk.offset, strict=True)])
            filled += part.numel()
        if filled != target.numel():
            raise CorruptDataError(f"{self._files.directory}: the files hold {filled:,} of {target.numel():,} elements of {self._name!r}.")

    def load(self) -> Tensor:
        tensor = torch.empty(self.shape, dtype=self.dtype)
        self.read_into(tensor)
        return tensor

    def check(self) -> None:
        """Open the files and compare what they hold with the index.

        Raises:
            CorruptDataError: A box is not where it should be, or boxes are missing.
        """
        held = sum(math.prod(chunk.size) for chunk in self._chunks)
        if held != math.prod(self.shape):
            raise CorruptDataError(
                f"{self._files.directory}: the index holds {held:,} of {math.prod(self.shape):,} elements of {self._name!r}."
            )
        for chunk in self._chunks:
            self._file(chunk)

    def _file(self, chunk: Chunk) -> TensorFile:
        file = self._files[chunk.file]
        span = file.tensors.get(chunk.key)
        if span is None or span.shape != chunk.size or span.dtype != self.dtype:
            raise CorruptDataError(
                f"{file.path} does not hold {chunk.key!r} as the index says: {self.dtype}, shape {chunk.size}; found {span}."
            )
        return file


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedModule:
    """A module's state: plain parameter and buffer names → tensors still in their files, or extra state."""

    values: dict[str, Any]  # SavedTensor, or a plain value

    def load(self) -> dict[str, Any]:
        """Return the state dict, on the CPU."""
        loaded: dict[int, Tensor] = {}  # tied weights come back tied
        return {name: _loaded(value, loaded) for name, value in self.values.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedGroup:
    """A parameter group: its options, and its parameters by name or by number."""

    options: dict[str, Any]
    members: tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedOptimizer:
    """An optimizer's state: groups, and per parameter name → tensor still in its file, or a value.

    `by_name` tells whether members are parameter names (sharded directories) or numbers (torch's own form).
    """

    groups: tuple[SavedGroup, ...]
    state: dict[str | int, dict[str, Any]]
    by_name: bool

    def load(self) -> dict[str, Any]:
        """Return torch's form: numbered parameters, on the CPU."""
        numbers = {member: number for number, member in enumerate(self.members)} if self.by_name else {m: m for m in self.members}
        loaded: dict[int, Tensor] = {}
        state = {
            numbers[member]: {name: _loaded(value, loaded) for name, value in values.items()}
            for member, values in self.state.items()
            if member in numbers
        }
        groups = [{**group.options, "params": [numbers[member] for member in group.members]} for group in self.groups]
        return {"state": state, "param_groups": groups}

    @property
    def members(self) -> list[str | int]:
        """All parameters in order."""
        return [member for group in self.groups for member in group.members]


@dataclass(kw_only=True, slots=True)
class Saved:
    """An opened checkpoint.

    Args:
        path: Where it lies, for errors.
        tree: The user's dictionary.
        meta: What it says about itself; `None` for foreign files.
        precision: The precision's state.
        rank_state: Rank → `{"rng", "objects"}`, or `None` for a rank that did not exist.
        is_mapped: Whether tensors in `tree` are mapped from a file.
        files: What to close.
    """

    path: str
    tree: dict[str, Any]
    meta: Meta | None = None
    precision: dict[str, Any] = field(default_factory=dict)
    rank_state: Callable[[int], dict[str, Any] | None] = lambda _rank: None
    is_mapped: bool = False
    files: OpenFiles | None = None

    def close(self) -> None:
        """Close the files; tensors that were not read are lost."""
        if self.files is not None:
            self.files.close()

    def load(
        self, keys: Iterable[str] | None = None, *, keep_mapped: bool = False, like: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the tree (or some keys of it) with every tensor on the CPU.

        Args:
            keys: Which keys; all if absent.
            keep_mapped: Whether tensors of a mapped file may stay there until somebody looks at them.
            like: A live tree; where it has a `DTensor` of the saved shape, the result is one too, and only its box is read.
        """
        read = _Reading(copies=self.is_mapped and not keep_mapped, is_mapped=self.is_mapped)
        return {key: read.value(self.tree[key], _inside(like, key)) for key in (self.tree if keys is None else keys)}


def as_module(value: Any, *, is_mapped: bool) -> SavedModule | None:
    """Return a module's state in the common form, or `None` if `value` is something else."""
    if isinstance(value, SavedModule):
        return value
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return None
    return SavedModule(values={plain_name(name): _unread(item, is_mapped=is_mapped) for name, item in value.items()})


def as_optimizer(value: Any, *, is_mapped: bool) -> SavedOptimizer | None:
    """Return an optimizer's state in the common form, or `None` if `value` is something else."""
    if isinstance(value, SavedOptimizer):
        return value
    if not isinstance(value, Mapping) or not {"state", "param_groups"} <= value.keys():
        return None
    groups = tuple(
        SavedGroup(
            options={name: option for name, option in group.items() if name not in ("params", "param_names")},
            members=tuple(plain_name(member) if isinstance(member, str) else member for member in group["params"]),
        )
        for group in value["param_groups"]
    )
    state = {
        plain_name(member) if isinstance(member, str) else member: {
            name: _unread(item, is_mapped=is_mapped) for name, item in values.items()
        }
        for member, values in value["state"].items()
    }
    return SavedOptimizer(groups=groups, state=state, by_name=any(isinstance(member, str) for group in groups for member in group.members))


def is_dtensor(value: Any) -> bool:
    """Return whether a value is a `DTensor`, without importing `torch.distributed.tensor` (half of `import torch`)."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def fill(target: Tensor, saved: SavedTensor) -> None:
    """Read a saved tensor into `target`; of a `DTensor` only this rank's box, as torch's checkpoint planner cuts it."""
    if not is_dtensor(target):
        saved.read_into(target.detach())
        return
    sharded: Any = target
    if sharded.device_mesh.get_coordinate() is None:
        return  # this rank is not in the tensor's mesh
    local = sharded.to_local().detach()
    (box,) = sharded.__create_chunk_list__()  # the planner's box: one per rank, also for strided shards
    if local.numel():
        saved.read_into(local, tuple(box.offsets))


def _unread(item: Any, *, is_mapped: bool) -> Any:
    return MemoryTensor(item, is_mapped=is_mapped) if isinstance(item, Tensor) else item


def _loaded(value: Any, loaded: dict[int, Tensor]) -> Any:
    if not isinstance(value, SavedTensor):
        return value
    if id(value) not in loaded:
        loaded[id(value)] = value.load()
    return loaded[id(value)]


class _Reading:
    """One walk through a saved tree beside a live one; tied tensors come back tied."""

    def __init__(self, *, copies: bool, is_mapped: bool) -> None:
        self._copies = copies
        self._is_mapped = is_mapped
        self._loaded: dict[int, Tensor] = {}

    def value(self, value: Any, live: Any) -> Any:
        if isinstance(value, (SavedModule, SavedOptimizer)):
            return value.load()
        if isinstance(value, Tensor):
            return self._tensor(value, live)
        if isinstance(value, dict):
            return {key: self.value(item, _inside(live, key)) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.value(item, _inside(live, index)) for index, item in enumerate(value))
        return value

    def _tensor(self, value: Tensor, live: Any) -> Tensor:
        if is_dtensor(live) and live.shape == value.shape:
            with torch.no_grad():
                target = torch.empty_like(live, dtype=value.dtype)
            fill(target, MemoryTensor(value, is_mapped=self._is_mapped))
            return target
        if not self._copies:
            return value
        if id(value) not in self._loaded:
            self._loaded[id(value)] = value.clone()
        return self._loaded[id(value)]


def _inside(live: Any, key: Any) -> Any:
    """Return what a live container has at a place, or `None`."""
    if isinstance(live, Mapping):
        return live.get(key)
    return live[key] if isinstance(live, (list, tuple)) and isinstance(key, int) and key < len(live) else None


def _overlap(begin: tuple[int, ...], size: tuple[int, ...], chunk: Chunk) -> tuple[list[int], list[int]] | None:
    """Return offset and size of what two boxes share, or `None`."""
    low = [max(a, b) for a, b in zip(begin, chunk.offset, strict=True)]
    high = [min(a + n, b + m) for a, n, b, m in zip(begin, size, chunk.offset, chunk.size, strict=True)]
    if any(h <= at for at, h in zip(low, high, strict=True)):
        return None
    return low, [h - at for at, h in zip(low, high, strict=True)]


def _forget_pages(tensor: Tensor) -> None:
    """Give back the memory of mapped rows that have been copied, so that a load never holds the model twice.

    The mapping is private and unchanged, so a later access reads the file again.
    """
    advise = _madvise()
    end = tensor.data_ptr() + (1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))) * (
        tensor.element_size()
    )
    first = -(-tensor.data_ptr() // PAGESIZE) * PAGESIZE
    length = (end - first) // PAGESIZE * PAGESIZE
    if advise is not None and length > 0:
        advise(ctypes.c_void_p(first), ctypes.c_size_t(length), 4)  # 4 = MADV_DONTNEED


@cache
def _madvise() -> Any:
    return ctypes.CDLL(None).madvise if sys.platform == "linux" else None
