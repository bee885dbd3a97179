"""`Agreement`: all ranks act on one request at the same step, without a collective and without traffic on the main thread.

A request reaches ranks at different steps. So a thread per rank *pledges* the end of the step that is running as the first
possible moment, waits for everybody's pledge, and takes the largest. Main threads pause only between their pledge and that.

```
request(kind, payload)   compare_set("r/<n>"): the first request of round n wins, others wait for round n + 1
thread sees "r/<n>"      limit = finished + 1; set("p/<n>/<rank>", limit); wait for all p/<n>/*; at = max(p)
boundary (each step)     finished += 1; if finished >= limit: wait until `at` is known; if finished == at: the decision
                         then set("known/<n>/<rank>")
close()                  no more pledges, then set("done/<rank>"); rank 0, with whom the store goes, waits for all known/<n>/*
```

No deadlock: main threads wait only for threads, threads only for threads, and `at` is at least every limit. A rank that has
left pledges no more: who finds `done/<r>` and no `p/<n>/<r>` calls the round void, and so does everybody else, because a pledge
is always set before `done`. (A pledge of the final count instead would let one rank act at its last batch while another has
left: found by the simulation in the tests.) Rank 0 hosts the store, so it may not be the first to act and leave: a rank that has
not read the pledges by then would never learn of the decision.

`Rules` holds the state and is free of I/O; `conversation` is the thread's program as a generator of store operations; `Agreement`
is the shell around them. The tests drive the same two with simulated delays.
"""

import json
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, NamedTuple, final

from leyden.core.errors import StateError
from leyden.core.log import get_logger
from leyden.fabric.launch.store import KeyValueStore, own_client

POLL_SECONDS = 0.2
MANY_RANKS, SLOW_POLL_SECONDS = 256, 1.0
LAST_WORD_SECONDS = 10.0  # how long rank 0 stays for ranks that do not say that they know
_logger = get_logger(__name__)


class Decision(NamedTuple):
    """What all ranks do at this step.

    Args:
        kind: What is asked for, such as `"stop"`.
        payload: What goes with it, as text.
    """

    kind: str
    payload: str = ""


class Operation(NamedTuple):
    """One thing the thread asks of the store, or a pause (`short` while others are awaited)."""

    name: Literal["check", "get", "set", "compare_set", "pause"]
    keys: tuple[str, ...] = ()
    value: str = ""


@dataclass
class Rules:
    """One rank's state. Every method is atomic: the shell holds its lock, the simulation does nothing in between."""

    rank: int
    world_size: int
    round: int = 0
    finished: int = 0
    limit: float = math.inf
    at: int | None = None
    decision: Decision | None = None
    closed: bool = False
    is_over: bool = False
    is_stuck: bool = False
    wanted: deque[Decision] = field(default_factory=deque)

    def want(self, decision: Decision) -> None:
        """Note a request of this rank; the same one twice is one."""
        if decision not in self.wanted:
            self.wanted.append(decision)

    def pledge(self, decision: Decision) -> int | None:
        """Promise to pause after the running step; `None` when this rank has left."""
        if self.closed:
            return None
        self.decision = decision
        self.limit = self.finished + 1
        if decision in self.wanted:
            self.wanted.remove(decision)
        return self.finished + 1

    def settle(self, at: int) -> None:
        """Learn at which step all act."""
        self.at = at

    def give_up(self) -> None:
        """End for good: a rank has left, so no round can be agreed on any more."""
        self.is_over = True
        self.limit, self.at = math.inf, None

    def give_in(self) -> None:
        """End for good, and wait for nobody any more: the others did not answer in time."""
        self.is_stuck = True
        self.give_up()

    def step(self) -> None:
        """Count a finished step."""
        self.finished += 1

    def is_waiting(self) -> bool:
        """Whether the main thread must wait before it goes on."""
        return self.finished >= self.limit and self.at is None

    def take(self) -> Decision | None:
        """Return the decision if this is the step; the next round begins."""
        if self.at is None or self.finished != self.at:
            return None
        decision = self.decision
        self.round += 1
        self.limit, self.at, self.decision = math.inf, None, None
        self.agree_alone()
        return decision

    def agree_alone(self) -> None:
        """In a run of one rank: act on the next wish at the next boundary; there is nobody to ask."""
        if self.world_size == 1 and self.wanted and self.limit == math.inf and (pledged := self.pledge(self.wanted[0])):
            self.settle(pledged)


def conversation(rules: Rules) -> Generator[Operation, Any, None]:
    """The thread's program: yields what it asks of the store, is sent the answers, and touches `rules` only in between."""
    while rules.world_size == 1 and not rules.closed:
        yield Operation("pause")
    settled = -1  # the last round that is done here; the main thread may not have reached its step yet
    while not rules.closed and not rules.is_over:
        number = rules.round
        if number == settled:
            yield Operation("pause")
            continue
        request = yield from _request_of(rules, number)
        pledge = None if request is None else rules.pledge(request)
        if pledge is None:
            yield Operation("pause")
            continue
        settled = number
        yield Operation("set", (f"p/{number}/{rules.rank}",), str(pledge))
        at = yield from _everybodys(rules, number)
        yield Operation("set", (f"known/{number}/{rules.rank}",), "1")
        if at is None:
            rules.give_up()
        else:
            rules.settle(at)
    yield Operation("set", (f"done/{rules.rank}",), "1")
    yield Operation("set", ("done/any",), "1")
    if rules.rank == 0 and settled >= 0 and not rules.is_stuck:
        yield from _until_known(rules, settled)
    rules.give_up()


def _request_of(rules: Rules, number: int) -> Generator[Operation, Any, Decision | None]:
    """Return the request of the round, our own if it is the first."""
    key = f"r/{number}"
    if rules.wanted:
        text = yield Operation("compare_set", (key,), json.dumps(rules.wanted[0]))
    elif (yield Operation("check", (key,))):
        text = yield Operation("get", (key,))
    else:
        return None
    kind, payload = json.loads(text)
    return Decision(kind, payload)


def _everybodys(rules: Rules, number: int) -> Generator[Operation, Any, int | None]:
    """Wait for all pledges and return the largest, or `None` where a rank has left without one."""
    keys = tuple(f"p/{number}/{rank}" for rank in range(rules.world_size))
    while not (yield Operation("check", keys)):
        if rules.closed or rules.is_stuck:  # our pledge stands for the others; we are not there any more
            return None
        if (yield Operation("check", ("done/any",))):
            for rank, key in enumerate(keys):
                # `done` first: a pledge that is absent after it was seen will never come.
                if (yield Operation("check", (f"done/{rank}",))) and not (yield Operation("check", (key,))):
                    return None
        yield Operation("pause", value="short")
    largest = 0
    for key in keys:
        largest = max(largest, int((yield Operation("get", (key,)))))
    return largest


def _until_known(rules: Rules, number: int) -> Generator[Operation, Any, None]:
    """Wait until every rank knows the outcome of a round, or has left."""
    for rank in range(1, rules.world_size):
        while not (yield Operation("check", (f"known/{number}/{rank}",))) and not (yield Operation("check", (f"done/{rank}",))):
            yield Operation("pause", value="short")


@final
class Agreement:
    """Lets every rank take the same decision at the same step. Owns a daemon thread; `close` ends it.

    Every rank makes one, calls `boundary` once after each step, and `close` after its last.

    Args:
        store: The run's store; the thread takes a client of its own.
        rank: This process's rank.
        world_size: How many ranks there are.
        sources: Asked by the thread at each poll: a decision that somebody wants (a signal, a job's stop file) or `None`.
        timeout: How long `boundary` waits for the others at most.
        poll_seconds: How often the thread looks.

    Example:
        >>> from leyden.fabric.launch.store import MemoryStore
        >>> agreement = Agreement(MemoryStore(), rank=0, world_size=1)
        >>> agreement.boundary() is None
        True
        >>> agreement.close()
    """

    def __init__(
        self,
        store: KeyValueStore,
        rank: int,
        world_size: int,
        *,
        sources: Sequence[Callable[[], Decision | None]] = (),
        timeout: timedelta = timedelta(minutes=30),
        poll_seconds: float | None = None,
    ) -> None:
        self._store = own_client(store)
        self._rules = Rules(rank, world_size)
        self._sources = sources
        self._timeout = timeout
        self._poll_seconds = poll_seconds or (SLOW_POLL_SECONDS if world_size > MANY_RANKS else POLL_SECONDS)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leyden-agreement", daemon=True)
        self._thread.start()

    def request(self, kind: str, payload: str = "") -> None:
        """Ask all ranks to take this decision soon. Costs nothing here; the thread asks."""
        with self._lock:
            self._want(Decision(kind, payload))
        self._wake.set()

    def boundary(self) -> Decision | None:
        """Count one finished step, and return what all ranks do now, if anything. Below a microsecond in the quiet state.

        Raises:
            StateError: The other ranks did not answer within the time-out.
        """
        rules = self._rules
        with self._lock:  # the bare lock: entering a Condition is a Python call
            rules.finished += 1  # `rules.step()` and `is_waiting()`, spelt out: this runs every step
            if rules.finished < rules.limit:
                return None
            seconds = self._timeout.total_seconds()
            if not self._changed.wait_for(lambda: not rules.is_waiting(), seconds):
                rules.give_in()
                raise StateError(
                    f"rank {rules.rank} waited {seconds:g} s at step {rules.finished} for the other ranks to agree on when to act. "
                    "Every rank must call stop_requested() (or boundary()) after each step."
                )
            return rules.take()

    def close(self) -> None:
        """Take part no more; the others are told. Rank 0 returns when they know what was agreed on. Idempotent."""
        with self._lock:
            self._rules.closed = True
            self._changed.notify_all()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(LAST_WORD_SECONDS)

    def _run(self) -> None:
        program = conversation(self._rules)
        answer: Any = None
        try:
            while True:
                # What the generator does to the rules until its next operation happens under the lock.
                with self._lock:
                    try:
                        operation = program.send(answer)
                    except StopIteration:
                        return
                    finally:
                        self._changed.notify_all()
                answer = self._perform(operation)
        except RuntimeError:  # the store went with rank 0: whoever notices first tells
            _logger.debug("the agreement of rank %d ends: no store", self._rules.rank, exc_info=True)
        finally:
            with self._lock:
                self._rules.give_up()
                self._changed.notify_all()

    def _perform(self, operation: Operation) -> Any:
        match operation.name:
            case "check":
                return self._store.check(list(operation.keys))
            case "get":
                return self._store.get(operation.keys[0])
            case "set":
                return self._store.set(operation.keys[0], operation.value)
            case "compare_set":
                return self._store.compare_set(operation.keys[0], "", operation.value)
            case _:
                self._pause(self._poll_seconds / 10 if operation.value else self._poll_seconds)
                return None

    def _pause(self, seconds: float) -> None:
        if self._wake.wait(seconds):
            self._wake.clear()
        wanted = [decision for source in self._sources if (decision := source()) is not None]
        if wanted:
            with self._lock:
                for decision in wanted:
                    self._want(decision)

    def _want(self, decision: Decision) -> None:
        self._rules.want(decision)
        self._rules.agree_alone()
