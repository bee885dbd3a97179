"""The theoretical peaks of chips, read from `flops.toml`."""

import functools
import re
from pathlib import Path
from typing import Any

import torch

_WORD = re.compile(r"[a-z0-9]+")


def chip_peak(name: str, dtype: torch.dtype, *, is_tf32: bool = False) -> float | None:
    """Return a chip's dense peak in FLOP/s, or `None` if the chip or its dtype is not in the table.

    Args:
        name: What the driver calls the device, such as `"NVIDIA A100-SXM4-80GB"`.
        dtype: The type that products are computed in.
        is_tf32: Whether products of float32 are computed in TF32.

    Example:
        >>> chip_peak("NVIDIA A100-SXM4-80GB", torch.bfloat16)
        312000000000000.0
    """
    words = _words(name)
    matches = [(len(pattern), peaks) for pattern, peaks in _chips() if _is_in(pattern, words)]
    if not matches:
        return None
    peaks = max(matches, key=lambda match: match[0])[1]
    key = str(dtype).removeprefix("torch.")
    peak = peaks.get("tf32") if is_tf32 and dtype == torch.float32 else None
    return peak or peaks.get(key)


def has_tf32() -> bool:
    """Return whether products of float32 on CUDA devices are computed in TF32 now."""
    matmul: Any = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        return torch.get_float32_matmul_precision() != "highest"
    # torch 2.9 and newer; asking in the old way warns where it was set in the new one.
    inherited = getattr(torch.backends, "fp32_precision", "none")
    return (inherited if matmul.fp32_precision == "none" else matmul.fp32_precision) == "tf32"


@functools.cache
def _chips() -> tuple[tuple[tuple[str, ...], dict[str, float]], ...]:
    import tomllib  # part of `import leyden.fabric` otherwise, for a table that few runs look at

    with Path(__file__).with_name("flops.toml").open("rb") as file:
        table = tomllib.load(file)
    return tuple(
        (_words(name), {key: float(value) * 1e12 for key, value in row.items() if key != "names"})
        for row in table.values()
        for name in row["names"]
    )


def _words(name: str) -> tuple[str, ...]:
    # "A100-SXM4-80GB" → a100 sxm4 80gb; "MI250X/MI250" → both
    return tuple(_WORD.findall(name.lower()))


def _is_in(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    return any(words[start : start + len(pattern)] == pattern for start in range(len(words) - len(pattern) + 1))
