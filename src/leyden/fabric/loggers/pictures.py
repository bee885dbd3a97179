"""Tensors as pictures and histograms, for event files: a PNG encoder and TensorBoard's exponential buckets."""

import functools
import itertools
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import ConfigError
from leyden.fabric.loggers.event_file import Histogram

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels → PNG's colour type


def png(pixels: Tensor) -> bytes:
    """Return a PNG file.

    Args:
        pixels: Bytes as uint8; shape (height, width, channels) with 1 to 4 channels: grey, grey + alpha, RGB, RGBA.
    """
    height, width, channels = pixels.shape
    lines = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), pixels.reshape(height, -1)], dim=1)  # 0: a line without filter
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    data = zlib.compress(lines.contiguous().numpy().tobytes(), level=6)
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")))


def pixels_of(picture: Any, dataformats: str) -> Tensor:
    """Return a picture as uint8 (height, width, channels).

    Args:
        picture: A tensor or array; floats lie in [0, 1], integers in [0, 255].
        dataformats: The meaning of its axes: `C`, `H`, `W` in any order; `C` may be absent.

    Raises:
        ConfigError: The axes or the number of channels do not fit.
    """
    tensor = torch.as_tensor(picture).detach().cpu()
    axes = dataformats.upper()
    if sorted(axes.replace("C", "")) != ["H", "W"] or len(axes) != tensor.ndim:
        raise ConfigError(f"a picture of shape {tuple(tensor.shape)} does not fit dataformats={dataformats!r}. Use 'CHW', 'HWC' or 'HW'.")
    if "C" not in axes:
        tensor, axes = tensor.unsqueeze(-1), axes + "C"
    tensor = tensor.permute([axes.index(axis) for axis in "HWC"])
    if tensor.shape[-1] not in _COLOR_TYPES:
        raise ConfigError(
            f"a picture has 1 to 4 channels, not {tensor.shape[-1]} (shape {tuple(tensor.shape)} as height, width, channels)."
        )
    if tensor.is_floating_point():
        tensor = tensor.float().nan_to_num().mul(255)
    return tensor.clamp(0, 255).to(torch.uint8)


def histogram_of(values: Tensor, bins: str | int | Sequence[float] = "tensorflow", max_bins: int | None = None) -> Histogram:
    """Return the histogram of finite values.

    Args:
        values: Any shape.
        bins: `"tensorflow"` for buckets that grow by 10 %, a number of equal buckets, or their edges.
        max_bins: Neighbouring buckets are joined until at most so many are left.

    Raises:
        ConfigError: No finite value, or unknown `bins`.
    """
    flat = values.detach().flatten().double()
    flat = flat[flat.isfinite()]
    if flat.numel() == 0:
        raise ConfigError("a histogram needs at least one finite value.")
    low, high = float(flat.min()), float(flat.max())
    edges = _edges(bins, low, high)
    # Bucket i holds edges[i - 1] < value <= edges[i]; what lies beyond the edges goes into the outermost buckets.
    counts = torch.bincount(torch.bucketize(flat, torch.tensor(edges, dtype=torch.float64)).clamp(max=len(edges) - 1), minlength=len(edges))
    filled = counts.nonzero().flatten()
    first, last = max(int(filled[0]) - 1, 0), int(filled[-1]) + 1  # an empty bucket before gives the first its left edge
    limits, kept = edges[first:last], counts[first:last].tolist()
    if max_bins is not None and len(kept) > max_bins:
        size = math.ceil(len(kept) / max(max_bins, 1))
        kept = [sum(kept[start : start + size]) for start in range(0, len(kept), size)]
        limits = [limits[min(start + size, len(limits)) - 1] for start in range(0, len(limits), size)]
    return Histogram(limits, kept, low, high, float(flat.sum()), float(flat.square().sum()))


def _edges(bins: str | int | Sequence[float], low: float, high: float) -> list[float]:
    if isinstance(bins, str):
        if bins != "tensorflow":
            raise ConfigError(f"bins={bins!r} is not known. Use 'tensorflow', a number of buckets, or their edges.")
        return list(_exponential())
    if isinstance(bins, int):
        if bins < 1:
            raise ConfigError(f"bins={bins} should be at least 1.")
        return torch.linspace(low, high if high > low else low + 1.0, bins + 1, dtype=torch.float64).tolist()
    return sorted(float(edge) for edge in bins)


@functools.cache
def _exponential() -> tuple[float, ...]:
    positive = list(
        itertools.takewhile(lambda edge: edge < 1e20, itertools.accumulate(itertools.repeat(1.1), lambda a, b: a * b, initial=1e-12))
    )
    return (*(-edge for edge in reversed(positive)), 0.0, *positive, 1.7e308)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
