"""Fitting: sanity check, epochs, their ends. The batches are in `epoch`."""

from leyden.core.errors import listed
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.fabric.utilities.warnings import PossibleUserWarning
from leyden.trainer.checkpoint import restore
from leyden.trainer.engine.modes import names_in_eval
from leyden.trainer.engine.run import Left, Run
from leyden.trainer.engine.state import Phase
from leyden.trainer.loops import feeds, schedule
from leyden.trainer.loops.assemble import measured
from leyden.trainer.loops.epoch import ends_here, rest_of_batch, step_plateaus, train_batches
from leyden.trainer.loops.evaluate import sanity_check

_IN_BATCH = (Phase.BATCH_END, Phase.VALIDATION, Phase.AFTER_VALIDATION)


def fit(run: Run) -> None:
    """Train until a limit is reached or somebody asks to stop."""
    state, clock = run.state, run.clock
    if run.restored is None:
        sanity_check(run)
    if run.config.cadence.limits["train"]:
        feeds.load_training(run)
    entry: Phase | None = None
    left: Left = None
    clock.start()
    try:
        if run.train is None or not any(run.train.num_batches):
            rank_zero_info("`Trainer.fit` stopped: No training batches.")
            return
        if run.restored is None and schedule.is_finished(run):
            return
        if run.val is None and _wants_validation(run):
            feeds.load_validation(run)
        if run.restored is not None:
            restore.enter_feeds(run)
            entry, left = state.phase, run.restored.left
        _start(run, entry, left)
        if entry is Phase.TRAIN_END and schedule.is_finished(run):
            run.at(Phase.TRAIN_END)
            run.fire("on_train_end", left=left)
            return
        if entry is Phase.TRAIN_END:  # of a shorter run: this one goes on
            entry, left = None, None
        while not (entry is None and schedule.is_finished(run)):
            train_epoch(run, entry, left)
            entry, left = None, None
        run.at(Phase.TRAIN_END)
        run.fire("on_train_end")
    finally:
        clock.stop()


def _wants_validation(run: Run) -> bool:
    """Return whether validation's loaders are asked for before training: where it is due, or where the saved run had them."""
    if run.restored is not None and (run.state.phase is Phase.TRAIN_END or run.restored.has_feed("val")):
        return run.restored.has_feed("val") and run.source.has("val")
    return schedule.validates_this_epoch(run)


def _start(run: Run, entry: Phase | None, left: Left) -> None:
    """Run `on_train_start`: in full, except where the checkpoint was written inside it."""
    if entry is not None:
        phase, run.state.phase = run.state.phase, Phase.TRAIN_START
        position, run.state.eval = run.state.eval, None
        run.fire("on_train_start", left=left if entry is Phase.TRAIN_START else None)
        run.state.phase, run.state.eval = phase, position
        run.restored.put_back(run)
        return
    if in_eval := names_in_eval(run.module):
        rank_zero_warn(
            f"Found {len(in_eval)} module(s) in eval mode at the start of training: {listed(in_eval)}. They stay so. If that is not "
            "intended, call model.train() before fit.",
            category=PossibleUserWarning,
        )
    run.store.begin_epoch("train")
    run.is_fresh = True  # what `on_train_start` logs belongs to the first epoch
    run.at(Phase.TRAIN_START)
    run.fire("on_train_start")


def train_epoch(run: Run, entry: Phase | None, left: Left) -> None:
    """Run one epoch, or what is left of a restored one."""
    state, clock = run.state, run.clock
    has_row = entry in (Phase.VALIDATION, Phase.AFTER_VALIDATION) and state.stepped  # of the batch that is not finished
    schedule.plan_rows_after(run) if has_row else schedule.plan_rows(run)
    is_over = False
    if entry in (None, Phase.TRAIN_START, Phase.EPOCH_START):
        _begin_epoch(run, left if entry is Phase.EPOCH_START else None)
        schedule.plan_validation(run, clock.batch)
    elif entry in _IN_BATCH:
        schedule.plan_validation(run, clock.batch)
        is_over = rest_of_batch(run, entry, left)
    elif entry is Phase.EPOCH_END:
        is_over = True
    else:
        schedule.plan_validation(run, clock.batch)
        is_over = entry is Phase.BATCH and ends_here(run)
    run.accumulate = run.trainer.accumulate_grad_batches
    if not is_over:
        measured(run, "run_training_epoch", train_batches)(run)
    _end_epoch(run, left if entry is Phase.EPOCH_END else None)


def _begin_epoch(run: Run, left: Left) -> None:
    feeds.reload_if_due(run)
    run.clock.batch, run.state.last_batch = 0, False
    if not run.is_fresh and left is None:
        run.store.begin_epoch("train")
    run.is_fresh = False
    run.at(Phase.EPOCH_START)
    run.fire("on_train_epoch_start", left=left)


def _end_epoch(run: Run, left: Left) -> None:
    clock = run.clock
    run.train.end()
    run.at(Phase.EPOCH_END)
    run.store.publish("train")
    run.fire("on_train_epoch_end", left=left)
    plateaus = [config for config in run.schedulers if config.interval == "epoch" and config.reduce_on_plateau]
    if run.module.automatic_optimization:
        step_plateaus(run, plateaus, clock.epoch)
    run.rows.train_epoch(clock)
    run.rows.save()
    clock.epoch += 1
    run.state.finished_batches, clock.batch = clock.batch, 0
    run.at(Phase.EPOCH_START)
