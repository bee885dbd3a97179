"""Calls for a router without a front end, and a router that is driven one turn at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from leyden.serve.effects import CallState, CancelOnWorker, Dispatch, Effect, Fail, Kill, Timing, Wake, Why, WorkerId, WorkerShape
from leyden.serve.limits import Limits
from leyden.serve.router import GIB, Router

EVERY_DEFAULT = Limits()


@dataclass(slots=True, eq=False)
class RoutedCall:
    id: int
    api: int = 0
    num_bytes: int = 1
    deadline: float = math.inf
    is_idempotent: bool = False
    is_answering: bool = False
    state: CallState = field(init=False)
    is_open: bool = field(init=False)
    is_retry: bool = field(init=False)
    arrival: float = field(init=False)
    since: float = field(init=False)
    worker: WorkerId | None = field(init=False)


class Driver:
    """A router, its fake time and what it asked for: every event is a turn of its own, with a tick and its effects."""

    def __init__(
        self,
        limits: Limits | Sequence[Limits] = EVERY_DEFAULT,
        *,
        deadline: float | None = None,
        max_bytes: int = GIB,
        kill_after: float | None = None,
    ) -> None:
        apis = [limits] if isinstance(limits, Limits) else limits
        self.router: Router[RoutedCall] = Router(apis, deadline=deadline, max_inflight_bytes=max_bytes, kill_after=kill_after)
        self.now = 0.0
        self.num_calls = 0
        self.sent: list[tuple[int, list[int]]] = []  # (index of the worker, ids)
        self.failed: dict[int, Fail[RoutedCall]] = {}
        self.cancelled: list[tuple[int, int, str]] = []  # (index of the worker, id, why)
        self.closings: list[bool] = []
        self.woken: list[int] = []  # APIs
        self.killed: list[int] = []  # indexes of workers

    def ready(self, index: int = 0, *, api: int = 0, **shape: int) -> None:
        self.router.worker_ready(WorkerId(api, index), WorkerShape(**shape), self.now)
        self.turn()

    def gone(self, index: int = 0, *, api: int = 0) -> None:
        self.router.worker_gone(WorkerId(api, index), "killed by SIGKILL", self.now)
        self.turn()

    def submit(self, count: int = 1, **call: object) -> list[RoutedCall]:
        """Submit calls that arrive in one turn."""
        calls = [RoutedCall(id=self.num_calls + number, **call) for number in range(1, count + 1)]
        self.num_calls += count
        for one in calls:
            self.router.submit(one, self.now)
        self.turn()
        return calls

    def end(self, *ids: int, index: int = 0, api: int = 0, timing: Timing | None = None) -> None:
        for number in ids:
            self.router.item_ended(WorkerId(api, index), number, timing, self.now)
        self.turn()

    def cancel(self, number: int, why: Why = "disconnect") -> None:
        self.router.cancel(number, why, self.now)
        self.turn()

    def at(self, now: float) -> None:
        self.now = now
        self.turn()

    def learn(self, seconds: float, *, index: int = 0, count: int = 12) -> None:
        """Let an idle worker end calls that take so long each."""
        for _ in range(count):
            (call,) = self.submit()
            self.now += seconds
            self.end(call.id, index=index, timing=Timing(1, seconds))
        self.sent.clear()

    def turn(self) -> None:
        self.router.tick(self.now)
        for effect in self.router.take_effects():
            self.note(effect)

    def note(self, effect: Effect[RoutedCall]) -> None:
        if isinstance(effect, Dispatch):
            self.sent.append((effect.worker.index, [call.id for call in effect.calls]))
            self.closings.append(effect.closes_batch)
        elif isinstance(effect, Fail):
            self.failed[effect.call.id] = effect
        elif isinstance(effect, CancelOnWorker):
            self.cancelled.append((effect.worker.index, effect.call.id, effect.why))
        elif isinstance(effect, Wake):
            self.woken.append(effect.api)
        elif isinstance(effect, Kill):
            self.killed.append(effect.worker.index)


def answers(driver: Driver) -> dict[int, tuple[int, str, int | None]]:
    """Return status, code and Retry-After of each call that was answered with an error."""
    return {number: (fail.status, fail.code, fail.retry_after) for number, fail in driver.failed.items()}
