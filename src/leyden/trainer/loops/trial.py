"""Trials: a few steps of a run beside the run, without a trace.

A finder wants to know how training behaves with another learning rate or batch size. `trial` runs the same loops with a
position, callbacks, limits and metrics of its own and without loggers, and afterwards puts back weights, optimizers,
loaders, metric objects, modes and random numbers, whatever happened. The trainer that the module and the trial's callbacks
see meanwhile is another one beside the real one, which is never edited.

What cannot be put back is what the module's own hooks do outside of tensors: its plain attributes, files, prints.
"""

import sys
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from leyden.core.errors import StateError
from leyden.fabric.rng import isolate_rng
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.module import LightningModule
from leyden.trainer.core.optimizer import LightningOptimizer
from leyden.trainer.data.collections import flattened
from leyden.trainer.engine.plan import HookPlan
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.state import Phase, RunState
from leyden.trainer.engine.stop import NoBoundary
from leyden.trainer.loops import feeds
from leyden.trainer.loops.borrow import BorrowedSource, batch_sizes, num_samples
from leyden.trainer.loops.evaluate import evaluate
from leyden.trainer.loops.fit import fit
from leyden.trainer.loops.predict import predictions
from leyden.trainer.loops.run import STEPS, configure_optimizers, make_step_call, release
from leyden.trainer.loops.snapshot import Snapshot
from leyden.trainer.metrics.rows import Rows
from leyden.trainer.metrics.store import MetricStore
from leyden.trainer.utilities.memory import garbage_collection_cuda, is_oom_error

_LOADERS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
_BEFORE_BATCHES = (Phase.TRAIN_START, Phase.EPOCH_START)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """How a trial went.

    Args:
        steps: Batches in which an optimizer stepped.
        batches: Training batches.
        metrics: What was logged, as `callback_metrics` names it.
        num_samples: How many samples the data has, where it says so.
        batch_sizes: The batch sizes of those loaders that say one.
    """

    steps: int = 0
    batches: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    num_samples: int | None = None
    batch_sizes: Sequence[int] = ()


class _TrialEnd(Callback):
    """Ends a trial whose optimizer does not step, or not in every batch: a module that steps by hand may never."""

    def __init__(self, most: int) -> None:
        self.most = most

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.run.clock.batches + 1 >= self.most:
            trainer.should_stop = True


def trial(trainer: Any, *, max_steps: int, callbacks: Sequence[Callback] = (), limits: Mapping[str, float] | None = None) -> TrialResult:
    """Run the loop of the entry point that runs, for a few steps, and leave no trace.

    In fit, call it where no batch is under way: in `on_fit_start`, `on_train_start` or `on_train_epoch_start`; else in the
    start hooks of the evaluation. Learning-rate schedulers are there but do not step.

    Args:
        trainer: The trainer.
        max_steps: The number of optimizer steps; in manual optimisation of batches.
        callbacks: Who watches. The run's own callbacks hear nothing of it.
        limits: Stage (`train`, `val`, `test`, `predict`) → batches of it, instead of the trainer's.

    Raises:
        StateError: The place is wrong.
        UnsupportedError: The strategy keeps weights where a trial cannot put them back.
        ConfigError: The data can be read only once.
    """
    outer: Run = trainer.run
    _check_place(outer)
    run = _beside(trainer, outer, max_steps, callbacks, limits or {})
    with isolate_rng():
        snapshot = Snapshot(run)
        with _put_back(outer, run, snapshot):
            _go(run)
            combined = run.loaders.get(_LOADERS[run.state.fn])  # none are made where no batch is taken
            loaders = flattened(combined.iterables) if combined is not None else []
            return TrialResult(
                steps=run.clock.step if run.state.fn == "fit" else 0,
                batches=run.clock.batches if run.state.fn == "fit" else 0,
                metrics={name: float(value) for name, value in run.store.callback_metrics.items()},
                num_samples=num_samples(loaders),
                batch_sizes=batch_sizes(loaders),
            )
    raise AssertionError("unreachable")  # pragma: no cover - isolate_rng swallows nothing


def reload_loaders(trainer: Any) -> None:
    """Ask for the loaders of the run anew, because what they are made of has changed; those not asked for yet come when due."""
    run: Run = trainer.run
    _check_place(run)
    if run.state.fn != "fit":
        run.val.close()
        with isolate_rng():
            feeds.load_evaluation(run, run.stage)
        return
    if run.train is not None:
        run.train.close()
        with isolate_rng():
            feeds.load_training(run)
    if run.val is not None:
        run.val.close()
        run.val = None


def renew_optimizers(trainer: Any) -> None:
    """Call `configure_optimizers` again before the first step, because what it reads has changed."""
    run: Run = trainer.run
    with isolate_rng():
        fresh = [run.strategy.setup_optimizer(item) for item in configure_optimizers(run)]
    run.optimizers = [LightningOptimizer(item, run.strategy, run, run.module) for item in fresh]


# -- the run beside ----------------------------------------------------------------------------------------------


def _check_place(run: Run) -> None:
    if run.state.fn == "fit" and (run.state.phase not in _BEFORE_BATCHES or run.stage != "train"):
        raise StateError(
            f"A trial cannot run in {run.hook or 'this place'}: a batch of the run is under way. Call it in on_fit_start, on_train_start "
            "or on_train_epoch_start."
        )


def _beside(trainer: Any, outer: Run, max_steps: int, callbacks: Sequence[Callback], limits: Mapping[str, float]) -> Run:
    """Return a run like `outer`, for another trainer, that has not begun."""
    fn, strategy, module = outer.state.fn, outer.strategy, outer.module
    state = RunState(fn=fn)
    most = max_steps * (trainer.accumulate_grad_batches if module.automatic_optimization else 1)
    config = _config(outer.config, max_steps, limits)
    other = trainer.for_trial(config=config, callbacks=[*callbacks, _TrialEnd(most)], state=state)
    gather = strategy.all_gather if strategy.world_size > 1 else None
    store = MetricStore(device=strategy.root_device, world_size=strategy.world_size, rank=strategy.global_rank, all_gather=gather)
    store.attach(module)
    run = Run(
        trainer=other,
        config=config,
        module=module,
        datamodule=outer.datamodule,
        callbacks=other.callbacks,
        strategy=strategy,
        store=store,
        rows=Rows(store, [], state),
        plan=HookPlan(module, LightningModule, other.callbacks, other),
        boundary=NoBoundary(),
        state=state,
        stage=outer.stage,
        model=outer.model,
        accumulate=other.accumulate_grad_batches,
        source=BorrowedSource(outer.source),
        module_validates=outer.module_validates,
        log_hparams=False,
        root_dir=outer.root_dir,
    )
    run.optimizers = [LightningOptimizer(item.optimizer, strategy, run, module) for item in outer.optimizers]
    run.schedulers = [replace(config, frequency=sys.maxsize) for config in outer.schedulers]  # to look at; none is ever due
    run.steps = {name: make_step_call(run, name) for name in STEPS}
    other.begin_run(run)
    return run


def _config(config: Any, max_steps: int, limits: Mapping[str, float]) -> Any:
    """Return the configuration of a trial: its own end and limits, no sanity check, no rows."""
    return replace(
        config,
        # An epoch has at least one step, so `max_steps` epochs always suffice; they end a trial that skips all its batches.
        limits=replace(config.limits, max_epochs=max_steps, min_epochs=None, max_steps=max_steps, min_steps=None, max_time=None),
        cadence=replace(
            config.cadence,
            limits={**config.cadence.limits, **limits},
            num_sanity_val_steps=0,
            log_every_n_steps=0,
            reload_dataloaders_every_n_epochs=0,
        ),
        fast_dev_run=0,
    )


def _go(run: Run) -> None:
    if run.state.fn == "fit":
        fit(run)
        return
    feeds.load_evaluation(run, run.stage)
    if not any(run.val.num_batches):
        return
    if run.state.fn == "predict":
        for _ in predictions(run, run.val):
            pass
    else:
        evaluate(run, run.val, run.module, ticks=True)


@contextmanager
def _put_back(outer: Run, run: Run, snapshot: Snapshot) -> Generator[None]:
    """Let module and data module belong to the trial in the block, and afterwards to the run again, as they were before it."""
    module, datamodule = run.module, run.datamodule
    has_trainer = datamodule is not None and hasattr(type(datamodule), "trainer")
    sink = module.__dict__["_log_sink"]
    module.trainer, module.__dict__["_log_sink"] = run.trainer, run.store
    if has_trainer:
        datamodule.trainer = run.trainer
    for callback in run.callbacks:
        callback.__dict__["log"], callback.__dict__["log_dict"] = module.log, module.log_dict
    try:
        yield
    except BaseException as error:
        if is_oom_error(error):  # what the failed batch still holds is in the frames that it left
            traceback.clear_frames(error.__traceback__)
        raise
    finally:
        release(run)
        module.trainer, module.__dict__["_log_sink"] = outer.trainer, sink
        if has_trainer:
            datamodule.trainer = outer.trainer
        snapshot.put_back(run)
        run.source.give_back()
        garbage_collection_cuda()
