"""The journal of a job: small objects that are created once and never changed, below `_leyden/jobs/<job>/` of the output.

Whoever creates a name first wins: so two drivers never both own a unit, and a unit is done once. Nothing is ever locked.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

from leyden.core.errors import ConfigError, ConflictError, NotFoundError
from leyden.core.failpoints import failpoint
from leyden.core.storage import Storage
from leyden.data.format import canonical
from leyden.data.write.plan import Plan

JOBS = "_leyden/jobs"
_LEASE = r"lease-(\d{8})-(\d{4})\.json"
_DONE = r"done-(\d{8})\.json"
_BEAT = re.compile(r"beat-(.+)\.json")
ENDED = -2  # the last beat of a driver that has left the job, though its process may live on
PACKING = "pack-"
_PASSING = re.compile(r"((pack-)?lease|beat|input)-.*")
_DIGEST_BYTES = 16
_FRESH_SECONDS = 35.0  # of a beat: more than three that were missed


class Progress(NamedTuple):
    """What the journal holds.

    Args:
        done: Units that are done.
        leases: The newest generation of each unit that somebody took.
        beating: The drivers that have said something lately.
    """

    done: frozenset[int]
    leases: Mapping[int, int]
    beating: Sequence[str]


@final
class Journal:
    """The journal of one job.

    Args:
        storage: The output.
        job: The job's id.
        phase: What the names of leases and records begin with; that of packing is `PACKING`.
    """

    def __init__(self, storage: Storage, job: str, phase: str = "") -> None:
        self.storage, self.job = storage, job
        self._folder, self._phase = f"{JOBS}/{job}", phase
        self._records: dict[int, Mapping[str, Any]] = {}  # they never change

    @property
    def is_packing(self) -> bool:
        """Whether it is of the second phase."""
        return self._phase == PACKING

    def packing(self) -> "Journal":
        """Return the journal of the job's second phase."""
        return Journal(self.storage, self.job, PACKING)

    def begin(self, plan: Plan, about: Mapping[str, Any]) -> None:
        """Write the plan, or compare it with the one that is there.

        Args:
            plan: This driver's.
            about: What people read: function, arguments.

        Raises:
            ConfigError: Another driver computed other inputs.
        """
        try:
            self._create("plan.json", {**plan.to_json(), **about})
        except ConflictError:
            there = self._read("plan.json")
            for field, mine in plan.to_json().items():
                if there.get(field) != mine:
                    raise ConfigError(
                        f"job {self.job}: this driver computed other inputs than the first one: {field} is {mine!r}, not "
                        f"{there.get(field)!r}. Give all drivers the same list, in the same order: sort what a folder lists."
                    ) from None

    def plan(self) -> Mapping[str, Any]:
        """Return the plan as the first driver wrote it."""
        return self._read("plan.json")

    def progress(self) -> Progress:
        """Return which units are done, and which are taken."""
        done, leases, beats = set[int](), dict[int, int](), dict[str, float]()
        is_done, is_lease = re.compile(re.escape(self._phase) + _DONE), re.compile(re.escape(self._phase) + _LEASE)
        for entry in self.storage.list(self._folder):
            name = entry.key.rpartition("/")[2]
            if match := is_done.fullmatch(name):
                done.add(int(match[1]))
            elif match := is_lease.fullmatch(name):
                unit = int(match[1])
                leases[unit] = max(leases.get(unit, 0), int(match[2]))
            elif match := _BEAT.fullmatch(name):
                beats[match[1]] = entry.modified
        newest = max(beats.values(), default=0.0)  # of the store's clock
        return Progress(frozenset(done), leases, [driver for driver, beat in beats.items() if beat > newest - _FRESH_SECONDS])

    def take(self, unit: int, generation: int, driver: Mapping[str, Any]) -> bool:
        """Take a unit; return whether this driver was the first."""
        failpoint("data.lease.before")
        # A power cut that takes the lease takes its driver too, so it need not be on the disk.
        return self._first(f"{self._phase}lease-{unit:08d}-{generation:04d}.json", driver, durable=False)

    def lease(self, unit: int, generation: int) -> Mapping[str, Any]:
        """Return who holds a unit."""
        return self._read(f"{self._phase}lease-{unit:08d}-{generation:04d}.json")

    def finish(self, unit: int, record: Mapping[str, Any]) -> bool:
        """Say that a unit is done; return whether this driver was the first."""
        failpoint("data.done.before")
        is_first = self._first(f"{self._phase}done-{unit:08d}.json", record)
        failpoint("data.done.after")
        return is_first

    def record(self, unit: int) -> Mapping[str, Any]:
        """Return the record of a unit that is done."""
        found = self._records.get(unit)
        if found is None:
            found = self._records[unit] = self._read(f"{self._phase}done-{unit:08d}.json")
        return found

    def keep_inputs(self, unit: int, digest: bytes, data: bytes) -> None:
        """Keep the inputs of a unit whose inputs come from a stream.

        Args:
            unit: Its number.
            digest: 16 bytes that stand for the inputs.
            data: The inputs.

        Raises:
            ConflictError: They were kept before.
        """
        self.storage.create(f"{self._folder}/input-{unit:08d}.bin", digest + data)
        failpoint("data.inputs.kept")

    def digest_of_inputs(self, unit: int) -> bytes:
        """Return what stands for the inputs of a unit."""
        return self.storage.read_range(f"{self._folder}/input-{unit:08d}.bin", 0, _DIGEST_BYTES)

    def inputs(self, unit: int) -> bytes:
        """Return the inputs of a unit, as they were kept."""
        return self.storage.read(f"{self._folder}/input-{unit:08d}.bin")[_DIGEST_BYTES:]

    def beat(self, driver: str, count: int) -> None:
        """Say that a driver lives."""
        self.storage.write(f"{self._folder}/beat-{driver}.json", canonical.dumps({"count": count}))

    def beat_of(self, driver: str) -> int:
        """Return the last number that a driver said; -1 if it said none."""
        try:
            return int(self._read(f"beat-{driver}.json")["count"])
        except NotFoundError:
            return -1

    def end(self, report: Mapping[str, Any]) -> None:
        """Say that a job has ended, and keep of its journal the plan and the records: leases, beats and inputs go."""
        self._first("ended.json", report)
        for entry in list(self.storage.list(self._folder)):
            if _PASSING.fullmatch(entry.key.rpartition("/")[2]):
                self.storage.delete(entry.key)

    def ended(self) -> Mapping[str, Any] | None:
        """Return what was said at the end; `None` before."""
        try:
            return self._read("ended.json")
        except NotFoundError:
            return None

    def schema(self) -> Mapping[str, Any] | None:
        """Return the schema of the first unit that was done."""
        try:
            return self._read(f"{self._phase}schema.json")
        except NotFoundError:
            return None

    def set_schema(self, schema: Mapping[str, Any]) -> None:
        """Keep the schema of the first unit that was done."""
        self._first(f"{self._phase}schema.json", schema)

    def exists(self) -> bool:
        """Return whether there is such a job."""
        return self.storage.exists(f"{self._folder}/plan.json")

    def drop(self) -> None:
        """Remove the journal."""
        for entry in list(self.storage.list(self._folder)):
            self.storage.delete(entry.key)

    def _first(self, name: str, value: Mapping[str, Any], *, durable: bool = True) -> bool:
        try:
            self._create(name, value, durable=durable)
        except ConflictError:
            # A client that tries again when an answer is lost meets its own object: taking it for another's would have this
            # driver wait for itself, for ever.
            with contextlib.suppress(NotFoundError):
                return self.storage.read(f"{self._folder}/{name}") == canonical.dumps(value)
            return False
        return True

    def _create(self, name: str, value: Mapping[str, Any], *, durable: bool = True) -> None:
        self.storage.create(f"{self._folder}/{name}", canonical.dumps(value), durable=durable)

    def _read(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = canonical.loads(self.storage.read(f"{self._folder}/{name}"), f"{self.storage.url}/{self._folder}/{name}")
        return found
