"""`do_units`: this process drives a job's units to their end; what `optimize` and `map` have in common between plan and ending."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any, final

from leyden.core.arguments import positive, whole
from leyden.data.config import parse_bytes
from leyden.data.format.schema import Schema
from leyden.data.write.arguments import some_bytes, usable_workers
from leyden.data.write.driver import Driver, Policy
from leyden.data.write.feeding import Feed, ListedFeed
from leyden.data.write.journal import Journal
from leyden.data.write.litdata_layout import reserve_ranks
from leyden.data.write.litdata_packing import refuse_nulls
from leyden.data.write.packing import packs_of
from leyden.data.write.plan import Plan
from leyden.data.write.pool import InlinePool, Pool, ProcessPool
from leyden.data.write.progress import Told
from leyden.data.write.unit import Task
from leyden.data.write.watching import watch_of


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """How units are done; nothing of it changes bytes.

    Args:
        num_workers: Worker processes; `None`: all usable cores, 0: in this process.
        start_method: `forkserver`, `spawn` or `fork`; `None` chooses.
        retries: How often an input may end its worker before it counts as failed.
        timeout: Seconds an input may take.
        memory_limit: Bytes a worker may hold.
        progress: True or `None`: a line on a terminal; False: nothing; a function: called with inputs done, rows, bytes, failures.

    Raises:
        ConfigError: A number is not accepted.
    """

    num_workers: int | None
    start_method: str | None
    retries: int
    timeout: float | None
    memory_limit: int | str | None
    progress: bool | Told | None

    def __post_init__(self) -> None:
        usable_workers(self.num_workers)
        whole("retries", self.retries, 0)
        if self.timeout is not None:
            positive("timeout", self.timeout)
        if self.memory_limit is not None:
            some_bytes("memory_limit", self.memory_limit)


def do_units(journal: Journal, plan: Plan, inputs: Sequence[Any], task: Task, running: Running) -> None:
    """Return when every unit of a job is done, by this driver or another.

    Raises:
        UnitFailedError: An input failed, and the policy is to raise.
        ConfigError: A number is not accepted, or the function cannot be sent to a worker.
    """
    drive(journal, ListedFeed(plan, inputs), task, running, most_workers=plan.units)


def drive(journal: Journal, feed: Feed, task: Task, running: Running, *, most_workers: int | None = None) -> None:
    """Return when every unit that a feed gives is done, and packed.

    Args:
        journal: The job's.
        feed: Gives units.
        task: What is done.
        running: How.
        most_workers: More would have nothing to do.

    Raises:
        UnitFailedError: An input failed, and the policy is to raise.
        ConfigError: A number is not accepted, or the function cannot be sent to a worker.
    """
    workers = usable_workers(running.num_workers)
    pool = _pool(task, workers if most_workers is None else min(workers, most_workers), running)
    policy = Policy(on_error=task.on_error, retries=running.retries)
    try:
        Driver(journal, feed, pool, policy=policy, watch=watch_of(running.progress, _title(task.function))).run()
        if not task.writes_files and task.run is None:
            _pack(journal, feed.units(), task, pool, policy, running)
    finally:
        pool.close()


def _title(function: Any) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    return str(getattr(inner, "__name__", type(inner).__name__))


def _pack(journal: Journal, units: int, task: Task, pool: Pool, policy: Policy, running: Running) -> None:
    packs = packs_of([journal.record(unit) for unit in range(units)], task.settings, must_pack=task.litdata is not None)
    if packs and task.litdata is not None:
        refuse_nulls(Schema.from_json(packs[0].schema))
        first = reserve_ranks(journal, len(packs))
        packs = [pack._replace(first_rank=first) for pack in packs]
    if packs:
        watch = None if callable(running.progress) else watch_of(running.progress, "packing", things="packs")
        plan = Plan(journal.job, len(packs), "", tuple(range(len(packs) + 1)))
        Driver(journal.packing(), ListedFeed(plan, packs), pool, policy=policy, watch=watch).run()


def _pool(task: Task, workers: int, running: Running) -> Pool:
    limit = None if running.memory_limit is None else parse_bytes(running.memory_limit, "memory_limit")
    if workers:
        return ProcessPool(task, workers, start_method=running.start_method, timeout=running.timeout, memory_limit=limit)
    if running.timeout is not None or limit is not None:
        text = "timeout and memory_limit have no effect with num_workers=0: nobody can end an input in this process. Pass num_workers=1."
        warnings.warn(text, UserWarning, stacklevel=4)
    return InlinePool(task)
