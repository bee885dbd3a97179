"""`PlainLoader`: an iterable that is no loader and keeps no state, counted, so that a run finds its place in it again."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from leyden.core.errors import StateError
from leyden.fabric.loading import replay


class PlainLoader:
    """Counts what an iterable yields. A resumed pass reads it again up to its place, under the same random numbers.

    Args:
        iterable: What to iterate: a list of batches, an object of the user's. Whatever is not here is read from it.

    Example:
        >>> loader = PlainLoader([10, 20, 30])
        >>> next(iter(loader)), loader.state_dict()["batches"]
        (10, 1)
    """

    per_rank: ClassVar[bool] = True
    """A checkpoint keeps one state per rank."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable
        self._epoch = 0
        self._batches = 0
        self._is_inside = False  # whether `_epoch` was begun here
        self._start: dict[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the next one."""
        if self._is_inside or epoch != self._epoch:
            self._epoch, self._batches, self._is_inside = epoch, 0, False

    def __len__(self) -> int:
        return len(self._iterable)  # type: ignore[arg-type] - raises TypeError where there is none, as it should

    def __iter__(self) -> Iterator[Any]:
        if self._is_inside:
            self.set_epoch(self._epoch + 1)
        self._is_inside = True
        if set_epoch := getattr(self._iterable, "set_epoch", None):
            set_epoch(self._epoch)
        if self._batches:
            return self._count(self._read_again(), self._epoch)
        self._start = replay.capture([], process=True)
        return self._count(iter(self._iterable), self._epoch)

    def _count(self, iterator: Iterator[Any], epoch: int) -> Iterator[Any]:
        for batch in iterator:
            if epoch == self._epoch:
                self._batches += 1
            yield batch
        if epoch == self._epoch:
            self.set_epoch(epoch + 1)

    def _read_again(self) -> Iterator[Any]:
        warnings.warn(
            f"You're resuming from a checkpoint that ended before the epoch ended, and {type(self._iterable).__name__} keeps no state: "
            f"its first {self._batches} batches are read again and dropped, which is exact only if it yields the same ones. Give it "
            "state_dict() and load_state_dict(), or pass a DataLoader, to go on at once.",
            stacklevel=5,
        )
        rewind = replay.Rewind([], self._start)
        rewind.enter()
        try:
            iterator = iter(self._iterable)
            deque(zip(range(self._batches), iterator, strict=False), maxlen=0)
        finally:
            rewind.leave()
        return iterator

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_iterable" not in self.__dict__:  # while a copy is being made
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._iterable, name)

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches were delivered, and what they began under."""
        is_inside = self._is_inside or bool(self._batches)
        return {
            "kind": "plain",
            "epoch": self._epoch,
            "batches": self._batches,
            "length": self._length(),
            "rng": self._start if is_inside else None,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, at the next `iter`.

        Raises:
            StateError: It is of another kind of loader or another length.
        """
        if state_dict.get("kind") != "plain":
            raise StateError(
                f"The saved position is of kind {state_dict.get('kind')!r}, this is a plain iterable: {type(self._iterable).__name__}."
            )
        if state_dict["length"] != self._length():
            raise StateError(f"The loader had length {state_dict['length']} when the position was saved and has {self._length()} now.")
        self._epoch, self._batches, self._is_inside = state_dict["epoch"], state_dict["batches"], False
        self._start = state_dict["rng"]

    def _length(self) -> int | None:
        try:
            return len(self)
        except (TypeError, NotImplementedError):
            return None
