"""A large model for the claims about checkpoints, and how much memory something takes.

This file runs in the peers' environments too, so torch is imported inside.
"""

import resource
import sys
from pathlib import Path
from typing import Any

LAYERS = 8
BYTES_PER_NUMBER = 4


def stack(width: int, layers: int = LAYERS, rows: int | None = None) -> Any:
    """Return `layers` linear layers of `width`², every page of them in memory, without the time that initialisers take.

    Args:
        width: Numbers in and out of each.
        layers: How many.
        rows: Only so many of each layer's outputs.
    """
    import torch

    made = []
    for number in range(layers):
        layer = torch.nn.Linear(1, 1, bias=False)  # `skip_init` would import sympy, 40 MB of memory
        layer.in_features, layer.out_features = width, rows or width
        layer.weight = torch.nn.Parameter(torch.full((rows or width, width), (number + 1) / width))
        made.append(layer)
    return torch.nn.Sequential(*made)


def bytes_of_stack(width: int, layers: int = LAYERS) -> int:
    """Return how many bytes the parameters of `stack(width, layers)` hold."""
    return layers * width * width * BYTES_PER_NUMBER


def resident_bytes() -> int:
    """Return how much memory this process has now; where that is not known, the most it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_bytes()
    return pages * resource.getpagesize()


def peak_bytes() -> int:
    """Return the most memory this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
