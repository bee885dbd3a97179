"""`Region`: memory that two processes share by a file descriptor; and objects whose arrays lie in it.

A region has no name, so a killed process leaves nothing behind. A tray's arrays are gathered into it, or copied there; the
rest of the tray (its structure, and text) is pickled, into the region as well. Whoever unpacks it holds views of the region;
when the last of them dies, the region is free for another tray. So what a user keeps is never overwritten.
"""

import io
import mmap
import os
import pickle
import sys
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.read.row import torch_tensor

_STEP = 64  # bytes that arrays are aligned to
_LEAST = 1 << 16
_ROOM = 1.25  # how much larger a region is made than what needs it
_SMALL = 1 << 13  # bytes, up to which a pickle travels in the message
_BITS = {"torch.bfloat16": "int16", "torch.float8_e4m3fn": "uint8", "torch.float8_e5m2": "uint8"}

Span = tuple[int, int]  # offset and size


@final
class Region:
    """Shared memory.

    Args:
        fd: Of the file that it is; not closed here.
        size: In bytes.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self.memory = mmap.mmap(fd, size)
        self.address: int = np.frombuffer(self.memory, np.uint8).__array_interface__["data"][0]

    def view(self) -> NDArray[np.uint8]:
        """Return all of it as an array, which may be referred to weakly."""
        return np.frombuffer(self.memory, np.uint8)


def new_region(size: int) -> tuple[Region, int]:
    """Return a new region, and the file descriptor by which another process may have it; the caller closes that."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("leyden-data")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.truncate(fd, size)
        return Region(fd, size), fd
    except BaseException:
        os.close(fd)
        raise


@final
class RegionArena:
    """Hands out pieces of a region, one after another.

    Args:
        region: The region; `None` hands out nothing.
    """

    def __init__(self, region: Region | None) -> None:
        self.region = region
        self.used = 0

    def __call__(self, size: int) -> memoryview | None:
        """Return a piece, or `None` if it does not fit."""
        if self.region is None or self.used + size > self.region.size:
            return None
        start, self.used = self.used, aligned(self.used + size)
        return memoryview(self.region.memory)[start : start + size]


class Packed(NamedTuple):
    """Where an object lies in a region.

    Args:
        spans: Of its arrays.
        body: Its pickle, or where that lies.
    """

    spans: list[Span]
    body: "bytes | Span"


def pack(obj: Any, arena: RegionArena) -> tuple[Packed, Region, int | None]:
    """Put an object into a region: the arena's, or a new one if it does not fit.

    Args:
        obj: What to pack; arrays that lie in the arena's region already stay where they are.
        arena: Where there may be room.

    Returns:
        Where it lies, in which region, and the file descriptor of that if it is new.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(obj)
    body = stream.getbuffer()
    raws = [buffer.raw() for buffer in buffers]
    packed = _placed(raws, body, arena) if arena.region is not None else None
    if packed is not None and arena.region is not None:
        return packed, arena.region, None
    need = sum(aligned(raw.nbytes) for raw in raws) + aligned(body.nbytes)
    region, fd = new_region(max(_LEAST, int(need * _ROOM)))
    placed = _placed(raws, body, RegionArena(region))
    if placed is None:
        raise AssertionError("a new region is as large as what it was made for")
    return placed, region, fd


def _placed(raws: list[memoryview], body: memoryview, arena: RegionArena) -> Packed | None:
    region = arena.region
    if region is None:
        return None
    spans: list[Span] = []
    for raw in raws:
        span = _span_within(raw, region) or _copied(raw, arena)
        if span is None:
            return None
        spans.append(span)
    if body.nbytes <= _SMALL:
        return Packed(spans, bytes(body))
    where = _copied(body, arena)
    return None if where is None else Packed(spans, where)


def _span_within(raw: memoryview, region: Region) -> Span | None:
    if not raw.nbytes:
        return 0, 0
    offset = int(np.frombuffer(raw, np.uint8).__array_interface__["data"][0]) - region.address
    return (offset, raw.nbytes) if 0 <= offset < region.size else None


def _copied(raw: memoryview, arena: RegionArena) -> Span | None:
    piece = arena(raw.nbytes)
    if piece is None or arena.region is None:
        return None
    piece[:] = raw
    return arena.used - aligned(raw.nbytes), raw.nbytes


def unpack(packed: Packed, region: Region, release: Callable[[], None]) -> "tuple[Any, weakref.ref[NDArray[np.uint8]]]":
    """Return the object, and what must be kept for `release` to be called when its last array is gone.

    Args:
        packed: Where it lies.
        region: In which region.
        release: Called when the region may be used again.
    """
    root = region.view()
    lease = weakref.ref(root, lambda _: release())
    buffers = [root[start : start + size] for start, size in packed.spans]
    body = packed.body if isinstance(packed.body, bytes) else root[packed.body[0] : sum(packed.body)].data
    return pickle.loads(body, buffers=buffers), lease  # noqa: S301 - from our own process


class _Pickler(pickle.Pickler):
    """Pickles CPU tensors as arrays, so that their memory lies in the region too."""

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(obj) is not torch.Tensor or not _is_plain(obj, torch):
            return NotImplemented
        bits = _BITS.get(str(obj.dtype))
        array = (obj if bits is None else obj.view(getattr(torch, bits))).contiguous().numpy()
        return _tensor, (array, str(obj.dtype).removeprefix("torch."))


def _is_plain(tensor: Any, torch: Any) -> bool:
    return bool(
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.requires_grad
        and not tensor.is_nested
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _tensor(array: NDArray[Any], dtype: str) -> Any:
    bits = _BITS.get(f"torch.{dtype}")
    return torch_tensor(array, dtype if bits else "")


def aligned(size: int) -> int:
    """Return the next multiple of 64.

    Example:
        >>> aligned(65)
        128
    """
    return -(-size // _STEP) * _STEP
