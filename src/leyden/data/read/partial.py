"""`Partial`: a block of which some parts are known, as long as the whole one, so that everything reads it like that."""

import mmap
import os
from typing import final


@final
class Partial:
    """Memory in which what was not put reads as zeros, and costs nothing: pages that nobody touched.

    Args:
        size: Of the whole block, in bytes.

    Example:
        >>> block = Partial(1_000_000)
        >>> block.put(500, b"known")
        >>> bytes(block.view[500:505]), sum(block.view[505:600]), len(block), block.held_bytes
        (b'known', 0, 1000000, 5)
    """

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size)
        self._spans: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._memory)

    @property
    def view(self) -> memoryview:
        """The whole block; read only."""
        return memoryview(self._memory).toreadonly()

    @property
    def held_bytes(self) -> int:
        """How much is known."""
        return sum(length for _, length in self._spans)

    def put(self, start: int, data: bytes) -> None:
        """Take note of a part."""
        self._memory[start : start + len(data)] = data
        self._spans.append((start, len(data)))

    def write(self, descriptor: int) -> None:
        """Write an empty file that has holes where nothing is known."""
        os.ftruncate(descriptor, len(self))
        for start, length in self._spans:
            with memoryview(self._memory)[start : start + length] as left:
                done = 0
                while done < length:
                    done += os.pwrite(descriptor, left[done:], start + done)
