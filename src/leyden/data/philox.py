"""Random numbers that depend on their place alone: raw words of Philox, permutations made by sorting them, generators for samples.

numpy may change how its generators turn words into numbers; the words themselves are fixed by the algorithm
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). So orders use words and sorting only.
"""

import importlib
import random
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

TAG_PIECES, TAG_WINDOW, TAG_PHASE, TAG_SAMPLE, TAG_SPLIT, TAG_SUBSAMPLE, TAG_ZIP = range(1, 8)
_WORD = 1 << 64


def raw(seed: int, tag: int, a: int, b: int, n: int) -> NDArray[np.uint64]:
    """Return n words of 64 bits.

    Args:
        seed: Any whole number.
        tag: What they are for, one of `TAG_…`.
        a: The first coordinate.
        b: The second one.
        n: How many.
    """
    return _philox(seed, tag, a, b).random_raw(n)


def perm(seed: int, tag: int, a: int, b: int, n: int) -> NDArray[np.int64]:
    """Return a permutation of 0 … n - 1.

    Args:
        seed: Any whole number.
        tag: What it is for.
        a: The first coordinate.
        b: The second one.
        n: How many.

    Example:
        >>> perm(42, 1, 1, 0, 10).tolist()
        [6, 4, 3, 2, 8, 1, 7, 0, 5, 9]
    """
    if n < 2:
        return np.arange(n, dtype=np.int64)
    mask = np.uint64((1 << (n - 1).bit_length()) - 1)
    keys = raw(seed, tag, a, b, n) & ~mask | np.arange(n, dtype=np.uint64)
    keys.sort()
    return (keys & mask).astype(np.int64)


def _philox(seed: int, tag: int, a: int, b: int) -> np.random.Philox:
    counter = np.array([0, a % _WORD, b % _WORD, 0], np.uint64)
    return np.random.Philox(key=np.array([seed % _WORD, tag], np.uint64), counter=counter)


@final
class SampleRng:
    """Random generators of one sample: the same whichever process draws, on any number of ranks and workers.

    Args:
        seed: The dataset's.
        epoch: The epoch.
        row: The sample's stored row.
        copy: The number of its copy, where samples are repeated.
        tag: What it is for.

    Example:
        >>> int(SampleRng(42, 1, 7, 0).numpy.integers(100)) == int(SampleRng(42, 1, 7, 0).numpy.integers(100))
        True
    """

    def __init__(self, seed: int, epoch: int, row: int, copy: int = 0, *, tag: int = TAG_SAMPLE) -> None:
        self._place = seed, tag, row, (epoch << 16) + copy

    @cached_property
    def numpy(self) -> np.random.Generator:
        """A generator of numpy."""
        return np.random.Generator(_philox(*self._place))

    @cached_property
    def seed(self) -> int:
        """A number of 64 bits, for any other generator."""
        return int(raw(*self._place, 1)[0])

    @cached_property
    def python(self) -> random.Random:
        """A generator of the standard library."""
        return random.Random(self.seed)  # noqa: S311 - not for secrets

    @cached_property
    def torch(self) -> Any:
        """A generator of torch, on the CPU."""
        return importlib.import_module("torch").Generator().manual_seed(self.seed)
