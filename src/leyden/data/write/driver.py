"""A driver of a job: claims units, has its workers do them, and writes what is done into the journal.

Any number of drivers may work on one job, join and leave: there is no coordinator. A unit of a dead driver is taken over;
dead is who is gone on this machine, or whose beat has not changed for a minute of our own clock.
"""

import contextlib
import dataclasses
import itertools
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, final

from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import NotFoundError, RemoteError, StorageError
from leyden.core.ids import new_id
from leyden.data.errors import SchemaError, UnitFailedError
from leyden.data.format import canonical
from leyden.data.format.schema import Schema, unify
from leyden.data.read.owner import Owner
from leyden.data.write.feeding import Feed
from leyden.data.write.journal import ENDED, Journal
from leyden.data.write.leases import BEAT_SECONDS, DEAD_SECONDS, Heartbeat, Liveness
from leyden.data.write.pool import Order, Outcome, Pool
from leyden.data.write.progress import Seen, Watch
from leyden.data.write.unit import Failure

_REMOTE_ATTEMPTS, _LOCAL_ATTEMPTS = 5, 1  # a full disk does not mend itself in a few seconds
_WAIT_SECONDS = 0.2
_READ_RECORDS, _READ_BEATS = 200, 64
_SURVEY_SECONDS, _SURVEY_SHARE = 5.0, 20.0  # how often the journal is looked at for who is shown the progress


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """What happens when something fails.

    Args:
        on_error: `raise`, `skip` or `quarantine`: for an input whose function raises, or that ended its worker too often.
        retries: How often an input may end its worker before.
        beat_seconds: Between two beats of this driver.
        dead_seconds: For how long the beat of another driver may not change.
    """

    on_error: str = "raise"
    retries: int = 2
    beat_seconds: float = BEAT_SECONDS
    dead_seconds: float = DEAD_SECONDS


@final
class Driver:
    """Works on a job until all its units are done.

    Args:
        journal: The job's.
        feed: Gives units.
        pool: Does units.
        policy: What happens when something fails.
        clock: For waiting and for the beats of others.
        watch: Is shown how far the job is.
    """

    def __init__(
        self,
        journal: Journal,
        feed: Feed,
        pool: Pool,
        *,
        policy: Policy = Policy(),
        clock: Clock | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._journal, self._feed, self._pool, self._policy = journal, feed, pool, policy
        self._clock, self._watch = clock or SystemClock(), watch
        owner = Owner.here()
        self.id = new_id("driver")
        self._entry = {"driver": self.id, "pid": owner.pid, "start": owner.start, "boot": owner.boot}
        self._liveness = Liveness(journal, self._clock, policy.dead_seconds)
        self._generations: dict[int, int] = {}
        self._again: deque[Order] = deque()
        self._deaths: Counter[int] = Counter()  # of inputs
        self._ends: Counter[int] = Counter()  # of units, where no input was at work
        self._storage_failures: Counter[int] = Counter()
        self._storage_attempts = _LOCAL_ATTEMPTS if journal.storage.url.startswith("file:") else _REMOTE_ATTEMPTS
        self._left_out: dict[int, list[Failure]] = {}
        self._error: Exception | None = None
        self._schema: Schema | None = None
        self._counts: Counter[str] = Counter()
        self._counted, self._drivers, self._next_look = set[int](), 1, 0.0

    def run(self) -> None:
        """Return when every unit is done, by whomever.

        Raises:
            UnitFailedError: An input failed, and the policy is to raise; units that ran were finished.
            SchemaError: Samples of one unit do not go with those of another.
            StorageError: The output kept refusing.
        """
        with Heartbeat(self._journal, self.id, self._policy.beat_seconds), self._watching():
            done = self._look()
            self._see()
            candidates = deque[int]()
            while True:
                candidates.extend(unit for unit in self._more(candidates) if unit not in done)
                self._give_work(candidates)
                if self._pool.is_busy():
                    for outcome in self._pool.outcomes():
                        self._take(outcome)
                    self._see()
                elif self._error is not None:
                    raise self._error
                elif not self._feed.has_ended():
                    self._feed.wait(_WAIT_SECONDS)
                elif not self._again and not candidates:
                    done = self._look()
                    candidates = deque(unit for unit in range(self._feed.units()) if unit not in done)
                    if not candidates:
                        return
                    if not self._takes_any(candidates):
                        self._clock.sleep(_WAIT_SECONDS)  # others are at the rest

    def _look(self) -> frozenset[int]:
        """Return which units are done, and note who holds the others."""
        began = self._clock.monotonic()
        progress = self._journal.progress()
        self._generations.update(progress.leases)
        if self._watch is not None:
            others = [driver for driver in progress.beating[:_READ_BEATS] if driver != self.id]
            self._drivers = 1 + sum(self._journal.beat_of(driver) != ENDED for driver in others)
            for unit in itertools.islice(progress.done - self._counted, _READ_RECORDS):  # finalising reads them in any case
                self._count(unit, self._journal.record(unit))
        now = self._clock.monotonic()
        self._next_look = now + max(_SURVEY_SECONDS, _SURVEY_SHARE * (now - began))
        return progress.done

    def _more(self, candidates: deque[int]) -> Sequence[int]:
        """Return units that came, unless some wait already: who reads them then waits too."""
        try:
            return () if candidates else self._feed.more()
        except Exception as error:  # noqa: BLE001 - the user's iterator may raise anything; it is raised when running units have ended
            self._error = self._error or error
        return ()

    def _takes_any(self, candidates: deque[int]) -> bool:
        """Claim one of units that others may hold; drop those that are held."""
        while candidates:
            unit = candidates.popleft()
            if self._claim(unit):
                self._again.append(self._order(unit))
                return True
        return False

    def _give_work(self, candidates: deque[int]) -> None:
        while self._error is None and self._pool.is_free():
            if not self._again and not self._takes_any(candidates):
                return
            self._pool.give(self._again.popleft())

    def _claim(self, unit: int) -> bool:
        generation = self._generations.get(unit, 0)
        if generation and not self._is_abandoned(unit, generation):
            return False
        is_mine = self._journal.take(unit, generation + 1, self._entry)
        self._generations[unit] = generation + 1
        return is_mine

    def _is_abandoned(self, unit: int, generation: int) -> bool:
        with contextlib.suppress(NotFoundError):
            return self._liveness.is_dead(self._journal.lease(unit, generation))
        return False

    def _order(self, unit: int) -> Order:
        without = frozenset(failure.input for failure in self._left_out.get(unit, ()))
        return Order(unit, self._feed.first_of(unit), self._feed.inputs_of(unit), without, self._journal.is_packing)

    # -- what became of a unit -------------------------------------------------------------------------------------

    def _take(self, outcome: Outcome) -> None:
        unit = outcome.order.unit
        if outcome.kind in {"storage", "error"} and self._is_done_by_another(unit):
            return  # who has finished a job takes away what nobody needs any more: packed sources, chunks that we still write
        if outcome.kind == "done" and outcome.record is not None:
            self._finish(unit, outcome.record)
        elif outcome.kind == "died":
            self._retry(unit, outcome)
        elif outcome.kind == "failed" and outcome.failure is not None:
            self._error = self._error or _failed(outcome.failure)
        elif outcome.kind == "storage" and self._storage_failures[unit] < self._storage_attempts:
            self._storage_failures[unit] += 1
            self._clock.sleep(_WAIT_SECONDS * 2 ** self._storage_failures[unit])
            self._again.append(self._order(unit))
        else:
            self._error = self._error or outcome.error or StorageError(f"unit {unit} could not be written.")

    def _is_done_by_another(self, unit: int) -> bool:
        with contextlib.suppress(StorageError):
            return unit in self._journal.progress().done
        return False

    def _retry(self, unit: int, outcome: Outcome) -> None:
        """Do a unit again whose worker died; without the culprit, once it has done so too often."""
        failure = outcome.failure
        if failure is None or any(known.input == failure.input for known in self._left_out.get(unit, ())):
            self._ends[unit] += 1
            if self._ends[unit] > self._policy.retries:
                self._error = self._error or outcome.error or RemoteError(f"unit {unit} keeps ending its worker.")
                return
        else:
            self._deaths[failure.input] += 1
            if self._deaths[failure.input] > self._policy.retries:
                if self._policy.on_error == "raise":
                    self._error = self._error or _failed(failure)
                    return
                self._left_out.setdefault(unit, []).append(failure)
        self._again.append(self._order(unit))

    def _finish(self, unit: int, record: dict[str, Any]) -> None:
        record["failures"] += [failure._asdict() for failure in self._left_out.get(unit, ())]
        try:
            self._compare(record)
        except SchemaError as error:
            self._error = self._error or error
            return
        if self._policy.on_error == "quarantine":
            self._quarantine(record["failures"])
        if not self._journal.finish(unit, {**record, "generation": self._generations.get(unit, 1), "driver": self.id}):
            self._withdraw(unit, record)
        self._count(unit, record)

    def _count(self, unit: int, record: Mapping[str, Any]) -> None:
        if unit not in self._counted:
            self._counted.add(unit)
            self._counts.update(inputs=record["inputs"], rows=record["rows"], bytes=record["bytes"], failures=len(record["failures"]))

    def _compare(self, record: Mapping[str, Any]) -> None:
        if record["schema"] is None:
            return
        mine = Schema.from_json(record["schema"])
        if self._schema is None:
            self._journal.set_schema(record["schema"])
            first = self._journal.schema()
            self._schema = mine if first is None else Schema.from_json(first)
        self._schema = unify(self._schema, mine, f"unit {record['unit']} (inputs from {self._feed.first_of(record['unit']):,})")

    def _withdraw(self, unit: int, record: Mapping[str, Any]) -> None:
        """Remove our chunks of a unit that another driver has done, if they are other files."""
        theirs = {chunk["name"] for chunk in self._journal.record(unit)["chunks"]}
        for chunk in record["chunks"]:
            if chunk["name"] not in theirs:
                self._journal.storage.delete(chunk["name"])

    def _quarantine(self, failures: Sequence[Mapping[str, Any]]) -> None:
        for failure in failures:
            self._journal.storage.write(f"_leyden/quarantine/{self._journal.job}/{failure['input']}.json", canonical.dumps(failure))

    def _see(self) -> None:
        if self._watch is not None:
            if self._clock.monotonic() >= self._next_look:
                self._look()  # others have done something too
            self._watch.see(self._seen())

    def _seen(self) -> Seen:
        counts, total = self._counts, self._feed.inputs() if self._feed.has_ended() else None
        return Seen(counts["inputs"] + self._pool.inputs_done(), total, counts["rows"], counts["bytes"], counts["failures"], self._drivers)

    @contextlib.contextmanager
    def _watching(self) -> Any:
        try:
            yield
        finally:
            if self._watch is not None:
                self._watch.close(self._seen())


def _failed(failure: Failure) -> UnitFailedError:
    told = (
        f"input number {failure.input} ({failure.text}) could not be processed: {failure.error.rstrip('.')}. Everything that was done is "
        'kept: mend the input or fn and run the same command again, or pass on_error="skip" or "quarantine".'
    )
    return UnitFailedError(f"{told}\n\n{failure.traceback}" if failure.traceback else told, failure.traceback)
