"""`Transform`: the user's functions on samples, with random numbers that depend on the sample alone.

A function that takes `rng` gets a `SampleRng` keyed by (seed, epoch, row, copy). One that does not may use the global
generators of Python, numpy and torch: these are seeded with the same key before each sample, and put back afterwards.
"""

import inspect
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final

import numpy as np

from leyden.core.errors import ConfigTypeError
from leyden.data.philox import SampleRng

if TYPE_CHECKING:
    from leyden.data.read.stream import Rows


class Key(NamedTuple):
    """Which sample it is.

    Args:
        epoch: The epoch.
        row: Its stored row, or a position of a zip.
        copy: Which copy.
        part: Which dataset of a mixture it is from.
    """

    epoch: int
    row: int
    copy: int
    part: int = 0


class Applies(Protocol):
    """What does something with samples."""

    @property
    def uses_globals(self) -> bool:
        """Whether a function may draw from the global generators, which are one for all threads."""
        ...

    def apply_all(self, samples: Iterable[Any], keys: Sequence[Key]) -> list[Any]:
        """Return samples transformed."""
        ...


def keys_of(epoch: int, rows: "Rows") -> list[Key]:
    """Return the keys of rows."""
    return [Key(epoch, row, copy, part) for row, copy, part in zip(rows.row.tolist(), rows.copy.tolist(), rows.part.tolist(), strict=True)]


@final
class Transform:
    """A chain of functions on samples.

    Args:
        functions: A function, or several that are applied one after another; each takes `(sample)` or `(sample, rng)`.
        seed: The dataset's.
        name: The argument, for the message.

    Raises:
        ConfigTypeError: One cannot be called.
    """

    def __init__(self, functions: Any, seed: int, name: str = "transform") -> None:
        chain: list[Any] = list(functions) if isinstance(functions, Sequence) else [functions]
        wrong = next((function for function in chain if not callable(function)), None)
        if wrong is not None or not chain:
            raise ConfigTypeError(f"{name}={functions!r} is not accepted: it takes a function, or a list of functions, of a sample.")
        self.functions: list[tuple[Callable[..., Any], bool]] = [(function, takes_rng(function)) for function in chain]
        self.seed = seed

    @property
    def uses_globals(self) -> bool:
        """Whether a function may draw from the global generators."""
        return any(not takes for _, takes in self.functions)

    def apply(self, sample: Any, key: Key) -> Any:
        """Return the sample transformed.

        Args:
            sample: What was read.
            key: Which it is.
        """
        rng = SampleRng(self.seed, key[0], key[1], key[2])
        if self.uses_globals:
            seed_globals(rng.seed)
        for function, takes in self.functions:
            sample = function(sample, rng) if takes else function(sample)
        return sample

    def apply_all(self, samples: Iterable[Any], keys: Sequence[Key]) -> list[Any]:
        """Return samples transformed; the global generators are as before afterwards. A failure names its row in a note."""
        done = []
        with globals_kept() if self.uses_globals else _nothing():
            for sample, key in zip(samples, keys, strict=True):
                try:
                    done.append(self.apply(sample, key))
                except Exception as error:
                    error.add_note(f"while transforming row {key[1]} (copy {key[2]}) in epoch {key[0]}")
                    raise
        return done


@final
class EachTransform:
    """Of a mixture, the transform of the dataset that a sample is from.

    Args:
        of_each: The datasets' transforms.
    """

    def __init__(self, of_each: Sequence[Applies | None]) -> None:
        self._of_each = list(of_each)

    @property
    def uses_globals(self) -> bool:
        """Whether a function may draw from the global generators."""
        return any(each.uses_globals for each in self._of_each if each is not None)

    def apply_all(self, samples: Iterable[Any], keys: Sequence[Key]) -> list[Any]:
        """Return samples transformed."""
        done = []
        for sample, key in zip(samples, keys, strict=True):
            own = self._of_each[key.part]
            done.append(sample if own is None else own.apply_all([sample], [key])[0])
        return done


def takes_rng(function: Callable[..., Any]) -> bool:
    """Return whether a function takes a second positional argument without a default, or one called `rng`.

    Example:
        >>> takes_rng(lambda sample: sample), takes_rng(lambda sample, rng: sample)
        (False, True)
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False  # built in
    if any(parameter.name == "rng" for parameter in parameters):
        return True
    positional = [each for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
    return len(positional) >= 2 and positional[1].default is inspect.Parameter.empty


def seed_globals(seed: int) -> None:
    """Seed the global generators of Python, numpy and (if it is loaded) torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.random.default_generator.manual_seed(seed % 2**63)


@contextmanager
def globals_kept() -> Iterator[None]:
    """Put the global generators back to where they were."""
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), None if torch is None else torch.random.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch is not None and before[2] is not None:
            torch.random.set_rng_state(before[2])


@contextmanager
def _nothing() -> Iterator[None]:
    yield
