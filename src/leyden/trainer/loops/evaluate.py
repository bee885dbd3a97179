"""Evaluation: validation inside fit, the sanity check, `validate` and `test`. One function, four callers."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from leyden.fabric.rng import isolate_rng
from leyden.trainer.checkpoint import restore
from leyden.trainer.engine.modes import capture_modes, restore_modes
from leyden.trainer.engine.run import Left, Run
from leyden.trainer.engine.state import EvalPhase, EvalPosition, remaining
from leyden.trainer.loops import feeds
from leyden.trainer.loops.decide import tick

PREFIX = {"sanity": "validation", "validate": "validation", "test": "test", "predict": "predict"}
_ORDER = tuple(EvalPhase)


def validate(run: Run, left: Left = None) -> None:
    """Validate inside fit, from the saved position on if there is one."""
    stage, run.stage = run.stage, "validate"
    try:
        if run.state.eval is None and run.state.micro == 0:
            run.one("on_validation_model_zero_grad", run.plan.method("on_validation_model_zero_grad"))
        if run.val is None:
            feeds.load_validation(run)
        if run.val is not None and any(run.val.num_batches):
            with grad_free(run, in_fit=True):
                evaluate(run, run.val, run.module, left=left, ticks=True)
    finally:
        run.stage = stage


def sanity_check(run: Run) -> None:
    """Run a few validation batches before training, without a trace in random numbers, metrics or loaders."""
    if not run.config.cadence.num_sanity_val_steps or not run.trainer.enable_validation:
        return
    stage, run.stage = run.stage, "sanity"
    with isolate_rng():
        run.fire("on_sanity_check_start")
        feeds.load_sanity(run)
        untouched = run.val.state_dict()
        if any(run.sanity.num_batches):
            with grad_free(run, in_fit=True):
                evaluate(run, run.sanity, run.module, ticks=False)
        run.fire("on_sanity_check_end")
    run.store.discard("sanity")
    run.stage = stage
    run.sanity.close()
    run.val.load_state_dict(untouched)


def evaluate(run: Run, feed: Any, module: Any, *, left: Left = None, ticks: bool) -> None:
    """Run the evaluation hooks and steps of `run.stage` over a feed.

    Args:
        run: The run; `run.state.eval` is where to go on, if it is there.
        feed: The batches.
        module: The user's module.
        left: Callees of the hook that the saved run was inside, which come yet.
        ticks: Whether the boundary is asked after each batch.
    """
    stage, prefix = run.stage, PREFIX[run.stage]
    resumed = run.state.eval
    entry = _ORDER.index(resumed.phase) if resumed is not None else -1
    modes = run.training_modes = run.training_modes or capture_modes(module)
    run.one(f"on_{prefix}_model_eval", run.plan.method(f"on_{prefix}_model_eval"))
    position = run.state.eval = resumed or EvalPosition()  # only now: before, nothing of it is done
    if resumed is None:
        run.store.begin_epoch(stage)
        run.rows.begin_eval(stage, len(feed.num_batches))
    _fire(run, f"on_{prefix}_start", EvalPhase.START, entry, left)
    feed = feed if stage == "sanity" else run.val  # a finder may have asked for the loaders anew
    _fire(run, f"on_{prefix}_epoch_start", EvalPhase.EPOCH_START, entry, left)
    if entry <= _ORDER.index(EvalPhase.BATCH_END):
        _batches(run, feed, position, left if resumed is not None and resumed.phase is EvalPhase.BATCH_END else None, ticks=ticks)
    feed.end()
    if entry <= _ORDER.index(EvalPhase.EPOCH_END):
        run.store.publish(stage)
    _fire(run, f"on_{prefix}_epoch_end", EvalPhase.EPOCH_END, entry, left)
    if entry < _ORDER.index(EvalPhase.END):
        run.results = run.rows.eval_epoch(stage, run.clock, len(feed.num_batches))
    _fire(run, f"on_{prefix}_end", EvalPhase.END, entry, left)
    back = f"on_{prefix}_model_train"
    if run.plan.overrides(back):
        run.one(back, run.plan.method(back))
    else:
        restore_modes(modes)
    run.state.eval = run.training_modes = None


def _fire(run: Run, name: str, phase: EvalPhase, entry: int, left: Left) -> None:
    """Fire a hook, unless the saved run was past it."""
    at = _ORDER.index(phase)
    if at < entry:
        return
    run.state.eval.phase = phase  # pyrefly: ignore[missing-attribute] - set by evaluate
    run.fire(name, left=left if at == entry else None)


def _batches(run: Run, feed: Any, position: EvalPosition, left: Left, *, ticks: bool) -> None:
    stage, prefix, store, plan = run.stage, PREFIX[run.stage], run.store, run.plan
    step = run.steps[f"{prefix}_step"]
    starts, ends = plan[f"on_{prefix}_batch_start"], plan[f"on_{prefix}_batch_end"]
    slots, several = store.slots(stage, f"{prefix}_step"), len(feed.num_batches) > 1
    if position.phase is EvalPhase.BATCH_END and left is not None:
        _rest_of_batch(run, feed, position, left)
        position.batch += 1
    position.phase, run.batch = EvalPhase.BATCH, None
    for batch in restore.with_batch_again(run, feed):
        index, loader = feed.batch_idx, feed.dataloader_idx
        position.loader, position.batch, position.phase = loader, index, EvalPhase.BATCH
        store.batch = run.batch = batch
        store.dataloader_idx = loader if several else None
        where = (batch, index, loader) if several else (batch, index)
        if starts:
            run.call(f"on_{prefix}_batch_start", starts, *where)
        store.current = slots
        out = step(*where)
        store.current = None
        if ends:
            position.phase = EvalPhase.BATCH_END
            run.call(f"on_{prefix}_batch_end", ends, out, *where)
        run.rows.eval_step(stage, loader)
        store.batch = run.batch = None
        position.batch, position.phase = index + 1, EvalPhase.BATCH
        if ticks:
            tick(run)
    store.dataloader_idx = None


def _rest_of_batch(run: Run, feed: Any, position: EvalPosition, left: Left) -> None:
    """Call what the saved run had not called yet at the end of its batch; outputs and batch are gone with that process."""
    prefix = PREFIX[run.stage]
    several = len(feed.num_batches) > 1
    run.store.dataloader_idx = position.loader if several else None
    calls = remaining(run.plan[f"on_{prefix}_batch_end"], left)
    where = (position.batch, position.loader) if several else (position.batch,)
    run.call(f"on_{prefix}_batch_end", calls, None, None, *where)
    run.rows.eval_step(run.stage, position.loader)


def grad_free(run: Run, *, in_fit: bool) -> AbstractContextManager[Any]:
    """Return the context of evaluation: inference mode, or `no_grad` in fit and where the strategy cannot do it."""
    can_infer = (
        run.config.defaults.inference_mode and not in_fit and run.strategy.world_size == 1 and run.strategy.state_layout == "replicated"
    )
    return torch.inference_mode() if can_infer else torch.no_grad()
