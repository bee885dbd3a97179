"""`Mixture`: which of several sources comes at which position, as a pure function of quotas, seed and epoch.

Source i has an integer quota q and a phase u; its j-th pick has the key (j + u) / q, and the sequence is all keys in
order. So after any number of picks every source has had its share, to within a pick or two per source; and where a position
lies is found by bisection, without walking there. The key is one float64 function, used for finding and for walking
alike.

New weights begin a new *segment* at the first position that was not handed out: what each source had had until then is
kept as a base, and quotas and positions start anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, StateError
from leyden.data.philox import TAG_PHASE, raw

End = Literal["all", "shortest", "never"]
_PARTS = 2**32  # that weights are rounded to
_HALVINGS = 80


class Picks(NamedTuple):
    """Whose turn it is at some positions.

    Args:
        source: int32, the dataset.
        position: int64, the position within that dataset's own order.
        epoch: int64, the epoch of that dataset.
    """

    source: NDArray[np.int32]
    position: NDArray[np.int64]
    epoch: NDArray[np.int64]


class Turns(Protocol):
    """What says whose turn it is: a `Mixture`, or one of whole batches."""

    def rows_in(self, epoch: int) -> int:
        """Return how many positions an epoch has."""
        ...

    def picks(self, epoch: int, start: int, stop: int) -> Picks:
        """Return whose turn it is at positions `start` to `stop`, fewer at the end."""
        ...

    def known_from(self, epoch: int) -> int:
        """Return the position of an epoch from which on that is known."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the sequence with the same quotas.

    Args:
        epoch: The epoch that it began in; of a mixture that never ends always 1.
        position: Where it began.
        counts: What each source had had until then.
    """

    epoch: int = 0
    position: int = 0
    counts: tuple[int, ...] = ()


@final
class Mixture:
    """A sequence of sources.

    Args:
        sizes: How many positions each source has in an epoch.
        quotas: Of a period of Σ quotas picks, how many each source gets.
        seed: Of the phases.
        end: Whether an epoch ends when `all` are used up (the quotas are the sizes then), with the `shortest`, or `never`:
            sources begin anew.
        epoch_size: Positions of an epoch, at most.

    Raises:
        ConfigError: It would never end, and no `epoch_size` is given.

    Example:
        >>> mixture = Mixture([7, 3], [7, 3], seed=42, end="all")
        >>> sorted(mixture.picks(1, 0, 10).source.tolist()), mixture.rows_in(1)
        ([0, 0, 0, 0, 0, 0, 0, 1, 1, 1], 10)
    """

    def __init__(self, sizes: Sequence[int], quotas: Sequence[int], *, seed: int, end: End, epoch_size: int | None = None) -> None:
        if end == "never" and epoch_size is None:
            raise ConfigError("repeat=True has no end of its own: give epoch_size=…, the samples of an epoch.")
        self._sizes = np.array(sizes, np.int64)
        self._quotas = np.array(quotas, np.int64)
        self._seed, self._end, self._epoch_size = seed, end, epoch_size
        self._segment = Segment()
        self._seen: tuple[Any, ...] = ()  # the place where the last look ended: most looks begin there

    def rows_in(self, epoch: int) -> int:
        """Return how many positions an epoch has."""
        if self._end == "never":
            return self._epoch_size or 0
        rows = int(self._sizes.sum()) if self._end == "all" else self._until_one_ends(epoch)
        return rows if self._epoch_size is None else min(rows, self._epoch_size)

    def picks(self, epoch: int, start: int, stop: int) -> Picks:
        """Return whose turn it is at positions `start` to `stop`, fewer at the end.

        Raises:
            StateError: The position is before the last change of weights.
        """
        stop = min(stop, self.rows_in(epoch))
        epoch, first = self._place(epoch)
        base = self._base(epoch)
        if base.counts and start + first < base.position:
            raise StateError(
                f"position {start} lies before the weights were changed, at {base.position}: what came before is not known any more. "
                "Begin the epoch anew: reset()."
            )
        phases = self._phases(epoch)
        low = start + first - base.position
        counts = self._counts_at(epoch, phases, low)
        source, turn = walk(self._quotas, phases, counts, max(0, stop - start))
        self._seen = (epoch, base, low + len(source), counts + np.bincount(source, minlength=len(counts)))
        position = turn + np.array(base.counts or [0] * len(self._sizes), np.int64)[source]
        if self._end != "never":
            return Picks(source.astype(np.int32), position, np.full(len(source), epoch, np.int64))
        size = self._sizes[source]
        return Picks(source.astype(np.int32), position % size, 1 + position // size)

    def set_quotas(self, quotas: Sequence[int], epoch: int, position: int) -> None:
        """Let other quotas hold from a position on.

        Args:
            quotas: The new ones.
            epoch: The epoch that is at work.
            position: The first position in it that was not handed out.
        """
        epoch, first = self._place(epoch)
        position += first
        base = self._base(epoch)
        counts = self._counts_at(epoch, self._phases(epoch), position - base.position) + np.array(base.counts or [0] * len(self._sizes))
        self._segment = Segment(epoch, position, tuple(int(count) for count in counts))
        self._quotas = np.array(quotas, np.int64)
        self._seen = ()

    def begin(self, epoch: int) -> None:
        """Take note that an epoch is begun from its start: changes of weights within it are the rule from there."""
        own, first = self._place(epoch)
        if self._segment.epoch == own and self._segment.position > first:
            self._segment, self._seen = Segment(), ()

    def known_from(self, epoch: int) -> int:
        """Return the position of an epoch from which on it is known whose turn it is: where the weights were changed."""
        own, first = self._place(epoch)
        return max(0, self._base(own).position - first)

    def state(self) -> dict[str, Any]:
        """Return what was changed, and when, as JSON values."""
        segment = self._segment
        return {
            "seed": self._seed,
            "quotas": self._quotas.tolist(),
            "base": {"epoch": segment.epoch, "position": segment.position, "counts": list(segment.counts)},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on as a state says."""
        base = state["base"]
        self._seed, self._quotas = state["seed"], np.array(state["quotas"], np.int64)
        self._segment, self._seen = Segment(base["epoch"], base["position"], tuple(base["counts"])), ()

    def _place(self, epoch: int) -> tuple[int, int]:
        """Return of which sequence an epoch is a part, and where it begins there: what never ends is one sequence."""
        return (1, (epoch - 1) * (self._epoch_size or 0)) if self._end == "never" else (epoch, 0)

    def _base(self, epoch: int) -> Segment:
        return self._segment if self._segment.epoch == epoch else Segment()

    def _phases(self, epoch: int) -> NDArray[np.float64]:
        words = [int(raw(self._seed, TAG_PHASE, epoch, source, 1)[0]) for source in range(len(self._sizes))]
        return np.array([(word >> 11) * 2.0**-53 for word in words])

    def _counts_at(self, epoch: int, phases: NDArray[np.float64], position: int) -> NDArray[np.int64]:
        if self._seen and self._seen[:3] == (epoch, self._base(epoch), position):
            found: NDArray[np.int64] = self._seen[3]
            return found
        return seek(self._quotas, phases, position)

    def _until_one_ends(self, epoch: int) -> int:
        """Return the position of the first pick that a source has not."""
        base, phases = self._base(epoch), self._phases(epoch)
        left = self._sizes - np.array(base.counts or [0] * len(self._sizes), np.int64)
        drawn = np.flatnonzero(self._quotas)
        ends = key_of(left[drawn], phases[drawn], self._quotas[drawn])
        first = int(np.argmin(ends))  # of equal ones the first source's, as in the sequence
        before = counts_before(self._quotas, phases, float(ends[first]))
        ties = sum(int(end == ends[first]) for end in ends[:first])
        return base.position + int(before.sum()) + ties


@final
class BatchedMixture:
    """A mixture that picks one source for each global batch.

    Args:
        mixture: Of batches: its sizes are whole batches.
        size: Of a global batch.
    """

    def __init__(self, mixture: Mixture, size: int) -> None:
        self._mixture, self._size = mixture, size

    def rows_in(self, epoch: int) -> int:
        """Return how many positions an epoch has; whole batches."""
        return self._mixture.rows_in(epoch) * self._size

    def known_from(self, epoch: int) -> int:
        """Return the position of an epoch from which on it is known whose turn it is."""
        return self._mixture.known_from(epoch) * self._size

    def picks(self, epoch: int, start: int, stop: int) -> Picks:
        """Return whose turn it is at positions `start` to `stop`, fewer at the end."""
        size = self._size
        picks = self._mixture.picks(epoch, start // size, -(-stop // size))
        within = np.arange(len(picks.source) * size) % size
        skip, count = start % size, max(0, min(stop, self.rows_in(epoch)) - start)
        chosen = slice(skip, skip + count)
        position = np.repeat(picks.position, size) * size + within
        return Picks(np.repeat(picks.source, size)[chosen], position[chosen], np.repeat(picks.epoch, size)[chosen])


def quotas_of(weights: Sequence[float]) -> list[int]:
    """Return weights as whole numbers whose sum is about 2^32; one that is not zero stays above zero.

    Example:
        >>> [quota / 2**32 for quota in quotas_of([3, 1])]
        [0.75, 0.25]
    """
    total = sum(weights)
    return [max(1, round(weight * _PARTS / total)) if weight > 0 else 0 for weight in weights]


def key_of(turn: NDArray[np.int64], phase: NDArray[np.float64], quota: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the keys of picks: where they come in the sequence."""
    return (turn + phase) / quota


def counts_before(quotas: NDArray[np.int64], phases: NDArray[np.float64], time: float) -> NDArray[np.int64]:
    """Return how many picks of each source have a key below `time`."""
    counts = np.zeros(len(quotas), np.int64)
    drawn = np.flatnonzero(quotas)
    quota, phase = quotas[drawn], phases[drawn]
    found = np.ceil(time * quota - phase).astype(np.int64)  # to within rounding, which the key decides
    while (high := key_of(found - 1, phase, quota) >= time).any():
        found -= high
    while (low := key_of(found, phase, quota) < time).any():
        found += low
    counts[drawn] = found
    return counts


def seek(quotas: NDArray[np.int64], phases: NDArray[np.float64], position: int) -> NDArray[np.int64]:
    """Return how many picks each source has had when `position` picks were made; before the beginning they are negative."""
    total, sources = int(quotas.sum()), len(quotas)
    low, high = (position - sources - 1) / total, (position + sources + 1) / total
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if int(counts_before(quotas, phases, middle).sum()) <= position else (low, middle)
    counts = counts_before(quotas, phases, low)
    source, _ = walk(quotas, phases, counts, position - int(counts.sum()))
    return counts + np.bincount(source, minlength=sources)


def walk(
    quotas: NDArray[np.int64], phases: NDArray[np.float64], counts: NDArray[np.int64], picks: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the next picks after each source has had `counts`: whose they are, and how many it had before."""
    drawn = np.flatnonzero(quotas)
    room = np.minimum(picks * quotas[drawn] // int(quotas.sum()) + 2 * len(drawn) + 2, picks)
    source = np.repeat(drawn, room)
    turn = np.arange(len(source)) - np.repeat(np.cumsum(room) - room, room) + counts[source]
    order = np.lexsort((source, key_of(turn, phases[source], quotas[source])))[:picks]
    return source[order], turn[order]
