"""One optimiser step in automatic mode, two ways.

`plain_step` runs everything inline, for the usual case; `closure_step` goes through `module.optimizer_step` with a closure,
for everything else: an overridden step, a scaler, DeepSpeed, LBFGS, gradients that must not be reduced yet. The order of
hooks is the same. Both are made once per epoch and close over what they need, so that a batch costs no attribute look-ups.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from leyden.core.errors import ConfigError, StateError, listed
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.strategies.strategy import Strategy
from leyden.trainer.core.optimizer import needs_closure
from leyden.trainer.engine.run import Run

Step = Callable[[Any, int], Any]
"""Runs a batch and returns `(loss, extras)`; `loss` is `None` for a skipped batch."""


class NoOptimizer(Optimizer):
    """Stands for the optimizer of a module that has none: its step runs the closure."""

    def __init__(self) -> None:
        super().__init__([torch.zeros(1)], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run the closure."""
        return closure() if closure is not None else None

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's signature
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""


def make_step(run: Run) -> Step:
    """Return the step function for this epoch."""
    return plain_step(run) if is_plain(run) else closure_step(run)


def is_plain(run: Run) -> bool:
    """Return whether the inline step does what the general one would."""
    strategy, plan = run.strategy, run.plan
    optimizer = run.optimizers[0].optimizer
    return (
        strategy.precision.plain
        and not strategy.owns_backward
        and (run.accumulate == 1 or not (strategy.supports_no_sync and strategy.world_size > 1))
        and not plan.overrides("optimizer_step")
        and run.profiler is None
        and not isinstance(optimizer, LBFGS)
        and type(strategy).optimizer_step is Strategy.optimizer_step
        and not needs_closure(optimizer)
    )


def plain_step(run: Run) -> Step:  # noqa: C901 - a measured hot path
    """Return the inline step."""
    state, clock, store, plan, feed = run.state, run.clock, run.store, run.plan, run.train
    k, optimizer = run.accumulate, run.optimizers[0].optimizer
    training_step = run.steps["training_step"]
    slots = store.slots("train", "training_step")
    before_zero, zero_grad = plan["on_before_zero_grad"], _zero_grad(run, optimizer)
    before_backward, backward, after_backward = plan["on_before_backward"], _backward(run), plan["on_after_backward"]
    between = bool(plan["on_before_optimizer_step"]) or bool(run.config.gradients.value) or _clips(run)
    update, world_size = optimizer.step, run.strategy.world_size

    def step(batch: Any, index: int) -> Any:
        store.current = slots
        out = training_step(batch, index)
        if type(out) is Tensor:
            loss, extras = out, None
        else:
            loss, extras = unpack(out, world_size)
        if k > 1 and loss is not None:
            loss = loss / k
        if k == 1 or index % k == 0:
            if before_zero:
                run.fire("on_before_zero_grad", optimizer)
            zero_grad(index)
        if loss is not None:
            if before_backward:
                run.fire("on_before_backward", loss)
            backward(loss)
            if after_backward:
                run.fire("on_after_backward")
        if k > 1 and (index + 1) % k and not feed.is_last:
            state.stepped, state.micro = False, index % k + 1
            return loss, extras
        if between:
            run.before_step(optimizer)
        update()
        clock.step += 1
        state.stepped, state.micro = True, 0
        return loss, extras

    return step


def closure_step(run: Run) -> Step:
    """Return the step that goes through `module.optimizer_step`."""
    state, store, plan, strategy, feed = run.state, run.store, run.plan, run.strategy, run.train
    k, wrapped = run.accumulate, run.optimizers[0]
    optimizer = wrapped.optimizer
    training_step, optimizer_step = run.steps["training_step"], plan.method("optimizer_step")
    slots, outer = store.slots("train", "training_step"), store.slots("train", "optimizer_step")
    zero_grad, backward = _zero_grad(run, optimizer), _backward(run)
    result: list[Any] = []

    def compute(batch: Any, index: int) -> Any:
        store.current = slots
        out = training_step(batch, index)
        loss, extras = (out, None) if type(out) is Tensor else unpack(out, strategy.world_size)
        if k > 1 and loss is not None:
            loss = loss / k
        if index % k == 0:
            run.fire("on_before_zero_grad", optimizer)
            zero_grad(index)
        if loss is not None:
            run.fire("on_before_backward", loss)
            backward(loss)
            run.fire("on_after_backward")
        store.current = outer
        result[:] = [loss, extras]
        return loss

    def step(batch: Any, index: int) -> Any:
        result.clear()
        if k > 1 and (index + 1) % k and not feed.is_last:
            blocked = strategy.no_backward_sync(run.model.__dict__["_forward_module"]) if strategy.supports_no_sync else nullcontext()
            with blocked:
                compute(batch, index)
            state.stepped, state.micro = False, index % k + 1
            return result
        run.manual_steps = 0
        store.current = outer
        optimizer_step(run.clock.epoch, index, wrapped, lambda: compute(batch, index))
        if not result:
            raise ConfigError(
                "The closure hasn't been executed. An overridden `optimizer_step` must pass it on: "
                "`optimizer.step(closure=optimizer_closure)`."
            )
        state.stepped, state.micro = True, 0
        return result

    return step


def unpack(out: Any, world_size: int) -> tuple[Tensor | None, Mapping[str, Any] | None]:
    """Return loss and extras of what `training_step` returned.

    Raises:
        ConfigError: Something else than a tensor, a mapping with `"loss"`, or `None`.
        StateError: `None` where other ranks wait for this one's gradients.
    """
    if isinstance(out, Tensor):
        return out, None
    if isinstance(out, Mapping):
        if out.get("loss") is None:
            raise ConfigError(
                f"In automatic optimization, when `training_step` returns a dict, the 'loss' key needs to be present. It has {listed(out)}."
            )
        return out["loss"], {key: detached(value) for key, value in out.items() if key != "loss"}
    if out is None:
        if world_size > 1:
            raise StateError(
                "Skipping the `training_step` by returning None in distributed training is not supported: the other ranks wait for this "
                "one's gradients. Return a loss on every rank, e.g. 0 * loss."
            )
        rank_zero_warn(
            "`training_step` returned `None`. If this was on purpose, ignore this warning: the optimizer steps without gradients."
        )
        return None, None
    raise ConfigError(
        f"In automatic optimization, `training_step` must return a Tensor, a dict, or None (where the step is skipped), not {out!r}."
    )


def detached(value: Any) -> Any:
    """Return a value without its graph."""
    return value.detach() if isinstance(value, Tensor) else value


def _zero_grad(run: Run, optimizer: Optimizer) -> Callable[[int], None]:
    if not run.plan.overrides("optimizer_zero_grad"):
        zero = optimizer.zero_grad
        return lambda _index: zero()
    method = run.plan.method("optimizer_zero_grad")
    return lambda index: run.one("optimizer_zero_grad", method, run.clock.epoch, index, optimizer)


def _backward(run: Run) -> Callable[[Tensor], None]:
    if run.plan.overrides("backward"):
        method = run.plan.method("backward")
        return lambda loss: run.one("backward", method, loss)
    strategy = run.strategy
    if strategy.precision.plain and not strategy.owns_backward:
        return Tensor.backward
    forward_module = run.model.__dict__["_forward_module"]
    return lambda loss: strategy.backward(loss, forward_module)


def _clips(run: Run) -> bool:
    return run.plan.overrides("configure_gradient_clipping") or run.plan.overrides("clip_gradients")
