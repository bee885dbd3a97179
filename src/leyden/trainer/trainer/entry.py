"""From a call of `fit` to a `Run`: launch the ranks, attach module and data, find the checkpoint, run, and say how it went."""

import math
from collections.abc import Callable
from typing import Any

from leyden.core import job
from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.compilation import take_apart
from leyden.fabric.launch.function import FunctionLauncher
from leyden.fabric.launch.store import MemoryStore
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.trainer.callbacks.model_checkpoint import ModelCheckpoint
from leyden.trainer.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
from leyden.trainer.checkpoint import paths
from leyden.trainer.core.module import LightningModule
from leyden.trainer.core.optimizer import LightningOptimizer
from leyden.trainer.data.sources import Source
from leyden.trainer.engine.plan import CallbackList
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.state import RunState
from leyden.trainer.engine.stop import NoBoundary
from leyden.trainer.loops import feeds
from leyden.trainer.loops.assemble import make_plan
from leyden.trainer.metrics.rows import Rows
from leyden.trainer.metrics.store import MetricStore
from leyden.trainer.profilers.profiler import PassThroughProfiler
from leyden.trainer.trainer import assembly, shipping
from leyden.trainer.trainer.states import TrainerStatus

_STAGES = {"fit": "train", "validate": "validate", "test": "test", "predict": "predict"}


class NoModelError(ConfigTypeError):
    """An entry point was called without a module."""


def take_module(fn: str, model: Any, current: Any) -> tuple[Any, Any]:
    """Return the module and what compiles another one the same way.

    Raises:
        ConfigTypeError: There is none, or it is no `LightningModule`.
    """
    if model is None:
        if current is None or fn == "fit":
            raise NoModelError(
                f"`Trainer.{fn}()` requires a `LightningModule` when it hasn't been passed in a previous run: trainer.{fn}(model)."
            )
        return current, None
    inner, _ = take_apart(model)
    if not isinstance(inner, LightningModule):
        raise ConfigTypeError(f"`model` must be a `LightningModule` or `torch._dynamo.OptimizedModule`, got `{type(model).__qualname__}`.")
    return inner, getattr(model, "dynamo_ctx", None) if inner is not model else None


def launch(trainer: Any, work: Callable[[], Any]) -> Any:
    """Run `work` in every rank, started from here if need be, and return rank 0's result."""
    strategy = trainer.strategy
    if trainer.is_launched:
        return work()
    launcher = strategy.make_launcher()
    strategy.launcher = launcher
    if launcher is None:
        return _joined(trainer, work)
    if isinstance(launcher, FunctionLauncher):
        return shipping.launch(trainer, launcher, work)
    return launcher.launch(_joined, trainer, work)


def _joined(trainer: Any, work: Callable[[], Any]) -> Any:
    trainer.strategy.setup_environment()
    trainer.note_launched()
    return work()


def make_run(trainer: Any, fn: str, source: Source, compiler: Any) -> Run:
    """Return the run for an entry point; callbacks and hooks are attached, nothing has happened yet."""
    module, strategy, config = source.model, trainer.strategy, trainer.config
    callbacks = trainer.callbacks
    plan_callbacks = assembly.with_module_callbacks(callbacks, module)
    if plan_callbacks != list(callbacks):
        trainer.callbacks = callbacks = CallbackList(plan_callbacks)
    assembly.check_state_keys(callbacks)
    gather = strategy.all_gather if strategy.world_size > 1 else None
    store = MetricStore(device=strategy.root_device, world_size=strategy.world_size, rank=strategy.global_rank, all_gather=gather)
    store.attach(module)
    state = trainer.fit_state if fn == "fit" else RunState(clock=trainer.fit_state.clock, fn=fn)
    state.fn, state.should_stop, state.eval = fn, False, None
    run = Run(
        trainer=trainer,
        config=config,
        module=module,
        datamodule=source.datamodule,
        callbacks=callbacks,
        strategy=strategy,
        store=store,
        rows=Rows(store, trainer.loggers, state),
        plan=None,  # pyrefly: ignore[bad-argument-type] - made in the next line, from the run
        boundary=NoBoundary(),
        state=state,
        stage=_STAGES[fn],
    )
    run.source, run.compiler, run.compile_policy, run.layer_sync = source, compiler, trainer.compile_policy, trainer.layer_sync
    run.profiler = None if isinstance(trainer.profiler, PassThroughProfiler) else trainer.profiler
    run.fast_dev_run, run.root_dir = config.fast_dev_run, trainer.default_root_dir
    run.log_hparams, run.job, run.job_checkpoint = trainer.logs_hparams, job.current_job(), trainer.job_checkpoint
    trainer.kept_version.keep(trainer.loggers)
    run.shared_store = MemoryStore() if strategy.world_size == 1 else strategy.group.store
    run.plan = make_plan(run)
    module.trainer = trainer
    if source.datamodule is not None and hasattr(type(source.datamodule), "trainer"):
        source.datamodule.trainer = trainer
    sink = store if not config.defaults.barebones else trainer.muted_sink
    module.__dict__["_log_sink"] = sink
    for callback in callbacks:
        callback.__dict__["log"], callback.__dict__["log_dict"] = module.log, module.log_dict
    return run


def choose_checkpoint(trainer: Any, fn: str, given: Any, *, has_model: bool) -> str | None:
    """Return the path to load, of what the caller asked for or what a run finds by itself.

    Raises:
        ConfigError: A word that means nothing here.
    """
    savers = [callback for callback in trainer.callbacks if isinstance(callback, ModelCheckpoint)]
    crash = [callback.ckpt_path for callback in trainer.callbacks if isinstance(callback, OnExceptionCheckpoint)]
    crash = [path for path in crash if paths.exists(path)]
    if fn != "fit" and given is None and not has_model:
        if not savers or not savers[0].best_model_path:
            return None
        given = "best"
        rank_zero_warn(
            f"`.{fn}(ckpt_path=None)` was called without a model. The best model of the previous `fit` call will be used. Pass "
            f'`.{fn}(ckpt_path="best")` to use the best one, or `.{fn}(ckpt_path="last")` for the last.'
        )
    if given is not None:
        if trainer.fast_dev_run and str(given) in paths.WORDS:
            raise ConfigError(f"ckpt_path={str(given)!r} means nothing with fast_dev_run, which saves no checkpoint. Drop one of the two.")
        return paths.resolve(given, savers=savers, loggers=trainer.loggers, others=crash, root_dir=trainer.default_root_dir)
    if fn != "fit" or trainer.fast_dev_run:
        return None
    if trainer.job_checkpoint is not None and paths.exists(str(trainer.job_checkpoint)):
        return str(trainer.job_checkpoint)
    if trainer.runs_under_slurm and (found := paths.newest_hpc(trainer.default_root_dir)) is not None:
        return found
    return crash[0] if crash else None


def finish(trainer: Any, run: Run) -> None:
    """Note how an entry point went."""
    trainer.note_status(TrainerStatus.INTERRUPTED if run.failure is not None else TrainerStatus.FINISHED)


def estimated_steps(trainer: Any, run: Run | None) -> float:
    """Return how many steps fit will take: by epochs, capped by `max_steps`; infinite where there is no limit."""
    limits = trainer.config.limits
    if limits.max_epochs == -1 and limits.max_steps == -1:
        return math.inf
    if limits.max_epochs == -1:
        return limits.max_steps
    if run is None:  # nobody knows the loaders yet
        return math.inf if limits.max_steps == -1 else limits.max_steps
    if run.train is None and trainer.limit_train_batches:
        rank_zero_info("Loading `train_dataloader` to estimate number of stepping batches.")
        feeds.load_training(run)
    batches = trainer.num_training_batches if trainer.limit_train_batches else 0
    if math.isinf(batches):
        return math.inf if limits.max_steps == -1 else limits.max_steps
    total = math.ceil(batches / trainer.accumulate_grad_batches) * max(limits.max_epochs, 1)
    return min(total, limits.max_steps) if limits.max_steps != -1 else total


def wrap_optimizer(run: Run, optimizer: Any) -> LightningOptimizer:
    """Return an optimizer as the run steps it."""
    inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    return LightningOptimizer(inner, run.strategy, run, run.module)
