"""`Fleet`: which workers there are to be, which there are, and what is to be done about the difference. No processes in sight.

The supervisor tells what happens (a worker has started, is ready, is gone) and asks `reconcile` what to do. Restarts, autoscaling
and draining change only what is *desired*; one function acts.

- A worker that dies is started again after 0.1 s, 0.2 s, … up to 10 s; after a minute of health the count begins anew.
- Five deaths within a minute without a finished request make an API *failing*: its requests are refused, and a start is tried
  every ten seconds until one succeeds.
- If the first start fails in every worker of an API, the server has never been of use: `GiveUp`.
"""

import enum
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, final

from leyden.serve.effects import WorkerId

FIRST_BACKOFF, LONGEST_BACKOFF, HEALTHY_SECONDS = 0.1, 10.0, 60.0
CRASHES, CRASH_SECONDS, FAILING_SECONDS = 5, 60.0, 10.0


class State(enum.Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    BACKOFF = "backoff"


class Start(NamedTuple):
    """Start a worker."""

    worker: WorkerId


class Drain(NamedTuple):
    """Let a worker end what it has, and go."""

    worker: WorkerId


class Failing(NamedTuple):
    """Refuse an API's requests with this message; an empty one takes them again."""

    api: int
    message: str


class GiveUp(NamedTuple):
    """Stop the server: an API cannot start."""

    api: int
    message: str


Action = Start | Drain | Failing | GiveUp


@final
class _Slot:
    """One worker's place: it stays when the process is gone."""

    __slots__ = ("crashes", "due", "since", "state")

    def __init__(self) -> None:
        self.state: State | None = None
        self.crashes = 0  # in a row
        self.due = -math.inf  # when it may be started
        self.since = 0.0


@final
class _Api:
    def __init__(self, number: int, desired: int) -> None:
        self.number, self.desired = number, desired
        self.slots: dict[int, _Slot] = {}
        self.deaths: deque[float] = deque(maxlen=CRASHES)
        self.has_been_ready = self.is_failing = self.has_told = False
        self.last = ""


@final
class Fleet:
    """The workers of a server.

    Args:
        desired: How many of each API.
        restarts: Whether dead workers are started again; else the first death makes the fleet `is_broken`.
    """

    def __init__(self, desired: Sequence[int], *, restarts: bool = True) -> None:
        self._apis = [_Api(number, count) for number, count in enumerate(desired)]
        self._restarts = restarts
        self._is_draining = self._has_given_up = False
        self.is_broken = False

    # -- what happens ----------------------------------------------------------------------------------------------

    def set_desired(self, api: int, count: int) -> None:
        """Want that many workers of an API."""
        self._apis[api].desired = count

    def drain(self) -> None:
        """Want none any more, for good."""
        self._is_draining = True

    def started(self, worker: WorkerId, now: float) -> None:
        """Take note that a worker's process has begun."""
        slot = self._slot(worker)
        slot.state, slot.since = State.STARTING, now

    def ready(self, worker: WorkerId, now: float) -> None:
        """Take note that a worker takes requests."""
        api, slot = self._apis[worker.api], self._slot(worker)
        if slot.state is State.STARTING:
            slot.state, slot.since = State.READY, now
        api.has_been_ready = True
        if api.is_failing:
            api.is_failing = False
            api.deaths.clear()

    def request_finished(self, worker: WorkerId) -> None:
        """Take note that an API is of use: its deaths are no crash loop."""
        self._apis[worker.api].deaths.clear()

    def gone(self, worker: WorkerId, why: str, now: float) -> None:
        """Take note that a worker's process has ended.

        Args:
            worker: Which.
            why: For the log, and for those who ask.
            now: When.
        """
        api, slot = self._apis[worker.api], self._slot(worker)
        was, slot.state = slot.state, None
        if was is State.DRAINING or self._is_draining:
            slot.crashes = 0
            return
        api.last = why
        is_healthy = was is State.READY and now - slot.since >= HEALTHY_SECONDS
        slot.crashes = 1 if is_healthy else slot.crashes + 1
        slot.state, slot.due = State.BACKOFF, now + min(FIRST_BACKOFF * 2 ** (slot.crashes - 1), LONGEST_BACKOFF)
        api.deaths.append(now)
        if not self._restarts and api.has_been_ready:
            self.is_broken = True
        if len(api.deaths) == CRASHES and now - api.deaths[0] <= CRASH_SECONDS:
            api.is_failing = True
        if api.is_failing:
            slot.due = max(slot.due, now + FAILING_SECONDS)

    # -- what is to be done ----------------------------------------------------------------------------------------

    def reconcile(self, now: float) -> list[Action]:
        """Return what is to be done now; doing it is told by `started`, `gone` and so on."""
        actions = list[Action]()
        for api in self._apis:
            actions += self._of(api, now)
        return actions

    def next_wakeup(self) -> float | None:
        """Return when a worker is due to be started; `None` if nothing is waited for."""
        due = [
            slot.due
            for api in self._apis
            if not self._is_idle(api)
            for index, slot in api.slots.items()
            if slot.state is State.BACKOFF and index < api.desired
        ]
        return min(due, default=None)

    def _of(self, api: _Api, now: float) -> list[Action]:
        if self._is_idle(api):
            return [self._drained(WorkerId(api.number, index)) for index, slot in api.slots.items() if _lives(slot)]
        if not api.has_been_ready and api.deaths and not self._has_given_up and self._all_failed(api):
            self._has_given_up = True
            return [GiveUp(api.number, api.last)]
        actions = list[Action]()
        if api.is_failing != api.has_told:
            api.has_told = api.is_failing
            actions.append(Failing(api.number, f"The workers of this API keep dying: {api.last}" if api.is_failing else ""))
        for index in range(api.desired):
            slot = self._slot(WorkerId(api.number, index))
            if slot.state is None or (slot.state is State.BACKOFF and slot.due <= now):
                actions.append(Start(WorkerId(api.number, index)))
        surplus = [index for index, slot in api.slots.items() if index >= api.desired and _lives(slot)]
        return actions + [self._drained(WorkerId(api.number, index)) for index in surplus]

    def _is_idle(self, api: _Api) -> bool:
        return self._is_draining or self._has_given_up or (self.is_broken and not self._restarts) or not api.desired

    def _all_failed(self, api: _Api) -> bool:
        """Return whether every worker has died in its first start."""
        states = [slot.state for index, slot in api.slots.items() if index < api.desired]
        return len(states) == api.desired and all(state is State.BACKOFF for state in states)

    def _drained(self, worker: WorkerId) -> Drain:
        self._slot(worker).state = State.DRAINING
        return Drain(worker)

    # -- what there is ---------------------------------------------------------------------------------------------

    def states(self, api: int) -> list[State]:
        """Return the states of an API's workers, of those that are there or wait to be started."""
        return [slot.state for slot in self._apis[api].slots.values() if slot.state is not None]

    def is_leaving(self, worker: WorkerId) -> bool:
        """Return whether a worker's process was told to end."""
        return self._slot(worker).state is State.DRAINING

    def is_ready(self) -> bool:
        """Return whether every API has a worker, or is asleep, and none is failing."""
        return not self._is_draining and all(
            not api.is_failing and (not api.desired or State.READY in self.states(api.number)) for api in self._apis
        )

    def is_whole(self) -> bool:
        """Return whether all workers that are wanted are ready."""
        return not self._is_draining and all(self.states(api.number).count(State.READY) >= api.desired for api in self._apis)

    def is_gone(self) -> bool:
        """Return whether no process is left."""
        return not any(_lives(slot) or slot.state is State.DRAINING for api in self._apis for slot in api.slots.values())

    def _slot(self, worker: WorkerId) -> _Slot:
        return self._apis[worker.api].slots.setdefault(worker.index, _Slot())


def _lives(slot: _Slot) -> bool:
    return slot.state in {State.STARTING, State.READY}
