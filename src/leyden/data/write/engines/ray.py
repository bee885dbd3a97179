"""Ray: actors that run the same driver loop as a process of one's own. A killed actor, or node, is a dead driver like any other."""

import contextlib
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from leyden.core.errors import ConfigError, LeydenError, RemoteError
from leyden.core.optional import require
from leyden.core.storage import open_storage
from leyden.data.write.journal import Journal
from leyden.data.write.plan import Plan
from leyden.data.write.running import Running, do_units
from leyden.data.write.unit import Task

_RESTARTS = 3  # of each actor, on average


@final
@dataclass(frozen=True, slots=True)
class RayEngine:
    """Runs a job's units in Ray actors. The output must be one place for all nodes: a bucket, or a shared folder.

    Args:
        num_actors: How many; each does one unit at a time.
        num_cpus: That an actor reserves.
        num_gpus: That an actor reserves.

    Raises:
        ConfigError: A number is not accepted.

    Example:
        >>> RayEngine(4).num_cpus
        1
    """

    num_actors: int
    num_cpus: float = 1
    num_gpus: float = 0

    def __post_init__(self) -> None:
        if isinstance(self.num_actors, bool) or not isinstance(self.num_actors, int) or self.num_actors < 1:
            raise ConfigError(f"RayEngine(num_actors={self.num_actors!r}): it takes a whole number ≥ 1.")
        if self.num_cpus < 0 or self.num_gpus < 0:
            raise ConfigError(f"RayEngine(num_cpus={self.num_cpus!r}, num_gpus={self.num_gpus!r}): both take numbers ≥ 0.")


def run_on_ray(engine: RayEngine | None, journal: Journal, plan: Plan, inputs: Sequence[Any], task: Task, running: Running) -> None:
    """Return when every unit is done.

    Args:
        engine: How many actors, of what size; `None` is one for each core of the cluster.
        journal: The job's.
        plan: Its plan.
        inputs: All inputs.
        task: What is done.
        running: How.

    Raises:
        UnitFailedError: An input failed, and the policy is to raise.
        RemoteError: Actors keep dying.
        ConfigError: Another node does not see the output.
    """
    ray: Any = require("ray", extra="ray", purpose='engine="ray"')
    if not ray.is_initialized():
        with _handler_kept():
            ray.init(log_to_driver=False)
    engine = engine or RayEngine(max(1, int(ray.cluster_resources().get("CPU", 1))))
    kind = ray.remote(num_cpus=engine.num_cpus, num_gpus=engine.num_gpus, max_restarts=0)(_Actor)
    shared = ray.put((plan, inputs, task, replace(running, progress=None), journal.job))

    def start() -> Any:
        return kind.remote().drive.remote(shared)

    running_now = [start() for _ in range(min(engine.num_actors, plan.units))]
    deaths = 0
    while running_now:
        (ended,), running_now = ray.wait(running_now, num_returns=1)
        try:
            ray.get(ended)
        except ray.exceptions.RayActorError as error:
            deaths += 1
            if deaths > _RESTARTS * engine.num_actors:
                raise RemoteError(f"{deaths} actors of Ray died, the last one: {error}. Everything that was done is kept.") from error
            running_now.append(start())
        except ray.exceptions.RayTaskError as error:
            raise _own(error) from error


@contextlib.contextmanager
def _handler_kept() -> Iterator[None]:
    """Put back what SIGTERM did, which Ray changes when it starts: whoever stops this process has a say in how."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _Actor:
    """A driver in an actor's process."""

    def drive(self, shared: "tuple[Plan, Sequence[Any], Task, Running, str]") -> None:
        plan, inputs, task, running, job = shared
        journal = Journal(open_storage(task.output, task.options), job)
        if not journal.exists():
            raise ConfigError(f"output_dir={task.output!r} is not the same place on all of Ray's nodes: use a bucket, or a shared folder.")
        do_units(journal, plan, inputs, task, replace(running, num_workers=_workers(task, running)))


def _workers(task: Task, running: Running) -> int:
    """Return 1 where an input may have to be ended, for which its worker is a process of its own; else 0: in the actor."""
    if running.timeout is None and running.memory_limit is None:
        return 0
    try:
        pickle.dumps(task)
    except Exception as error:
        raise ConfigError(f"timeout and memory_limit need a function at the top of a module, with Ray too ({error}).") from error
    return 1


def _own(error: Any) -> BaseException:
    """Return what the actor raised, if it is an error of ours."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, LeydenError) else RemoteError(f"an actor of Ray failed: {error}")
