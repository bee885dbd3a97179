"""`Draws`: the states of the process's CPU generators, noted cheaply and put into plain values only where they are kept.

`rng.capture` builds what a checkpoint holds (220 µs); a loader of unknown length needs a note before every batch (55 µs).
"""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from leyden.fabric import rng


class Draws:
    """Where the generators stood.

    Args:
        packed: What `packed` returned; without it, where they stand now.

    Example:
        >>> draws = Draws()
        >>> first = torch.rand(())
        >>> with draws.again():
        ...     bool(torch.rand(()) == first)
        True
    """

    __slots__ = ("_numpy", "_packed", "_python", "_torch")

    def __init__(self, packed: dict[str, Any] | None = None) -> None:
        self._packed = packed
        if packed is None:
            self._torch, self._python = torch.get_rng_state(), random.getstate()
            numpy = sys.modules.get("numpy")
            self._numpy = None if numpy is None else numpy.random.get_state()

    def packed(self) -> dict[str, Any]:
        """Return them as tensors and plain values."""
        if self._packed is None:
            with self.again():
                self._packed = rng.capture()
        return self._packed

    @contextmanager
    def again(self) -> Iterator[None]:
        """Let the process draw from there in the block, and go on afterwards as if it had not."""
        with rng.isolate_rng(include_cuda=False):
            if self._packed is not None:
                rng.restore(self._packed)
            else:
                torch.set_rng_state(self._torch)
                random.setstate(self._python)
                if self._numpy is not None:
                    sys.modules["numpy"].random.set_state(self._numpy)
            yield
