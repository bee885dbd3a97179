"""The generators' states at an epoch's start, so that what was drawn from them can be drawn again.

Counted in are the process's own generators and those that the sampler or loader holds in an attribute (torch's, numpy's,
`random`'s), since a checkpoint's process state does not cover these.
"""

from collections.abc import Iterable
from typing import Any

from leyden.fabric import rng


def own_generators(parts: Iterable[Any]) -> list[Any]:
    """Return the generators that these objects hold in attributes, each once, in order."""
    values = [value for part in parts for value in getattr(part, "__dict__", {}).values()]
    return list({id(value): value for value in values if rng.is_generator(value)}.values())


def capture(generators: list[Any], *, process: bool) -> dict[str, Any]:
    """Return the states of `generators`, and of the process's own if `process`."""
    return {
        "process": rng.capture() if process else None,
        "generators": [rng.capture_generator(generator) for generator in generators],
    }


def restore(generators: list[Any], state: dict[str, Any]) -> None:
    """Set everything to what `capture` returned."""
    if state["process"] is not None:
        rng.restore(state["process"])
    for generator, kept in zip(generators, state["generators"], strict=False):
        rng.restore_generator(generator, kept)


class Rewind:
    """A stretch of time in which the process's generators do what they did at an epoch's start, and none of it counts.

    Building an iterator draws from them. The interrupted run had done that before it was saved, so in the resumed one it
    must leave no trace. Generators of the sampler's own are set back too, and do count: they end where they were.

    Args:
        generators: The sampler's own.
        start: What `capture` returned at the epoch's start; `None` leaves all as they are, and still undoes.
    """

    def __init__(self, generators: list[Any], start: dict[str, Any] | None) -> None:
        self._generators = generators
        self._start = start
        self._present: dict[str, Any] | None = None

    def enter(self) -> None:
        """Go back; a second call changes nothing (with workers, a `DataLoader` asks its sampler twice for an iterator)."""
        if self._present is not None:
            return
        self._present = rng.capture()
        if self._start is not None:
            restore(self._generators, self._start)

    def leave(self) -> None:
        """Come back, if not done yet."""
        present, self._present = self._present, None
        if present is not None:
            rng.restore(present)
