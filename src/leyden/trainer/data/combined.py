"""`CombinedLoader`: several loaders iterated as one, in one of four modes.

| mode | each step yields | ends |
|---|---|---|
| `min_size` | a batch of every loader | with the shortest |
| `max_size_cycle` | a batch of every loader, shorter ones begin again | with the longest |
| `max_size` | a batch of every loader, `None` for those at their end | with the longest |
| `sequential` | a batch of one loader, one loader after the other | with the last |

The rules are functions over lanes (`rows`, `combined_length`), because a run iterates lanes that it can resume.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, closest, listed
from leyden.trainer.data.collections import filled, flattened, mapped
from leyden.trainer.data.lane import END, Lane

Mode = Literal["min_size", "max_size_cycle", "max_size", "sequential"]
MODES: tuple[str, ...] = get_args(Mode)


def combined_length(mode: str, lengths: Sequence[float]) -> float:
    """Return how many steps loaders of these lengths make together; infinite where nobody knows.

    Example:
        >>> combined_length("min_size", [3, 5]), combined_length("max_size", [3, 5]), combined_length("sequential", [3, 5])
        (3, 5, 8)
    """
    if not lengths:
        return 0
    if mode == "sequential":
        return sum(lengths)
    return min(lengths) if mode == "min_size" else max(lengths)


def sure_length(mode: str, lengths: Sequence[float]) -> float:
    """Return how many steps there are for sure: infinite also where a loader of unknown length may be the first to end.

    Example:
        >>> combined_length("min_size", [3, math.inf]), sure_length("min_size", [3, math.inf])
        (3, inf)
    """
    return math.inf if math.inf in lengths else combined_length(mode, lengths)


def rows(mode: str, lanes: Sequence[Lane]) -> Iterator[list[Any]]:
    """Yield a list of one batch per lane, by the rule of a mode other than `sequential`. All state is in the lanes."""
    return _ROWS[mode](lanes)


def _min_size(lanes: Sequence[Lane]) -> Iterator[list[Any]]:
    while True:
        row = []
        for lane in lanes:
            item = END if lane.is_exhausted else lane.take()
            if item is END:
                return
            row.append(item)
        yield row


def _max_size_cycle(lanes: Sequence[Lane]) -> Iterator[list[Any]]:
    while True:
        row = [lane.take() for lane in lanes]
        if all(lane.is_exhausted for lane in lanes):  # asked before any begins again: that would draw random numbers
            return
        for position, lane in enumerate(lanes):
            if row[position] is END:
                row[position] = _again(lane)
        yield row


def _again(lane: Lane) -> Any:
    lane.begin()
    item = lane.take()
    if item is END:
        raise ConfigError(
            f"{lane.name} has no batches, so mode='max_size_cycle' has nothing to repeat. Leave it out, or use mode='max_size'."
        )
    return item


def _max_size(lanes: Sequence[Lane]) -> Iterator[list[Any]]:
    while True:
        row: list[Any] = []
        for lane in lanes:
            item = END if lane.is_exhausted else lane.take()
            row.append(None if item is END else item)
        if all(lane.is_exhausted for lane in lanes):
            return
        yield row


_ROWS: dict[str, Callable[[Sequence[Lane]], Iterator[list[Any]]]] = {
    "min_size": _min_size,
    "max_size_cycle": _max_size_cycle,
    "max_size": _max_size,
}


class CombinedLoader:
    """Iterate several loaders as one; yields `(batch, batch_idx, dataloader_idx)`.

    The batch has the shape of the collection; in `sequential` it is one loader's. Each `iter` begins anew.

    Args:
        iterables: A loader, or a list or mapping of them, nested as you like.
        mode: `min_size`, `max_size_cycle`, `max_size` or `sequential`.

    Raises:
        ConfigError: An unknown mode.

    Example:
        >>> loader = CombinedLoader({"a": range(3), "b": range(10, 12)}, "max_size_cycle")
        >>> [batch for batch, batch_idx, dataloader_idx in loader]
        [{'a': 0, 'b': 10}, {'a': 1, 'b': 11}, {'a': 2, 'b': 10}]
    """

    def __init__(self, iterables: Any, mode: Mode = "min_size") -> None:
        if mode not in MODES:
            raise ConfigError(f"Unsupported mode {mode!r}; please select one of {listed(MODES)}.{closest(str(mode), MODES)}")
        self._iterables = iterables
        self._flattened = flattened(iterables)
        self._mode: Mode = mode
        self._limits: list[float] | None = None
        self._lanes: list[Lane] | None = None
        self._steps: Iterator[tuple[Any, int, int]] | None = None

    @property
    def mode(self) -> Mode:
        """The mode."""
        return self._mode

    @property
    def iterables(self) -> Any:
        """The collection of loaders."""
        return self._iterables

    @property
    def flattened(self) -> list[Any]:
        """The loaders, in order. Set it to replace them, in the same shape."""
        return self._flattened

    @flattened.setter
    def flattened(self, flattened: list[Any]) -> None:
        if len(flattened) != len(self._flattened):
            raise ConfigError(
                f"Mismatch in flattened length ({len(flattened)}) and existing length ({len(self._flattened)}): pass one loader for each."
            )
        self._iterables = filled(self._iterables, flattened)
        self._flattened = list(flattened)
        self.reset()

    @property
    def limits(self) -> list[float] | None:
        """After how many batches each loader counts as at its end; set a number for all of them, a list or `None`."""
        return self._limits

    @limits.setter
    def limits(self, limits: float | Sequence[float] | None) -> None:
        if isinstance(limits, (int, float)):
            limits = [limits] * len(self._flattened)
        elif limits is not None and len(limits) != len(self._flattened):
            raise ConfigError(
                f"Mismatch in number of limits ({len(limits)}) and number of iterables ({len(self._flattened)}): pass one limit for each."
            )
        self._limits = None if limits is None else list(limits)
        self.reset()

    @property
    def sampler(self) -> Any:
        """The loaders' samplers, in the shape of the collection."""
        return mapped(self._iterables, lambda loader: getattr(loader, "sampler", None))

    @property
    def batch_sampler(self) -> Any:
        """The loaders' batch samplers, in the shape of the collection."""
        return mapped(self._iterables, lambda loader: getattr(loader, "batch_sampler", None))

    def reset(self) -> None:
        """Let go of the iterators, and with them of worker processes; `len` asks for `iter` again."""
        for lane in self._lanes or ():
            lane.close()
        self._lanes = self._steps = None

    def __iter__(self) -> "CombinedLoader":
        self.reset()
        limits = self._limits or [math.inf] * len(self._flattened)
        self._lanes = [
            Lane(loader, limit=limit, name=f"loader {position}")
            for position, (loader, limit) in enumerate(zip(self._flattened, limits, strict=True))
        ]
        self._steps = self._sequence(self._lanes) if self._mode == "sequential" else self._together(self._lanes)
        return self

    def __next__(self) -> tuple[Any, int, int]:
        if self._steps is None:
            raise StateError("Please call `iter(combined_loader)` first.")
        return next(self._steps)

    def __len__(self) -> int:
        if self._lanes is None:
            raise StateError("Please call `iter(combined_loader)` first.")
        length = combined_length(self._mode, [lane.length for lane in self._lanes])
        if math.isinf(length):
            raise ConfigTypeError(f"The length of this CombinedLoader is not known: mode={self._mode!r} and a loader without a length.")
        return int(length)

    def _together(self, lanes: list[Lane]) -> Iterator[tuple[Any, int, int]]:
        if lanes:
            for batch_idx, row in enumerate(rows(self._mode, lanes)):
                yield filled(self._iterables, row), batch_idx, 0

    def _sequence(self, lanes: list[Lane]) -> Iterator[tuple[Any, int, int]]:
        for dataloader_idx, lane in enumerate(lanes):
            for batch_idx, batch in enumerate(iter(lane.take, END)):
                yield batch, batch_idx, dataloader_idx
            lane.close()
