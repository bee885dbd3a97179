"""Ranks as threads of this process with an `all_gather` between them: what needs ranks but no process group."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Gather:
    """An `all_gather` for `ranks` threads, which fails where they pass tensors of different shapes.

    Args:
        ranks: How many threads take part.
    """

    def __init__(self, ranks: int) -> None:
        self._barrier = threading.Barrier(ranks, timeout=10.0)
        self._parts: list[Tensor | None] = [None] * ranks
        self.calls = 0

    def of_rank(self, rank: int) -> Callable[[Tensor, Any], Tensor]:
        def gather(tensor: Tensor, group: Any = None) -> Tensor:
            self._parts[rank] = tensor
            self._barrier.wait()
            parts = [part for part in self._parts if part is not None]
            assert len({(part.shape, part.dtype) for part in parts}) == 1, [part.shape for part in parts]
            self._barrier.wait()
            if rank == 0:
                self.calls += 1
            return torch.stack(parts)

        return gather


def on_ranks(ranks: int, function: Callable[[int, Callable[[Tensor, Any], Tensor]], T]) -> tuple[list[T | BaseException], int]:
    """Run `function(rank, all_gather)` in threads; return what they returned or raised, and the number of collectives."""
    gather = Gather(ranks)
    results: list[Any] = [None] * ranks

    def run(rank: int) -> None:
        try:
            results[rank] = function(rank, gather.of_rank(rank))
        except Exception as error:  # noqa: BLE001 - handed to the test
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60.0)
    return results, gather.calls
