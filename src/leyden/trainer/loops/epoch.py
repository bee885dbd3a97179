"""What happens between two training batches: all of it, in one function.

`train_batches` is the hot loop. Everything that is not the same for every batch was worked out before (`schedule`,
`optimize`): per batch there are a few integer comparisons. A resumed run that enters in the middle of a batch's end does
the rest of that batch in `rest_of_batch`, by the same functions.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from leyden.core.errors import ConfigError, closest, listed
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.checkpoint import restore
from leyden.trainer.engine.plan import MODULE
from leyden.trainer.engine.run import Left, Run
from leyden.trainer.engine.state import Phase
from leyden.trainer.loops import schedule
from leyden.trainer.loops.assemble import make_plan, measured, measured_items
from leyden.trainer.loops.decide import act
from leyden.trainer.loops.evaluate import validate
from leyden.trainer.loops.manual import manual_step
from leyden.trainer.loops.optimize import Step, detached, make_step

SKIP_EPOCH = -1


def train_batches(run: Run) -> None:  # noqa: C901, PLR0912, PLR0915 - what happens between two batches, in one place
    """Train until the epoch, or the run, is over. `run.clock.batch` is the first batch."""
    if run.state.should_stop and schedule.may_stop(run):
        return  # a hook before the first batch asked for it
    state, clock, callbacks, feed, boundary = run.state, run.clock, run.callbacks, run.train, run.boundary
    max_steps, counts = run.config.limits.max_steps, run.plan.overrides("count_samples") or run.plan.overrides("count_tokens")
    store = run.store
    version = callbacks.version
    step = choose_step(run)
    starts, ends = run.plan["on_train_batch_start"], run.plan["on_train_batch_end"]
    by_step = [config for config in run.schedulers if config.interval == "step" and not config.reduce_on_plateau]
    plateaus = [config for config in run.schedulers if config.interval == "step" and config.reduce_on_plateau]
    if not run.module.automatic_optimization:
        by_step, plateaus = list[Any](), list[Any]()
    checks_late = may_validate_unplanned(run)
    index = clock.batch
    state.phase = Phase.BATCH
    for batch in measured_items(run, "train_dataloader_next", restore.with_batch_again(run, feed)):
        if callbacks.version != version:
            run.plan, version = make_plan(run), callbacks.version
            step = choose_step(run)
            starts, ends = run.plan["on_train_batch_start"], run.plan["on_train_batch_end"]
        state.phase, state.last_batch = Phase.MID_BATCH, feed.is_last
        store.batch = run.batch = batch
        if batch is None:
            rank_zero_warn("train_dataloader yielded None. If this was on purpose, ignore this warning: the batch's hooks are skipped.")
            loss, extras = None, None
            state.stepped = False
        else:
            if starts and start_hooks(run, batch, index) == SKIP_EPOCH:
                step_schedulers(run, "epoch", clock.epoch)
                state.last_batch = True
                return
            loss, extras = step(batch, index)
        if counts and batch is not None:
            clock.samples += run.module.count_samples(batch)
            clock.tokens += run.module.count_tokens(batch)
        if by_step and state.stepped:
            step_schedulers(run, "step", index)
        if state.last_batch:
            step_schedulers(run, "epoch", clock.epoch)
        if ends and batch is not None:
            state.phase = Phase.BATCH_END
            run.validation_is_due = index == run.next_validation or (checks_late and schedule.is_validation_due(run, index))
            run.call("on_train_batch_end", ends, outputs(loss, extras), batch, index)
        store.current = store.batch = None
        if state.stepped and (clock.log_step == run.next_row or state.should_stop):
            write_row(run)
        if index == run.next_validation or ((checks_late or state.should_stop) and schedule.is_validation_due(run, index)):
            validate_and_plan(run, index)
        if plateaus and state.stepped:
            state.phase = Phase.AFTER_VALIDATION
            step_plateaus(run, plateaus, index)
        clock.log_step += state.stepped
        clock.batches += 1
        clock.ticks += 1
        index += 1
        clock.batch = index
        state.phase = Phase.BATCH
        if (decision := boundary()) is not None:
            act(run, decision)
        if state.last_batch or (max_steps != -1 and clock.step >= max_steps) or (state.should_stop and schedule.may_stop(run)):
            return


def rest_of_batch(run: Run, phase: Phase, left: Left) -> bool:
    """Do what a resumed batch has still before it, from `phase` on; return whether its epoch is over then."""
    state, clock = run.state, run.clock
    index = clock.batch
    if phase is Phase.BATCH_END:
        run.validation_is_due = schedule.is_validation_due(run, index)
        state.phase = phase
        run.fire("on_train_batch_end", None, None, index, left=left)
        if state.stepped and (clock.log_step == run.next_row or state.should_stop):
            write_row(run)
        if schedule.is_validation_due(run, index):
            validate_and_plan(run, index)
    elif phase is Phase.VALIDATION:
        validate_and_plan(run, index, left=left)
    else:
        schedule.plan_validation(run, index + 1)
    plateaus = [config for config in run.schedulers if config.interval == "step" and config.reduce_on_plateau]
    if plateaus and state.stepped and run.module.automatic_optimization:
        state.phase = Phase.AFTER_VALIDATION
        step_plateaus(run, plateaus, index)
    clock.log_step += state.stepped
    clock.batches += 1
    clock.batch = index + 1
    state.phase = Phase.BATCH
    return ends_here(run)


def ends_here(run: Run) -> bool:
    """Return whether the epoch ends after the batch that is finished."""
    return run.state.last_batch or schedule.steps_are_up(run) or (run.state.should_stop and schedule.may_stop(run))


def choose_step(run: Run) -> Step:
    """Return the function that runs a batch."""
    return measured(run, "run_training_batch", make_step(run) if run.module.automatic_optimization else manual_step(run))


def may_validate_unplanned(run: Run) -> bool:
    """Return whether validation may be due after a batch that nobody knew beforehand: by time, or at an unknown end."""
    cadence = run.config.cadence
    if not run.trainer.enable_validation:
        return False
    return cadence.validation_seconds is not None or cadence.validation_steps is not None or run.validation_batches == float("inf")


def start_hooks(run: Run, batch: Any, index: int) -> int | None:
    """Call `on_train_batch_start`, and return -1 where the module says to skip the epoch; callbacks have no say in it."""
    answer: list[Any] = []
    hooks = run.plan["on_train_batch_start"]
    calls = tuple((name, _keeping(function, answer) if name == MODULE else function) for name, function in hooks)
    run.call("on_train_batch_start", calls, batch, index)
    return SKIP_EPOCH if any(type(value) is int and value == SKIP_EPOCH for value in answer) else None


def _keeping(function: Any, answers: list[Any]) -> Any:
    def keep(*args: Any) -> None:
        answers.append(function(*args))

    return keep


def outputs(loss: Tensor | None, extras: Mapping[str, Any] | None) -> Any:
    """Return what `on_train_batch_end` gets: nothing in it where the batch was skipped, or the step returned nothing."""
    if loss is None:
        return extras or {}
    return {"loss": detached(loss), **extras} if extras else {"loss": detached(loss)}


def write_row(run: Run) -> None:
    """Write the row of a training step."""
    run.rows.train_step(run.clock)
    schedule.plan_rows_after(run)


def validate_and_plan(run: Run, index: int, left: Left = None) -> None:
    """Validate, and work out when next."""
    run.validation_is_due = False
    run.state.phase = Phase.VALIDATION
    validate(run, left=left)
    run.state.triggers["validation"] = run.clock.seconds
    run.state.phase = Phase.AFTER_VALIDATION
    schedule.plan_validation(run, index + 1)
    run.store.batch = None


def step_schedulers(run: Run, interval: str, count: int) -> None:
    """Step the schedulers of an interval that want no metric."""
    if not run.module.automatic_optimization:
        return
    for config in run.schedulers:
        if config.interval != interval or config.reduce_on_plateau or (count + 1) % config.frequency:
            continue
        if getattr(getattr(config.scheduler, "optimizer", None), "last_step_skipped", False):
            continue  # the scaler left the step out, so the schedule waits too
        run.one("lr_scheduler_step", run.plan.method("lr_scheduler_step"), config.scheduler, None)


def step_plateaus(run: Run, configs: list[Any], count: int) -> None:
    """Step schedulers that want a metric.

    Raises:
        ConfigError: The metric is not there, and the scheduler is strict.
    """
    for config in configs:
        if (count + 1) % config.frequency:
            continue
        metrics = run.store.callback_metrics
        if config.monitor not in metrics:
            message = (
                f"ReduceLROnPlateau conditioned on metric {config.monitor} which is not available. Available metrics are: "
                f"{listed(metrics)}.{closest(str(config.monitor), metrics)} Condition it on one of them, or log it."
            )
            if config.strict:
                raise ConfigError(message)
            rank_zero_warn(message, category=RuntimeWarning)
            continue
        run.one("lr_scheduler_step", run.plan.method("lr_scheduler_step"), config.scheduler, metrics[config.monitor])
