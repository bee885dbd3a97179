"""What a job is: the identity of its work, and the units that its inputs are cut into.

The id depends on the function, the inputs and the arguments that change bytes, and on nothing else: the same command, run
again or on another number of workers, is the same job.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from leyden.core.errors import ConfigError
from leyden.data.format import canonical
from leyden.data.format.hashing import digest128
from leyden.data.write.described import digest_of
from leyden.data.write.packed import dumps

MOST_UNITS, LEAST_UNITS, INPUTS_PER_UNIT = 65_536, 64, 512
_ID_DIGITS = 12
STREAMED = "streamed"


class Plan(NamedTuple):
    """A job's plan, as its first driver writes it.

    Args:
        job: The job's id.
        inputs: How many there are.
        inputs_digest: Of all of them.
        borders: The input that each unit begins with, and the end.
    """

    job: str
    inputs: int
    inputs_digest: str
    borders: tuple[int, ...]

    @classmethod
    def streamed(cls, job: str) -> "Plan":
        """Return the plan of a job whose inputs are read while it runs: nobody knows yet how many there are."""
        return cls(job, 0, STREAMED, (0,))

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.borders) - 1

    def to_json(self) -> dict[str, Any]:
        """Return what the journal keeps."""
        return {"job": self.job, "inputs": self.inputs, "inputs_digest": self.inputs_digest, "units": self.units}


def cut_into_units(inputs: int, weights: Sequence[float] | None = None) -> tuple[int, ...]:
    """Return where units begin, and the end: contiguous ranges of equal count, or equal weight. Never a function of workers.

    Args:
        inputs: How many there are.
        weights: What each costs.

    Raises:
        ConfigError: Not one weight for each input, or a negative one.

    Example:
        >>> cut_into_units(4)
        (0, 1, 2, 3, 4)
    """
    units = min(inputs, MOST_UNITS, max(LEAST_UNITS, -(-inputs // INPUTS_PER_UNIT)))
    if weights is None:
        return tuple(index * inputs // units for index in range(units + 1)) if units else (0,)
    costs: NDArray[np.float64] = np.asarray(weights, np.float64)
    if costs.shape != (inputs,) or (costs < 0).any() or not np.isfinite(costs).all():
        raise ConfigError(f"weights= has {len(weights)} values for {inputs} inputs: give each input one cost, a number ≥ 0.")
    ends = np.cumsum(costs)
    wanted = ends[-1] * np.arange(1, units) / units if inputs else np.empty(0)
    return (0, *np.searchsorted(ends, wanted, side="left").tolist(), inputs)


def digest_of_inputs(inputs: Sequence[Any]) -> str:
    """Return the hash of all inputs, JSON values by their text, others by what pickle keeps of them.

    Raises:
        ConfigError: An input cannot be pickled.
    """
    digest = xxhash.xxh3_128()
    for index, item in enumerate(inputs):
        for part in hashed_input(item, index):
            digest.update(part)
    return digest.hexdigest()


def hashed_input(item: Any, index: int) -> tuple[bytes, bytes]:
    """Return what of an input is hashed: its length and its text.

    Args:
        item: The input.
        index: Its number, for the message.

    Raises:
        ConfigError: It cannot be pickled.
    """
    text = _bytes_of(item, index)
    return len(text).to_bytes(8, "little"), text


def _bytes_of(item: Any, index: int) -> bytes:
    if type(item) is str:
        return b"s" + item.encode("utf-8", "surrogatepass")
    if type(item) is int:
        return b"i%d" % item
    try:
        return b"j" + canonical.dumps(item)
    except (TypeError, ValueError):
        try:
            dumps(item)  # workers get it so
        except Exception as error:
            raise ConfigError(
                f"input {index}, {item!r:.80}, cannot be pickled ({error}). Pass paths or numbers, and open them in fn."
            ) from error
        return b"p" + digest_of(item).encode()


def work_digest(operation: str, function: Mapping[str, Any], inputs_digest: str, arguments: Mapping[str, Any]) -> str:
    """Return what two jobs that do the same have in common.

    Args:
        operation: `optimize` or `map`.
        function: What `describe` says of the user's, before it runs and may change what it holds.
        inputs_digest: Of all inputs.
        arguments: Those that change the bytes that are written.
    """
    entry = {"operation": operation, "function": dict(function), "inputs": inputs_digest, "arguments": dict(arguments)}
    return digest128(canonical.dumps(entry))


def job_id(work: str, older: int) -> str:
    """Return the id of a job.

    Args:
        work: From `work_digest`.
        older: How many versions the same work has made before.
    """
    return digest128(canonical.dumps([work, older]))[:_ID_DIGITS]
