"""`Lane`: one loader of a feed, the pass that runs over it, and where that stands.

What a lane's state says is the batch that was **consumed**, although a batch more may have been fetched, to know
whether one comes: the state is kept from before that fetch, with the random numbers it was fetched under.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from leyden.core.errors import ConfigError, StateError
from leyden.trainer.data.draws import Draws

END = object()
"""What `take` returns where a loader has nothing more."""


def sized(loader: Any) -> int | None:
    """Return the length of a loader; `None` where it has none.

    Example:
        >>> sized([1, 2]), sized(iter([1, 2]))
        (2, None)
    """
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


class Lane:
    """A loader and the pass over it.

    Args:
        loader: What to iterate. Its state is kept if it has `state_dict` and `load_state_dict`.
        limit: After how many batches a pass ends at the latest.
        name: How messages call it, such as `train.0`.
    """

    per_rank: ClassVar[bool] = True
    """A checkpoint keeps one state per rank."""

    __slots__ = ("_drop", "_kept", "_reopen", "_under", "count", "is_exhausted", "is_over", "iterator", "limit", "loader", "name", "taken")

    def __init__(self, loader: Any, *, limit: float = math.inf, name: str = "loader") -> None:
        self.loader = loader
        self.limit = limit
        self.name = name
        self.iterator: Iterator[Any] | None = None
        self.count = 0  # batches of the pass that runs
        self.taken = 0  # batches since `reset`, over all passes
        self.is_exhausted = False  # whether a pass came to its end since `reset`
        self.is_over = False  # whether the latest pass was left
        self._reopen = False  # whether the next `begin` goes on inside a restored pass
        self._drop = False  # whether the loader was restored inside a pass that was left
        self._under: Draws | None = None  # the random numbers under which a restored pass goes on
        self._kept: tuple[dict[str, Any], Draws | None] | None = None  # the state from before a batch was fetched ahead

    @property
    def is_started(self) -> bool:
        """Whether something of the run over it, restored ones included, is done."""
        return self.taken > 0 or self._reopen or self.is_exhausted

    @property
    def is_restored(self) -> bool:
        """Whether the next `begin` goes on inside a restored pass."""
        return self._reopen

    @property
    def length(self) -> float:
        """How many batches a pass has; infinite where nobody knows."""
        length = sized(self.loader)
        return min(math.inf if length is None else length, self.limit)

    def reset(self) -> None:
        """Forget what was taken; the next `begin` begins a pass."""
        self.count = self.taken = 0
        self.is_exhausted = self._reopen = False
        self._kept = None

    def begin(self) -> None:
        """Begin a pass, or go on inside a restored one."""
        if self._drop:
            self._drop = False
            _leave(iter(self.loader))  # restored inside a pass that was left: enter it, so that the next one is another
        if not self._reopen:
            self.count = 0
            self.iterator = iter(self.loader)
        else:
            self._reopen = False
            with Draws().again():  # the interrupted run had drawn these numbers already
                self.iterator = iter(self.loader)
        self.is_over = False

    def take(self) -> Any:
        """Return the next batch of the pass, or `END`."""
        item: Any = END
        if self.count < self.limit:
            if self.iterator is None:
                self.begin()
            item = next(self.iterator, END)  # pyrefly: ignore[bad-argument-type] - `begin` made one
        if item is END:
            self.is_exhausted = True
        else:
            self.count += 1
            self.taken += 1
        return item

    def finish(self) -> None:
        """Leave the pass: what the state says from now on is the beginning of the next one."""
        iterator, self.iterator, self._kept = self.iterator, None, None
        was_restored, self._reopen = self._reopen, False
        if iterator is None and not was_restored:
            return
        if iterator is not None and self.count == sized(self.loader):
            next(iterator, None)  # read whole: let it come to its own end, as in a plain loop
        _leave(iterator)
        self.is_over = True
        state = self._loader_state()
        if not state.get("batches"):
            return
        if state.get("kind") == "stateful":  # what keeps its own place cannot be told; the next `begin` enters and leaves it
            self._drop = was_restored
        else:
            self.loader.set_epoch(state["epoch"] + 1)

    def close(self) -> None:
        """Let go of the iterator, and with it of worker processes."""
        iterator, self.iterator = self.iterator, None
        _leave(iterator)

    # -- its state -----------------------------------------------------------------------------------------------

    def keep(self, under: Draws | None) -> None:
        """Keep the state as it is now, because a batch is about to be fetched ahead under these random numbers."""
        self._kept = (self._state(), under)

    def release(self) -> None:
        """Keep no state any more: the batch fetched last is the one consumed."""
        self._kept = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the batch consumed, as plain values and tensors."""
        state, under = self._kept or (self._state(), self._under)
        state["lane"]["under"] = None if under is None else under.packed()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, at the next `begin`.

        Raises:
            ConfigError: It is not a lane's state, or one over other data.
        """
        record = state_dict.get("lane")
        if not isinstance(record, Mapping):
            raise ConfigError(
                f"{self.name}: this is no state of a loader of a Trainer; it has the keys {', '.join(map(repr, state_dict))}."
            )
        self.close()
        if hasattr(self.loader, "load_state_dict"):
            try:
                self.loader.load_state_dict(state_dict)
            except StateError as error:
                raise ConfigError(f"{self.name}: {error}") from error
        self.count, self.taken = record["count"], record["taken"]
        shift = self._batches_before(state_dict) - self.count
        self.count, self.taken = self.count + shift, self.taken + shift
        self.is_exhausted, self.is_over = record["is_exhausted"], record["is_over"]
        self._reopen = record["is_open"]
        self._drop = self.is_over and bool(state_dict.get("batches"))
        self._under, self._kept = None if record["under"] is None else Draws(record["under"]), None

    def under(self) -> Draws | None:
        """Return the random numbers under which a restored pass fetches its next batch, if it had been fetched; known once."""
        under, self._under = self._under, None
        return under

    def _batches_before(self, state: Mapping[str, Any]) -> int:
        """Return how many of this run's batches lie before a saved position: another number of ranks makes others of the same samples."""
        count: int = state["lane"]["count"]
        here = self._loader_state().get("global_batch")
        total = sized(self.loader)
        if state.get("kind") != "map" or not count or here in (None, state["global_batch"]) or total is None:
            return count
        left = state["length"] - state["samples"]
        return total - (left // here if getattr(self.loader, "drop_last", False) else -(-left // here))

    def _loader_state(self) -> dict[str, Any]:
        return dict(self.loader.state_dict()) if hasattr(self.loader, "state_dict") else {}

    def _state(self) -> dict[str, Any]:
        state = self._loader_state()
        state["lane"] = {
            "count": self.count,
            "taken": self.taken,
            "is_exhausted": self.is_exhausted,
            "is_open": self.iterator is not None or self._reopen,
            "is_over": self.is_over,
        }
        return state


def _leave(iterator: Any) -> None:
    with suppress(AttributeError):
        iterator.close()
