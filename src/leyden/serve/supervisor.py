"""`Supervisor`: looks after the processes of one server. It has no thread of its own and computes nothing.

```
 signals, stop() ─► wake-up socket ┐
 front ends: control, end ─────────┤ select ─► note what happened ─► Fleet.reconcile ─► start and stop workers, tell front ends
 engine: control lines, ends ──────┘
```
What is wanted lies in the `Fleet`; restart, autoscaling and draining change only that. The end comes in three steps: the front ends
finish what they have taken on, the workers go, and the loggers process what was logged. A second signal skips the first step, and
gives the last one a moment only.
"""

import enum
import math
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import final

from leyden.core.autoscale import AutoscalePolicy
from leyden.core.errors import RemoteError
from leyden.core.log import get_logger
from leyden.serve.effects import WorkerId
from leyden.serve.engines.base import Gone, Logged, Ready, ReplicaEngine, ReplicaEvent, ReplicaHandle, ReplicaSpec
from leyden.serve.fleet import Drain, Failing, Fleet, GiveUp, Start, State
from leyden.serve.fronts import FrontEvent, FrontGone, Fronts, KillAsked, ShutdownAsked, WakeAsked, WorkerSilent, drain_frame, state_frame
from leyden.serve.log_routes import LogRoutes
from leyden.serve.metrics import Layout, Page, Tally
from leyden.serve.scaling import Load, Scaling
from leyden.serve.waker import Waker
from leyden.serve.worker import WorkerSpec

_LAST_SECONDS = 5.0  # that processes get beyond what they were promised
_LONGEST_SECONDS = 3600.0  # of one wait: `poll` takes no number of weeks
_logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicas:
    """The workers of one API.

    Args:
        path: Of the API, for logs.
        count: How many at first.
        specs: What each is to be; later ones begin at the first again.
        autoscale: How their number follows the load.
    """

    path: str
    count: int
    specs: Sequence[WorkerSpec]
    autoscale: AutoscalePolicy | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """Whom a supervisor tells what happens.

    Args:
        on_start: Once, when all workers are ready for the first time.
        on_end: Once, when it stops, if it had started.
        logs: Takes what workers hand to loggers.
    """

    on_start: Callable[[], None] | None = None
    on_end: Callable[[], None] | None = None
    logs: LogRoutes = field(default_factory=LogRoutes)


class Phase(enum.Enum):
    """Where a supervisor is in its life."""

    RUNNING = 1
    FRONTS_DRAIN = 2
    WORKERS_DRAIN = 3
    LOGS_DRAIN = 4
    OVER = 5


@final
class Supervisor:
    """Starts workers and front ends, and keeps them as they are wanted until it is told to stop.

    Args:
        replicas: Of each API.
        engine: Starts the workers.
        fronts: The front ends.
        pages: The counters of the front ends, each its own, then the supervisor's.
        drain_seconds: For how long front ends may take to finish, their delay included.
        restarts: Whether dead workers are started again.
        events: Whom it tells what happens.
    """

    def __init__(
        self,
        replicas: Sequence[Replicas],
        engine: ReplicaEngine,
        fronts: Fronts,
        pages: Sequence[Page],
        *,
        drain_seconds: float = 30.0,
        restarts: bool = True,
        events: Events | None = None,
    ) -> None:
        self._replicas, self._engine, self._fronts = replicas, engine, fronts
        self._drain_seconds, self._events = drain_seconds, events or Events()
        self._logs = self._events.logs
        self._tally = Tally(Layout([api.path for api in replicas]), pages)
        self._fleet = Fleet([api.count for api in replicas], restarts=restarts)
        self._wanted = [api.count for api in replicas]
        self._handles: dict[WorkerId, ReplicaHandle] = {}
        self._ready: dict[WorkerId, ReplicaHandle] = {}
        self._failing: dict[int, str] = {}
        policies = {number: api.autoscale for number, api in enumerate(replicas) if api.autoscale is not None}
        self._scaling = Scaling(policies, self._load_of)
        self._silent: dict[str, float] = {}  # when it was told last of a worker, by its address, that it says nothing
        self._answered = [0.0] * len(replicas)  # when a worker died last
        self._waker = Waker()
        self._stops = 0  # how often it was told to stop
        self._phase, self._deadline = Phase.RUNNING, float("inf")
        self._error: Exception | None = None
        self._has_started = False
        self.started = threading.Event()

    # -- from any thread, and from signal handlers ---------------------------------------------------------------------

    def stop(self, *, now: bool = False) -> None:
        """Stop: what was taken on is finished; `now`, or a second call, gives it up."""
        self._stops += 2 if now else 1
        self.wake()

    def wake(self) -> None:
        """Look at once at what has happened."""
        self._waker.wake()

    @property
    def workers(self) -> list[ReplicaHandle]:
        """The workers whose processes are there."""
        return list(self._handles.values())

    @property
    def error(self) -> Exception | None:
        """Why it stopped, if it was for an error."""
        return self._error

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Look after the server until it has stopped.

        Raises:
            RemoteError: An API could not be set up, or a worker died that is not to be started again.
        """
        try:
            with self._waker.signals(self._signalled):
                self._act(time.monotonic())  # workers load what they need while the front ends are made
                self._fronts.start(self._greeting)
                while self._phase is not Phase.OVER:
                    now = time.monotonic()
                    self._act(now)
                    if self._phase is not Phase.OVER:
                        self._wait(now)
                        self._hear(time.monotonic())
        finally:
            self._phase = Phase.OVER
            self._fronts.close()
            self._engine.close()
            self._logs.close()
            self._end()
        if self._error is not None:
            raise self._error

    def _wait(self, now: float) -> None:
        own = (self._fleet, self._engine, self._scaling, self._logs)
        due = min(wakeup for wakeup in (*(each.next_wakeup() for each in own), self._deadline) if wakeup is not None)
        descriptors = [self._waker.fileno(), *self._engine.descriptors(), *self._fronts.descriptors()]
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        for descriptor in self._fronts.writing():
            poll.register(descriptor, select.POLLIN | select.POLLOUT)
        for descriptor, events in self._logs.polled():
            poll.register(descriptor, events)
        poll.poll(min(max(0.0, due - now), _LONGEST_SECONDS) * 1000)
        self._waker.heard()

    def _hear(self, now: float) -> None:
        for event in self._engine.events():
            self._note(event, now)
        for told in self._fronts.events():
            self._told(told, now)
        self._logs.tend(now)

    def _told(self, told: FrontEvent, now: float) -> None:
        match told:
            case FrontGone():
                self._front_gone(told)
            case ShutdownAsked():
                _logger.info("somebody with the key asks for the end of the server")
                self._stops = max(1, self._stops)
            case WakeAsked():
                self._scaling.wake()
            case WorkerSilent(worker, at, seconds):
                self._is_silent(worker, at, seconds, now)
            case KillAsked(worker, at):
                self._kill(worker, at)

    def _act(self, now: float) -> None:
        if self._phase is Phase.RUNNING:
            self._scale(now)
        if self._fleet.is_broken and self._error is None:
            self._error = RemoteError("a worker died, and restart_workers=False: the server stops.")
            self._stops = max(1, self._stops)
        self._step(now)
        for action in self._fleet.reconcile(now):
            self._do(action, now)
        self._step(now)
        self._begin()
        self._show()

    def _show(self) -> None:
        """Count the workers in each state."""
        for api in range(len(self._replicas)):
            states = self._fleet.states(api)
            for state in State:
                self._tally.set("workers", api, state.value, states.count(state))

    def _do(self, action: Start | Drain | Failing | GiveUp, now: float) -> None:
        match action:
            case Start(worker):
                self._start(worker, now)
            case Drain(worker):
                handle = self._handles.get(worker)
                if handle is not None:  # it tells front ends itself to send no more; they forget it when it is gone
                    self._engine.stop(handle, self._drain_seconds)
            case Failing(api, message):
                self._failing[api] = message
                self._fronts.tell(state_frame(api=api, failing=message))
                if message:
                    _logger.error("%s: %s", self._replicas[api].path, message)
            case GiveUp(api, message):
                path, (why, _, traceback) = self._replicas[api].path, message.partition("\n")
                self._error = RemoteError(f"no worker of {path} could be set up, so the server stops. {why}", traceback)
                self._error.add_note(traceback)  # where nobody shows the log, as in tests
                self.stop(now=True)

    # -- workers -------------------------------------------------------------------------------------------------------

    def _start(self, worker: WorkerId, now: float) -> None:
        specs = self._replicas[worker.api].specs
        self._fleet.started(worker, now)
        try:
            self._handles[worker] = self._engine.start(ReplicaSpec(worker, specs[worker.index % len(specs)]))
        except OSError as error:
            _logger.exception("a worker of %s cannot be started", self._replicas[worker.api].path)
            self._fleet.gone(worker, f"it cannot be started: {error}", now)

    def _note(self, event: ReplicaEvent, now: float) -> None:
        match event:
            case Ready(replica, seconds):
                self._fleet.ready(replica.worker, now)
                self._ready[replica.worker] = replica
                self._fronts.tell(state_frame(up=list(replica.worker), at=_address(replica)))
                _logger.info("%s of %s is ready after %.1f s", *self._called(replica.worker), seconds)
            case Gone(replica, why, traceback):
                self._gone(replica.worker, why, traceback, now)
            case Logged():
                self._logs.take(event, self._fronts, lambda dropped: self._tally.add("log_dropped_total", event.api, dropped))

    def _gone(self, worker: WorkerId, why: str, traceback: str, now: float) -> None:
        self._handles.pop(worker, None)
        self._tell_down(worker)
        answered = self._tally.total("requests_total", worker.api, "200")
        if answered != self._answered[worker.api]:
            self._fleet.request_finished(worker)
            self._answered[worker.api] = answered
        is_wanted = self._phase in {Phase.RUNNING, Phase.FRONTS_DRAIN} and not self._fleet.is_leaving(worker)
        self._fleet.gone(worker, f"{why}\n{traceback}".strip(), now)
        if is_wanted:
            self._tally.add("worker_restarts_total", worker.api)
            _logger.error("%s of %s is gone: %s%s", *self._called(worker), why, f"\n{traceback.rstrip()}" if traceback else "")

    def _meant(self, worker: WorkerId, at: str) -> ReplicaHandle | None:
        """Return the worker that a front end speaks of, unless it is gone already."""
        handle = self._ready.get(worker)
        return handle if handle is not None and _address(handle) == at else None

    def _is_silent(self, worker: WorkerId, at: str, seconds: float, now: float) -> None:
        if self._meant(worker, at) is None or now - self._silent.get(at, -math.inf) < seconds:
            return  # another front end has told it
        self._silent[at] = now
        self._tally.add("worker_hangs_total", worker.api)
        _logger.warning(
            "%s of %s has said nothing for %g s, and has requests: it may hang. LitServer(deadline=…, kill_after=…) ends "
            "workers that go on after the deadline.",
            *self._called(worker),
            seconds,
        )

    def _kill(self, worker: WorkerId, at: str) -> None:
        handle = self._meant(worker, at)
        if handle is not None:
            self._engine.kill(handle, "it went on with what it was told to leave (kill_after)")

    def _tell_down(self, worker: WorkerId) -> None:
        gone = self._ready.pop(worker, None)
        if gone is not None:
            self._silent.pop(_address(gone), None)
            self._fronts.tell(state_frame(down=list(worker)))

    def _called(self, worker: WorkerId) -> tuple[str, str]:
        return f"worker {worker.index}", self._replicas[worker.api].path

    # -- load ----------------------------------------------------------------------------------------------------------

    def _scale(self, now: float) -> None:
        for api, desired in self._scaling.changes(now):
            _logger.info("%s: %d workers are wanted now, not %d", self._replicas[api].path, desired, self._wanted[api])
            self._wanted[api] = desired
            self._fleet.set_desired(api, desired)
            self._fronts.tell(state_frame(api=api, wanted=desired))

    def _load_of(self, api: int) -> Load:
        ready = self._fleet.states(api).count(State.READY)
        return Load(self._tally.total("queue_depth", api), self._tally.total("inflight", api), ready, self._wanted[api])

    # -- front ends ----------------------------------------------------------------------------------------------------

    def _greeting(self) -> Iterable[bytes]:
        for api, count in enumerate(self._wanted):
            yield state_frame(api=api, wanted=count)
        for api, message in self._failing.items():
            if message:
                yield state_frame(api=api, failing=message)
        for worker, replica in self._ready.items():
            yield state_frame(up=list(worker), at=_address(replica))

    def _front_gone(self, gone: FrontGone) -> None:
        if self._phase is not Phase.RUNNING:
            return
        if gone.could_not_start:  # and would not another time
            self._error = RemoteError(f"the front end could not start ({gone.why}), so the server stops. Its log says why.")
            self.stop(now=True)
            return
        _logger.error("front end %d %s and is started again", gone.number, gone.why)
        self._tally.front_gone(gone.number)
        self._fronts.start(self._greeting)

    # -- the beginning and the end -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._has_started and self._phase is Phase.RUNNING and self._fleet.is_whole() and self._fronts.are_serving():
            self._has_started = True
            if self._events.on_start is not None:
                self._events.on_start()
            self.started.set()

    def _step(self, now: float) -> None:
        """Go on towards the end, as far as it is due."""
        if self._phase is Phase.RUNNING and self._stops:
            self._phase, self._deadline = Phase.FRONTS_DRAIN, now + self._drain_seconds + _LAST_SECONDS
            self._fronts.stop()
            self._fronts.tell(drain_frame(now=self._stops > 1))
        elif self._phase is Phase.FRONTS_DRAIN and self._stops > 1 and self._deadline > now + _LAST_SECONDS:
            self._deadline = now + _LAST_SECONDS
            self._fronts.tell(drain_frame(now=True))
        if self._phase is Phase.FRONTS_DRAIN and (self._fronts.are_gone() or now >= self._deadline):
            self._fronts.close()
            self._phase, self._deadline = Phase.WORKERS_DRAIN, now + _LAST_SECONDS
            self._fleet.drain()
        if self._phase is Phase.WORKERS_DRAIN and (not self._handles or now >= self._deadline):
            self._phase, self._deadline = Phase.LOGS_DRAIN, now + (_LAST_SECONDS if self._stops > 1 else self._drain_seconds)
            self._logs.drain()
            self._logs.tend(now)
        if self._phase is Phase.LOGS_DRAIN:
            self._deadline = min(self._deadline, now + _LAST_SECONDS) if self._stops > 1 else self._deadline
            if self._logs.are_done or now >= self._deadline:
                self._phase = Phase.OVER

    def _end(self) -> None:
        if self._has_started and self._events.on_end is not None:
            self._events.on_end()
        self.started.set()  # whoever waits looks at `error`
        self._waker.close()

    def _signalled(self, number: signal.Signals) -> None:
        """Take SIGTERM and SIGINT for a wish to stop."""
        _logger.info("%s: the server stops%s", number.name, " now" if self._stops else " when its requests are done")
        self.stop()

    def strangers(self) -> Iterable[int]:
        """Return the file descriptors that a forked front end must not hold: others wait for their end."""
        return [*self._waker.descriptors(), *self._engine.descriptors(), *self._logs.descriptors()]


def _address(replica: ReplicaHandle) -> str:
    """Return where front ends find a worker."""
    return f"unix:{replica.address}"
