"""One entry point from beginning to end: attach, set up, load, loop, tear down. The same for fit, validate, test and predict.

```
attach model, data, callbacks → check → prepare_data → setup → configure_model → [load weights, callbacks]
→ fit: optimizers → the strategy wraps → on_fit_start → [load optimizers, position] → loop → on_fit_end → teardown
an exception: callbacks and data module hear of it → loggers "failed" → it goes on; no teardown hooks
```
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch

from leyden.core.errors import ConfigError, StorageError
from leyden.core.log import get_logger
from leyden.fabric import checkpoint
from leyden.fabric.compilation import take_apart
from leyden.fabric.trees import leaves
from leyden.fabric.wrappers import FabricModule
from leyden.trainer.checkpoint import restore
from leyden.trainer.core.optimizer import LightningOptimizer, plan_optimizers
from leyden.trainer.data.sources import has_hook
from leyden.trainer.engine.modes import capture_modes, restore_modes
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.signatures import parameter, positional_count
from leyden.trainer.engine.stop import EndOfRun, Interrupted
from leyden.trainer.loops import feeds, hparams_rows
from leyden.trainer.loops.assemble import make_boundary, profiled
from leyden.trainer.loops.check import check_configuration
from leyden.trainer.loops.compiled import compile_steps, restore_methods
from leyden.trainer.loops.evaluate import PREFIX, evaluate, grad_free
from leyden.trainer.loops.fit import fit
from leyden.trainer.loops.optimize import NoOptimizer
from leyden.trainer.loops.predict import Prediction, predictions

_logger = get_logger(__name__)
STEPS = ("training_step", "validation_step", "test_step", "predict_step")


def execute(run: Run, *, ckpt_path: str | None, weights_only: bool | None) -> None:
    """Run fit, validate or test; what goes wrong is told to callbacks and loggers, and raised."""
    with told_of_errors(run), may_end_early(run):
        set_up(run, ckpt_path=ckpt_path, weights_only=weights_only)
        if run.state.fn == "fit":
            with torch.autograd.set_detect_anomaly(True) if run.config.defaults.detect_anomaly else contextlib.nullcontext():
                fit(run)
            if run.job_record is not None:
                run.job_record.report(1.0)
            run.fire("on_fit_end")
        else:
            feeds.load_evaluation(run, run.stage)
            if any(run.val.num_batches):
                with grad_free(run, in_fit=False):
                    evaluate(run, run.val, run.module, ticks=True)
        tear_down(run)


def execute_predict(run: Run, *, ckpt_path: str | None, weights_only: bool | None) -> Generator[Prediction]:
    """Run predict, yielding as it goes."""
    with told_of_errors(run), may_end_early(run):
        set_up(run, ckpt_path=ckpt_path, weights_only=weights_only)
        feeds.load_evaluation(run, "predict")
        if any(run.val.num_batches):
            stream = predictions(run, run.val)
            try:
                while True:
                    with grad_free(run, in_fit=False):  # not around the caller's code
                        prediction = next(stream, None)
                    if prediction is None:
                        break
                    yield prediction
            finally:
                with grad_free(run, in_fit=False):
                    stream.close()
        tear_down(run)


# -- set-up ------------------------------------------------------------------------------------------------------


def set_up(run: Run, *, ckpt_path: str | None, weights_only: bool | None) -> None:
    """Do everything before the loop."""
    module, strategy = run.module, run.strategy
    check_configuration(run)
    stage = run.state.fn
    if run.profiler is not None:
        run.profiler.setup(stage, strategy.local_rank if strategy.world_size > 1 else None, run.trainer.log_dir)
        run.profiler.attach(module)
    prepare_data(run)
    strategy.barrier("setup")
    if run.datamodule is not None and callable(getattr(run.datamodule, "setup", None)):
        run.datamodule.setup(stage)
    run.fire("setup", stage)
    with strategy.module_init_context():
        module.configure_model()
    restored = restore.open_checkpoint(run, ckpt_path, weights_only=weights_only) if ckpt_path is not None else None
    if restored is not None:
        restore.load_model(run, restored)
        restore.load_callbacks(run, restored)
    run.module_validates = run.plan.overrides("validation_step")
    wrap(run, restored)
    if restored is not None and restore.loads_late(run, restored):
        restore.load_sharded(run, restored)
    if run.log_hparams:
        hparams_rows.write(run)
    if stage == "fit":
        run.fire("on_fit_start")
        if restored is not None:
            restore.load_training_state(run, restored)
            run.restored, run.resumed_from = restored, restored.path
    early, run.boundary = run.boundary, make_boundary(run)
    for kind, payload in early.asked:  # by hooks of the set-up
        run.request(kind, payload)
    module.zero_grad()


def prepare_data(run: Run) -> None:
    """Call `prepare_data` once per node, or once, while the other ranks wait, however long it takes."""
    strategy = run.strategy
    for owner in (run.datamodule, run.module):
        if owner is None or not has_hook(owner, "prepare_data"):
            continue
        per_node = getattr(owner, "prepare_data_per_node", True)
        if not isinstance(per_node, bool):
            raise ConfigError(f"`prepare_data_per_node` should be True or False, not {per_node!r}.")
        with strategy.rank_zero_first(local=per_node):
            if strategy.local_rank == 0 and (per_node or strategy.node_rank == 0):
                owner.prepare_data()


def wrap(run: Run, restored: restore.Restored | None) -> None:
    """Configure optimizers and hand everything to the strategy, in fabric's order."""
    strategy, module = run.strategy, run.module
    is_fit = run.state.fn == "fit"
    policy = run.compile_policy
    if syncs_layers(run):
        run.layer_sync.apply(module)
    clip = run.config.gradients
    run.clips_at_step = is_fit and bool(clip.value) and clip.algorithm in (None, "norm") and strategy.clip_at_step(clip.value)
    inner = strategy.precision.convert_module(module)
    strategy.module_to_device(inner)
    inner = strategy.prepare_module(inner)
    if policy is not None:
        policy.compile_blocks(inner)
    optimizers: list[Any] = []
    scheduler: Any = None
    late = strategy.state_layout == "sharded"  # parameters become sharded ones: an optimizer is built over those
    if is_fit and not late:
        optimizers = configure_optimizers(run)
    if optimizers:
        forward_module, optimizers, scheduler = strategy.setup_module_and_optimizers(inner, optimizers, scheduler)
    else:
        forward_module = strategy.setup_module(inner)
    if is_fit and late:
        optimizers = [strategy.setup_optimizer(item) for item in configure_optimizers(run)]
    compile_steps(run)
    run.model = FabricModule(forward_module, strategy, original_module=take_apart(inner)[0])
    optimizers = optimizers or ([NoOptimizer()] if is_fit and module.automatic_optimization else [])
    run.optimizers = [LightningOptimizer(item, strategy, run, module) for item in optimizers]
    for name in STEPS:
        run.model.mark_forward_method(name)  # also those that a compiler or a test has put on the instance
    run.steps = {name: make_step_call(run, name) for name in STEPS}
    run.accumulate = run.trainer.accumulate_grad_batches


def syncs_layers(run: Run) -> bool:
    """Return whether batch norms share statistics over ranks during this run."""
    return run.config.defaults.sync_batchnorm and run.strategy.world_size > 1


def configure_optimizers(run: Run) -> list[Any]:
    """Call `configure_optimizers` and take its result apart."""
    returned = run.plan.method("configure_optimizers")()
    automatic = run.module.automatic_optimization
    plan = plan_optimizers(returned, automatic=automatic, custom_step=run.plan.overrides("lr_scheduler_step"))
    run.schedulers = plan.schedulers
    if automatic and len(plan.optimizers) > 1:
        raise TooManyOptimizersError(
            "Training with multiple optimizers is only supported with manual optimization. Set `self.automatic_optimization = False` in "
            "`__init__` and step in `training_step`: opt_a, opt_b = self.optimizers()."
        )
    return plan.optimizers


class TooManyOptimizersError(ConfigError, RuntimeError):
    """Several optimizers where the loop steps one."""


def make_step_call(run: Run, name: str) -> Callable[..., Any]:
    """Return a step through strategy and precision, as `(batch, batch_idx[, dataloader_idx])`, whatever the user's takes."""
    user = getattr(run.module, name)
    call = run.model.__dict__["_forward_methods"][name]
    if run.profiler is not None:
        call = profiled(run.profiler, f"[Strategy]{type(run.strategy).__name__}.{name}", call)
    count = positional_count(user)
    if name == "predict_step" and not run.plan.overrides(name):
        count = 1
    if count is None or (name == "training_step" and count >= 2):
        return call
    takes_loader = count >= 3 or parameter(user, "dataloader_idx") is not None
    return call if takes_loader and count >= 2 else taking(call, min(count, 2))


def taking(call: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Return a function of any number of arguments that hands on the first ones."""

    def first(batch: Any, *_: Any) -> Any:
        return call(batch)

    def first_two(batch: Any, index: int, *_: Any) -> Any:
        return call(batch, index)

    return first if count < 2 else first_two


# -- ends --------------------------------------------------------------------------------------------------------


def tear_down(run: Run) -> None:
    """Do everything after the loop, when all went well."""
    stage = run.state.fn
    if run.datamodule is not None and callable(getattr(run.datamodule, "teardown", None)):
        run.datamodule.teardown(stage)
    run.fire("teardown", stage)
    checkpoint.wait_for_saves()  # a save in the background is complete when the entry point returns, or says why not
    for logger in run.trainer.loggers:
        logger.finalize("success")
    if run.profiler is not None:
        run.profiler.describe()


@contextlib.contextmanager
def may_end_early(run: Run) -> Generator[None]:
    """Tear the run down where a hook ended it, with every submodule in the mode it came in."""
    modes = capture_modes(run.module)
    try:
        yield
    except EndOfRun:
        restore_modes(modes)
        tear_down(run)


@contextlib.contextmanager
def told_of_errors(run: Run) -> Iterator[None]:
    """Release everything at the end, and tell callbacks, data module and loggers of an exception before it goes on."""
    try:
        yield
    except GeneratorExit:
        tear_down(run)
        raise
    except BaseException as error:
        raised = Interrupted() if isinstance(error, KeyboardInterrupt) and not isinstance(error, Interrupted) else error
        if isinstance(error, torch.OutOfMemoryError):
            explain_memory(run, error)
        run.failure, run.state.has_failed = raised, True
        _tell(run, raised)
        if raised is error:
            raise
        raise raised from error
    finally:
        release(run)


def explain_memory(run: Run, error: BaseException) -> None:
    """Say with an out-of-memory error where it happened and what to try."""
    shapes = [tuple(leaf.shape) for leaf in leaves(run.batch) if isinstance(leaf, torch.Tensor)]
    error.add_note(
        f"Out of memory in {run.hook or run.stage} of batch {run.clock.batch}, with tensors of shapes {shapes}. "
        "Find a batch size that fits: Tuner(trainer).scale_batch_size(model), or accumulate gradients over smaller batches."
    )


def _tell(run: Run, error: BaseException) -> None:
    for _, call in run.plan["on_exception"]:
        _tell_one(error, "a callback's on_exception", call, error)
    if run.datamodule is not None and callable(getattr(run.datamodule, "on_exception", None)):
        _tell_one(error, "the data module's on_exception", run.datamodule.on_exception, error)
    try:
        checkpoint.wait_for_saves()
    except StorageError as other:  # the first exception wins
        error.add_note(f"Besides, a save in the background failed with {type(other).__name__}: {other}")
    for logger in run.trainer.loggers:
        _tell_one(error, f"{type(logger).__name__}.finalize", logger.finalize, "failed")


def _tell_one(error: BaseException, what: str, call: Callable[[Any], Any], argument: Any) -> None:
    """Call one of those who hear of an exception; what goes wrong there is logged and noted, for the first exception wins."""
    try:
        call(argument)
    except Exception as other:
        _logger.exception("%s failed", what)
        error.add_note(f"Besides, {what} raised {type(other).__name__}: {other}")


def release(run: Run) -> None:
    """Let go of iterators, threads and handlers."""
    run.feed_states = {}
    for stage, feed in (("train", run.train), ("val", run.val)):
        if feed is not None:
            with contextlib.suppress(Exception):
                run.feed_states[stage] = feed.state_dict()
            feed.close()
    if run.stage == "sanity" and run.sanity is not None:  # an exception ended the check
        run.sanity.close()
    if run.profiler is not None:
        run.profiler.teardown(run.state.fn)
    run.boundary.close()
    run.store.current = run.batch = None
    run.state.calls, run.state.has_failed = (), False
    run.module.__dict__["_log_sink"] = None
    restore_methods(run)
    if syncs_layers(run):
        run.layer_sync.revert(run.module)
    for prefix in PREFIX.values():
        run.steps.pop(f"{prefix}_step", None)
