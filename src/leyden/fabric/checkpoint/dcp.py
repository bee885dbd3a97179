"""Folders of `torch.distributed.checkpoint`, read without running their pickles: 2.x FSDP and ModelParallel folders are such.

`.metadata` is a pickle of dataclasses: which tensors there are, in which boxes, and at which bytes of which `__r_i.distcp`
file each box lies, stored as a little `torch.save` file. Both go through the restricted unpickler; the dataclasses arrive
as `Opaque` records whose fields are read here by name. A tensor is assembled box by box, so a reader never holds more
than its target and one box.
"""

import io
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import CorruptDataError, NotFoundError, StorageError, UnsupportedError
from leyden.fabric.checkpoint.opaque import Opaque
from leyden.fabric.checkpoint.restricted import read_pickle, read_torch_bytes
from leyden.fabric.checkpoint.saved import SavedTensor

METADATA = ".metadata"


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Bytes of one file of the folder."""

    file: str
    start: int
    length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A part of a tensor and where its bytes lie."""

    offset: tuple[int, ...]
    size: tuple[int, ...]
    span: Span


class DcpTensor(SavedTensor):
    """A tensor in boxes of a folder.

    Args:
        folder: Where it lies.
        name: Its flat name, for errors.
        dtype: Its dtype.
        shape: Its whole shape.
        boxes: The parts; together they are the whole.
    """

    def __init__(self, folder: "DcpFolder", name: str, dtype: torch.dtype, shape: tuple[int, ...], boxes: Sequence[Box]) -> None:
        self.dtype, self.shape, self.name, self.boxes = dtype, shape, name, tuple(boxes)
        self._folder = folder

    def read_into(self, target: Tensor, offset: Sequence[int] | None = None) -> None:
        """Copy a box of the tensor into `target`, as `SavedTensor` says."""
        begin = tuple(offset) if offset is not None else (0,) * len(self.shape)
        for box in self.boxes:
            edges = [
                (max(at, start), min(at + wanted, start + size))
                for at, wanted, start, size in zip(begin, target.shape, box.offset, box.size, strict=True)
            ]
            if any(low >= high for low, high in edges):
                continue
            part = self._folder.read(box.span)
            if not isinstance(part, Tensor) or tuple(part.shape) != box.size or part.dtype != self.dtype:
                raise CorruptDataError(
                    f"{self._folder.path / box.span.file} does not hold a {self.dtype} of shape {box.size} of {self.name!r}."
                )
            inside = tuple(slice(low - start, high - start) for (low, high), start in zip(edges, box.offset, strict=True))
            there = tuple(slice(low - at, high - at) for (low, high), at in zip(edges, begin, strict=True))
            with torch.no_grad():
                target[there].copy_(part[inside])

    def load(self) -> Tensor:
        """Return the whole tensor."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        self.read_into(tensor)
        return tensor


class DcpFolder:
    """An opened folder: flat names, the paths they stand for, tensors still in their files and pickled values.

    Args:
        path: The folder, with a `.metadata` file.

    Raises:
        NotFoundError: There is no `.metadata`.
        CorruptDataError: It is damaged, or files are missing or too short.
        UnsupportedError: It was written compressed, or in another serialisation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        metadata = _fields(read_pickle(self._metadata_bytes(), str(path / METADATA)))
        entries, storage = metadata.get("state_dict_metadata"), metadata.get("storage_data")
        if not isinstance(entries, dict) or not isinstance(storage, dict):
            raise CorruptDataError(f"{path / METADATA} is no metadata of torch.distributed.checkpoint.")
        planned = metadata.get("planner_data")
        self.paths: dict[str, tuple[str | int, ...]] = {
            name: tuple(planned[name]) if isinstance(planned, dict) and name in planned else (name,) for name in entries
        }
        self._spans = self._read_spans(storage)
        self._entries: dict[str, Any] = {name: self._entry(name, entry) for name, entry in entries.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def is_tensor(self, name: str) -> bool:
        """Return whether a name stands for a tensor, not for a pickled value."""
        return isinstance(self._entries[name], DcpTensor)

    def value(self, name: str) -> Any:
        """Return a `DcpTensor`, not read yet, or a pickled value."""
        entry = self._entries[name]
        return entry if isinstance(entry, DcpTensor) else self.read(entry)

    def tree(self) -> dict[str, Any]:
        """Return the nested dictionary that was saved, with tensors still in their files."""
        root = _Node()
        for name in self:
            node, path = root, self.paths[name]
            for step in path[:-1]:
                node = node.setdefault(step, _Node())
                if not isinstance(node, _Node):
                    raise CorruptDataError(f"{self.path / METADATA}: {name!r} lies inside another value.")
            node[path[-1]] = self.value(name)
        return {key: _with_lists(value) for key, value in root.items()}

    def read(self, span: Span) -> Any:
        """Return what lies in a span: a tensor or a value."""
        return read_torch_bytes(self._bytes(span), f"{self.path / span.file} at byte {span.start:,}")

    def verify(self, name: str) -> None:
        """Read everything of one name and compare checksums.

        Raises:
            CorruptDataError: One differs, or something is missing.
        """
        entry = self._entries[name]
        for span in [box.span for box in entry.boxes] if isinstance(entry, DcpTensor) else [entry]:
            data = self._bytes(span)
            self.read(span)
            if data[:4] == b"PK\x03\x04":
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    bad = archive.testzip()
                if bad is not None:
                    raise CorruptDataError(
                        f"{self.path / span.file}: {name!r} does not have the checksum it was written with; load an older one."
                    )

    def _bytes(self, span: Span) -> bytes:
        file = self.path / span.file
        try:
            with file.open("rb") as opened:
                opened.seek(span.start)
                return opened.read(span.length)
        except OSError as error:
            raise StorageError(f"{file} cannot be read: {error.strerror or error}.") from error

    def _metadata_bytes(self) -> bytes:
        file = self.path / METADATA
        try:
            return file.read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.path} is no folder of torch.distributed.checkpoint: it has no {METADATA!r}.") from error
        except OSError as error:
            raise StorageError(f"{file} cannot be read: {error.strerror or error}.") from error

    def _read_spans(self, storage: Mapping[Any, Any]) -> dict[tuple[str, tuple[int, ...] | None], Span]:
        spans: dict[tuple[str, tuple[int, ...] | None], Span] = {}
        sizes: dict[str, int] = {}
        for key, value in storage.items():
            index, info = _fields(key), _fields(value)
            span = self._span(info)
            offset = index.get("offset")
            spans[str(index.get("fqn")), None if offset is None else _ints(offset, METADATA)] = span
            sizes[span.file] = max(sizes.get(span.file, 0), span.start + span.length)
        for name, needed in sizes.items():
            self._check_size(name, needed)
        return spans

    def _span(self, info: Mapping[str, Any]) -> Span:
        name, start, length = info.get("relative_path"), info.get("offset"), info.get("length")
        if not isinstance(name, str) or PurePosixPath(name).name != name or name in ("", ".."):
            raise CorruptDataError(f"{self.path / METADATA} names the file {name!r}, which is not beside it.")
        if not isinstance(start, int) or not isinstance(length, int) or start < 0 or length < 0:
            raise CorruptDataError(f"{self.path / METADATA}: bytes {start!r} + {length!r} of {name} make no sense.")
        if info.get("transform_descriptors"):
            raise UnsupportedError(f"{self.path} was written with {info['transform_descriptors']!r}; only uncompressed folders are read.")
        return Span(file=name, start=start, length=length)

    def _check_size(self, name: str, needed: int) -> None:
        file = self.path / name
        try:
            size = file.stat().st_size
        except FileNotFoundError as error:
            raise CorruptDataError(f"{file} is missing from the checkpoint; load an older one, or copy the file again.") from error
        if size < needed:
            raise CorruptDataError(
                f"{file} has {size:,} bytes but should have {needed:,}; it was truncated. Load an older one, or copy it again."
            )

    def _entry(self, name: str, entry: Any) -> DcpTensor | Span:
        fields = _fields(entry)
        if "properties" not in fields:
            return self._stored(name, None)
        where = f"{self.path / METADATA}: {name!r}"
        shape = _ints(fields.get("size"), where)
        boxes = []
        for chunk in fields.get("chunks") or ():
            place = _fields(chunk)
            offset, size = _ints(place.get("offsets"), where), _ints(place.get("sizes"), where)
            if not len(offset) == len(size) == len(shape) or any(at + n > full for at, n, full in zip(offset, size, shape, strict=True)):
                raise CorruptDataError(f"{where} has a part at {offset} of size {size} outside its shape {shape}.")
            boxes.append(Box(offset=offset, size=size, span=self._stored(name, offset)))
        dtype = _dtype(fields["properties"])
        held = sum(math.prod(box.size) for box in boxes)
        if held != math.prod(shape) or any(box.span.length < math.prod(box.size) * dtype.itemsize for box in boxes):
            raise CorruptDataError(f"{where} has shape {shape} but its parts hold {held:,} elements.")
        return DcpTensor(self, name, dtype, shape, boxes)

    def _stored(self, name: str, offset: tuple[int, ...] | None) -> Span:
        span = self._spans.get((name, offset))
        if span is None:
            raise CorruptDataError(f"{self.path / METADATA} does not say where {name!r} lies.")
        return span


class _Node(dict[Any, Any]):
    """A dictionary of the saved tree; others are values."""


def is_dcp(path: Path) -> bool:
    """Return whether a folder was written by `torch.distributed.checkpoint`."""
    return os.path.isfile(path / METADATA)  # noqa: PTH113 - a broken link is no file either


def _fields(record: Any) -> Mapping[str, Any]:
    """Return the fields of a recorded dataclass."""
    state = record.state if isinstance(record, Opaque) else None
    if isinstance(state, tuple) and len(state) == 2:  # one with slots
        state = {**(state[0] or {}), **(state[1] or {})}
    return state if isinstance(state, Mapping) else {}


def _ints(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or any(type(item) is not int or item < 0 for item in value):
        raise CorruptDataError(f"{where} has {value!r} as a shape or place.")
    return tuple(value)


def _dtype(properties: Any) -> torch.dtype:
    state = properties.state if isinstance(properties, Opaque) else None
    dtype = state[0] if isinstance(state, tuple) and state else _fields(properties).get("dtype")
    if not isinstance(dtype, torch.dtype):
        raise CorruptDataError(f"{METADATA} has {dtype!r} as a dtype.")
    return dtype


def _with_lists(node: Any) -> Any:
    """Turn dictionaries with positions as keys back into the lists they were."""
    if not isinstance(node, _Node):
        return node
    inner = {key: _with_lists(value) for key, value in node.items()}
    if inner and all(type(key) is int for key in inner):
        return [inner[key] for key in sorted(inner)]
    return inner
