"""Reducing logged values over ranks: everything that is due travels in one vector, one `all_gather` for each process group.

The vector begins with a hash and a count of the names, so ranks that logged different names find out from the collective
they are in anyway, and then exchange the names for the error. Its capacity is padded and grows only when a header that all
ranks have seen says so; thus the shapes of one gather never differ between ranks.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import StateError
from leyden.trainer.metrics.options import Reduce
from leyden.trainer.metrics.slot import Slot, Value

AllGather = Callable[[Tensor, Any], Tensor]
"""Takes a tensor of shape `(n,)` and a process group (`None`: all ranks) and returns one of shape `(ranks, n)`."""

_HEADER = 2
_FIRST_CAPACITY = 14


@dataclass(frozen=True, slots=True)
class Part:
    """One value to be reduced.

    Args:
        slot: Whose value it is.
        value: This rank's value, or its sum where `weight` is given.
        weight: What the sum is divided by.
        reduce: How the ranks' values become one.
    """

    slot: Slot
    value: Value
    weight: float | None
    reduce: Reduce

    @property
    def key(self) -> str:
        """What must be the same on all ranks."""
        loader = "" if self.slot.loader is None else f" of loader {self.slot.loader}"
        return f"{self.slot.name!r} ({self.slot.hook}{loader})"

    @property
    def identity(self) -> str:
        """What must be the same on all ranks, besides."""
        return f"{self.key} {self.reduce} {self.weight is None}"

    @property
    def order(self) -> tuple[str, str, int]:
        """By what parts are sorted."""
        return (self.slot.hook, self.slot.name, -1 if self.slot.loader is None else self.slot.loader)


class Sync:
    """Reduces over ranks.

    Args:
        all_gather: The collective.
        device: Where the vector lies.
    """

    def __init__(self, all_gather: AllGather, device: torch.device) -> None:
        self._all_gather = all_gather
        self._device = device
        self._capacities: dict[Any, int] = {}

    def reduce(self, parts: Sequence[Part], group: Any = None) -> list[tuple[Slot, float]]:
        """Return each part's slot with the value of all ranks. A collective: every rank of the group must call it.

        Raises:
            StateError: Some ranks have other parts than the others.
        """
        parts = sorted(parts, key=lambda part: part.order)
        numbers: list[Value] = []
        for part in parts:
            numbers.append(part.value)
            if part.weight is not None:
                numbers.append(part.weight)
        ranks = self._exchange(parts, numbers, group)
        reduced: list[tuple[Slot, float]] = []
        index = 0
        for part in parts:
            column = [numbers[index] for numbers in ranks]
            if part.weight is None:
                reduced.append((part.slot, _combined(column, part.reduce)))
                index += 1
            else:
                weight = sum(numbers[index + 1] for numbers in ranks)
                reduced.append((part.slot, sum(column) / weight if weight else math.nan))
                index += 2
        return reduced

    def _exchange(self, parts: list[Part], numbers: list[Value], group: Any) -> list[list[float]]:
        header = [_fingerprint([part.identity for part in parts]), float(len(numbers))]
        while True:
            capacity = self._capacities.get(group, _FIRST_CAPACITY)
            rows = self._gathered(self._vector(header, numbers, capacity), group)
            if any(row[:_HEADER] != header for row in rows):
                raise _differing(self._all_keys([part.key for part in parts], group))
            if len(numbers) <= capacity:
                return [row[_HEADER : _HEADER + len(numbers)] for row in rows]
            self._capacities[group] = 2 * len(numbers)  # on all ranks alike: the headers are the same

    def _vector(self, header: list[float], numbers: list[Value], capacity: int) -> Tensor:
        numbers = numbers[:capacity]
        host = header + [number if isinstance(number, float) else 0.0 for number in numbers] + [0.0] * (capacity - len(numbers))
        vector = torch.tensor(host, dtype=torch.float64, device=self._device)
        places = [_HEADER + index for index, number in enumerate(numbers) if isinstance(number, Tensor)]
        if places:
            values = [number.detach().reshape(()).to(self._device, torch.float64) for number in numbers if isinstance(number, Tensor)]
            vector[places] = torch.stack(values)
        return vector

    def _gathered(self, vector: Tensor, group: Any) -> list[list[Any]]:
        rows = self._all_gather(vector, group)
        return rows.reshape(-1, len(vector)).tolist()  # a group of one rank gives the vector back as it is

    def _all_keys(self, keys: list[str], group: Any) -> list[set[str]]:
        text = "\n".join(keys).encode()
        lengths = [int(row[0]) for row in self._gathered(torch.tensor([len(text)], device=self._device), group)]
        padded = list(text.ljust(max(lengths), b"\n"))
        rows = self._gathered(torch.tensor(padded, dtype=torch.uint8, device=self._device), group)
        return [set(bytes(row).decode().split("\n")) - {""} for row in rows]


def _combined(column: list[float], reduce: Reduce) -> float:
    if reduce == "mean":
        return sum(column) / len(column)
    if reduce == "sum":
        return sum(column)
    if any(math.isnan(value) for value in column):
        return math.nan
    return max(column) if reduce == "max" else min(column)


def _fingerprint(keys: list[str]) -> float:
    digest = hashlib.blake2b("\n".join(keys).encode(), digest_size=6).digest()
    return float(int.from_bytes(digest))  # 48 bits: exact in a float64


def _differing(ranks: list[set[str]]) -> StateError:
    everywhere = set.intersection(*ranks)
    names = sorted(set.union(*ranks) - everywhere)
    told = ", ".join(f"{name} only by ranks {[rank for rank, keys in enumerate(ranks) if name in keys]}" for name in names)
    return StateError(
        f"`self.log(..., sync_dist=True)` must be called with the same names on all {len(ranks)} ranks, but since the epoch began there "
        f"was logged {told or 'the same in another way'}. Log them on every rank, or with sync_dist=False or rank_zero_only=True."
    )
