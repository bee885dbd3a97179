"""Loaders on loan to a trial: handed out as the run would get them, and given back as if nobody had read from them.

What a trial can move is what a loader holds outside of the pass over it: generators of its own, the position of a loader
or dataset that keeps one. The process's random numbers are the trial's business.
"""

from collections.abc import Iterable
from typing import Any

from leyden.core.errors import ConfigError
from leyden.fabric.loading import replay
from leyden.trainer.data.combined import CombinedLoader
from leyden.trainer.data.sources import Source, combined

_PARTS = ("sampler", "batch_sampler", "dataset")


class BorrowedSource(Source):
    """The source of a trial's loaders.

    Args:
        source: The run's.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source.fn, source.model, source.datamodule, source._given)
        self._kept: list[tuple[list[Any], dict[str, Any], list[tuple[Any, Any]]]] = []

    def load(self, stage: str) -> CombinedLoader:
        """Return the loaders of a stage, after noting where they stand.

        Raises:
            ConfigError: One of them can be read only once, so a trial would use it up.
        """
        loaders = combined(self.raw(stage), stage)
        for loader in loaders.flattened:
            if hasattr(loader, "__next__"):
                raise ConfigError(
                    f"The {stage} loader is an iterator ({type(loader).__name__}), which can be read only once: a trial would use it up. "
                    "Pass what it iterates, such as a DataLoader or a list of batches."
                )
            self._keep(loader)
        return loaders

    def give_back(self) -> None:
        """Put every loader back to where it stood."""
        for generators, state, positions in reversed(self._kept):  # the earliest note of a loader counts
            for part, position in positions:
                part.load_state_dict(position)
            replay.restore(generators, state)
        self._kept.clear()

    def _keep(self, loader: Any) -> None:
        parts = [loader, *parts_of(loader)]
        generators = replay.own_generators(parts)
        state = replay.capture(generators, process=False)
        positions = [(part, part.state_dict()) for part in parts if _keeps_place(part)]
        self._kept.append((generators, state, positions))


def parts_of(loader: Any) -> list[Any]:
    """Return sampler, batch sampler and dataset of a loader, as far as it has them, each once, and samplers inside them."""
    found: list[Any] = []
    pending: list[Any] = [getattr(loader, name, None) for name in _PARTS]
    while pending:
        part = pending.pop(0)
        if part is not None and not any(part is other for other in found):
            found.append(part)
            pending.append(getattr(part, "sampler", None))
    return found


def _keeps_place(part: Any) -> bool:
    return all(callable(getattr(part, name, None)) for name in ("state_dict", "load_state_dict"))


def num_samples(loaders: Iterable[Any]) -> int | None:
    """Return how many samples the largest of the loaders' datasets has; `None` where one does not say.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> num_samples([DataLoader(range(10)), DataLoader(range(30))]), num_samples([iter([])])
        (30, None)
    """
    sizes = [_length(getattr(loader, "dataset", None)) for loader in loaders]
    known = [size for size in sizes if size is not None]
    return max(known) if known and len(known) == len(sizes) else None


def batch_sizes(loaders: Iterable[Any]) -> list[int]:
    """Return the batch size of each loader that says one.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> batch_sizes([DataLoader(range(10), batch_size=4), [1, 2]])
        [4]
    """
    sizes = [
        getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None) for loader in loaders
    ]
    return [size for size in sizes if isinstance(size, int)]


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None
