"""What a run is put together from: the plan of hooks, the boundary, calls that a profiler measures."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from leyden.fabric.launch.signals import DEFAULT_SIGNALS
from leyden.trainer.core.module import LightningModule
from leyden.trainer.engine.plan import MODULE, HookPlan
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.stop import Boundary, LocalBoundary, SharedBoundary
from leyden.trainer.loops.job_record import JobRecord


def make_plan(run: Run) -> HookPlan:
    """Return the plan for the run's module and callbacks."""
    wrap = None
    if (profiler := run.profiler) is not None:
        owner = type(run.module).__name__

        def wrap(key: str, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            action = f"[LightningModule]{owner}.{name}" if key == MODULE else f"[Callback]{key}.{name}"
            return profiled(profiler, action, call)

    return HookPlan(run.module, LightningModule, run.callbacks, run.trainer, wrap)


def profiled(profiler: Any, action: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call whose time the profiler measures under `action`."""

    @wraps(call)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with profiler.profile(action):
            return call(*args, **kwargs)

    return measured


def measured(run: Run, action: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that the run's profiler measures, if there is one."""
    return call if run.profiler is None else profiled(run.profiler, action, call)


def measured_items(run: Run, action: str, items: Iterable[Any]) -> Iterable[Any]:
    """Return items whose arrival the run's profiler measures, if there is one."""
    return items if run.profiler is None else _timed(run.profiler, action, items)


def _timed(profiler: Any, action: str, items: Iterable[Any]) -> Iterator[Any]:
    iterator, end = iter(items), object()
    while True:
        with profiler.profile(action):
            item = next(iterator, end)
        if item is end:
            return
        yield item


def make_boundary(run: Run) -> Boundary:
    """Install signal handlers and return what loops ask after each batch."""
    environment, strategy = run.strategy.cluster_environment, run.strategy
    requeue = getattr(environment, "requeue_signal", None) if getattr(environment, "auto_requeue", False) else None
    own = tuple(environment.stop_signals) if environment is not None else ()
    signals = tuple(dict.fromkeys((*DEFAULT_SIGNALS, *own)))
    if strategy.world_size == 1 and run.job is None:
        return LocalBoundary(signals, requeue_signal=requeue)
    if run.job is not None:
        run.job_record = JobRecord(run)
    others = (run.job_record,) if run.job is not None and strategy.is_global_zero else ()
    return SharedBoundary(
        run.shared_store, strategy.global_rank, strategy.world_size, signals, job=run.job, requeue_signal=requeue, others=others
    )
