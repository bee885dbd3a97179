"""What gives a driver its units: a list whose cut is known, or a stream that is read while units are done."""

import pickle
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, final, overload

from leyden.data.write.packed import INPUTS_PER_GROUP, packed
from leyden.data.write.plan import Plan


class Feed(ABC):
    """Gives units to a driver."""

    @abstractmethod
    def more(self) -> Sequence[int]:
        """Return the units that came since the last call.

        Raises:
            Exception: What the user's iterator raised.
        """

    @abstractmethod
    def has_ended(self) -> bool:
        """Return whether no more units come."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Wait until there may be more, but not longer."""

    @abstractmethod
    def units(self) -> int:
        """Return how many units have come."""

    @abstractmethod
    def inputs(self) -> int:
        """Return how many inputs have come."""

    @abstractmethod
    def first_of(self, unit: int) -> int:
        """Return the number of a unit's first input."""

    @abstractmethod
    def inputs_of(self, unit: int) -> Sequence[Any]:
        """Return a unit's inputs."""


@final
class ListedFeed(Feed):
    """Units of inputs that are all known.

    Args:
        plan: Where units begin.
        inputs: All of them.
    """

    def __init__(self, plan: Plan, inputs: Sequence[Any]) -> None:
        self._borders, self._inputs, self._is_given = plan.borders, inputs, False

    def more(self) -> Sequence[int]:
        given, self._is_given = self._is_given, True
        return () if given else range(self.units())

    def has_ended(self) -> bool:
        return self._is_given

    def wait(self, seconds: float) -> None:
        pass

    def units(self) -> int:
        return len(self._borders) - 1

    def inputs(self) -> int:
        return self._borders[-1]

    def first_of(self, unit: int) -> int:
        return self._borders[unit]

    def inputs_of(self, unit: int) -> Sequence[Any]:
        return self._inputs[self._borders[unit] : self._borders[unit + 1]]


@final
class SpooledInputs(Sequence[Any]):
    """An iterator's values in temporary files, some at a time in memory: they have to be known before the job can be.

    Args:
        values: Read to its end.
    """

    def __init__(self, values: Iterator[Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="leyden-inputs-")
        self._count, self._loaded = 0, (-1, list[Any]())
        while group := list(islice(values, INPUTS_PER_GROUP)):
            self._path(self._count // INPUTS_PER_GROUP).write_bytes(packed(group, self._count))
            self._count += len(group)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        number = range(self._count)[index]
        group = number // INPUTS_PER_GROUP
        if self._loaded[0] != group:
            self._loaded = group, pickle.loads(self._path(group).read_bytes())  # noqa: S301 - our own file
        return self._loaded[1][number % INPUTS_PER_GROUP]

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()

    def _path(self, group: int) -> Path:
        return Path(self._folder.name, f"{group:08d}")
