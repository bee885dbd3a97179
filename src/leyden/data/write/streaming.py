"""`StreamedFeed`: inputs of an iterator or queue, read by a thread while units of them are done.

512 inputs make a unit. They are in the journal before anybody works on them, so that a job that is killed knows what it has
done. Run again, the iterator begins anew: what it gives is compared with the journal, and what is done is not done again.
"""

import queue as queues
import threading
from collections.abc import Sequence
from itertools import count, islice
from typing import Any, Final, final

import xxhash

from leyden.core.errors import ConfigError, ConflictError
from leyden.data.write.arguments import TOLD_CHARACTERS, TOLD_INPUTS
from leyden.data.write.feeding import Feed
from leyden.data.write.journal import Journal
from leyden.data.write.packed import INPUTS_PER_GROUP, PackedInputs, packed
from leyden.data.write.plan import Plan, hashed_input
from leyden.data.write.streams import InputStream

_AHEAD: Final = 4  # units that wait to be taken
_LOOK_SECONDS: Final = 0.2
_END_SECONDS: Final = 5.0


@final
class StreamedFeed(Feed):
    """Reads a stream into the journal, and gives its units.

    Args:
        journal: The job's.
        values: The inputs. They are read in a thread of this object's own.
    """

    def __init__(self, journal: Journal, values: InputStream) -> None:
        self._journal, self._values = journal, values
        self._ready = queues.Queue[int](_AHEAD)
        self._something, self._stop, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._digest, self._units, self._inputs = xxhash.xxh3_128(), 0, 0
        self._told: list[str] = []
        self._thread = threading.Thread(target=self._read, name="leyden-inputs", daemon=True)
        self._thread.start()

    def more(self) -> Sequence[int]:
        self._something.clear()
        found = list[int]()
        while not self._ready.empty():
            found.append(self._ready.get_nowait())
        if not found and self._error is not None and self._ended.is_set():
            raise self._error
        return found

    def has_ended(self) -> bool:
        return self._ended.is_set() and self._ready.empty() and self._error is None  # an error is still to be raised by `more`

    def wait(self, seconds: float) -> None:
        self._something.wait(seconds)

    def units(self) -> int:
        return self._units

    def inputs(self) -> int:
        return self._inputs

    def first_of(self, unit: int) -> int:
        return unit * INPUTS_PER_GROUP

    def inputs_of(self, unit: int) -> Sequence[Any]:
        return PackedInputs(self._journal.inputs(unit))

    def plan(self) -> Plan:
        """Return the plan that a list of the same inputs would have had, but for the units."""
        borders = (*range(0, self._inputs, INPUTS_PER_GROUP), self._inputs)
        return Plan(self._journal.job, self._inputs, self._digest.hexdigest(), borders)

    def told(self) -> dict[str, Any]:
        """Return what a version says of the inputs."""
        return {"count": self._inputs, "digest": self._digest.hexdigest(), "first": self._told}

    def close(self) -> None:
        """Stop reading. An iterator that waits for ever keeps its thread, which ends with the process."""
        self._stop.set()
        self._values.stop()
        self._thread.join(_END_SECONDS)

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            for unit in count():
                group = list(islice(self._values, INPUTS_PER_GROUP))
                if not group or self._stop.is_set():
                    break
                self._keep(unit, group)
                self._hand_on(unit)
        except Exception as error:  # noqa: BLE001 - the user's iterator may raise anything; the driver raises it
            self._error = error
        self._ended.set()
        self._something.set()

    def _keep(self, unit: int, group: list[Any]) -> None:
        """Put a unit's inputs into the journal, or compare them with what is there."""
        digest = xxhash.xxh3_128()
        for index, item in enumerate(group, start=self._inputs):
            for part in hashed_input(item, index):
                digest.update(part)
                self._digest.update(part)
        try:
            self._journal.keep_inputs(unit, digest.digest(), packed(group, self._inputs))
        except ConflictError:
            if self._journal.digest_of_inputs(unit) != digest.digest():
                raise ConfigError(
                    f"job {self._journal.job} was begun with other inputs: the {len(group)} from number {self._inputs:,} on are not "
                    "what the iterator or queue gave then. Give the same ones in the same order, or pass resume=False to begin anew."
                ) from None
        self._told += [f"{item!r}"[:TOLD_CHARACTERS] for item in group[: TOLD_INPUTS - len(self._told)]]
        self._inputs += len(group)
        self._units = unit + 1

    def _hand_on(self, unit: int) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(unit, timeout=_LOOK_SECONDS)
            except queues.Full:
                continue
            self._something.set()
            return
