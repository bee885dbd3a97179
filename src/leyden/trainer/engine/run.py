"""`Run`: everything that is alive while one entry point runs. Loops are functions over it; nothing else writes to it.

What callbacks see of it is `trainer.run`: the clock, `validation_is_due`, `request` and `take`, and the wrapped optimizers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from leyden.trainer.engine.clock import Clock
from leyden.trainer.engine.plan import CallbackList, HookPlan
from leyden.trainer.engine.state import Calls, Phase, RunState, remaining

Left = frozenset[str] | None
"""Of a hook that a saved run was inside: the callees that come yet. `None`: all of them."""


@dataclass(slots=True, eq=False, kw_only=True)
class Run:
    """One entry point, running.

    Args:
        trainer: What hooks are handed.
        config: How it runs: limits, cadence, gradients.
        module: The user's module.
        datamodule: The user's data module, or `None`.
        callbacks: The callbacks, in order.
        strategy: fabric's strategy.
        store: The metrics.
        rows: What writes them to loggers.
        state: The position.
        plan: Who is called at each hook.
        boundary: Asked after every batch: what all ranks do now.
    """

    trainer: Any
    config: Any
    module: Any
    datamodule: Any
    callbacks: CallbackList
    strategy: Any
    store: Any
    rows: Any
    plan: HookPlan
    boundary: Any
    state: RunState = field(default_factory=RunState)
    model: Any = None
    stage: str = "train"
    hook: str | None = None
    optimizers: list[Any] = field(default_factory=list)
    schedulers: list[Any] = field(default_factory=list)
    train: Any = None  # the feeds, by stage
    val: Any = None
    sanity: Any = None
    accumulate: int = 1
    clips_at_step: bool = False  # the strategy does, inside its step
    next_validation: int = -1
    next_row: int = -1
    validation_is_due: bool = False
    training_modes: list[Any] | None = None
    batch: Any = None  # the one in progress: a checkpoint written inside a step holds it
    fitted: "Run | None" = None  # of an evaluation: the fit before it, which has what a checkpoint needs
    resumed_from: str | None = None
    restored: Any = None  # what is put back right before the first continued action
    agreed: set[str] = field(default_factory=set)
    stopping: str | None = None
    manual_steps: int = 0
    pending: set[int] = field(default_factory=set)  # by hand: ids of optimizers with gradients that no step has used yet
    steps: dict[str, Any] = field(default_factory=dict)  # name -> the step, through strategy and precision, as (batch, index)
    profiler: Any = None
    fast_dev_run: int = 0
    is_fresh: bool = False
    source: Any = None
    compile_policy: Any = None
    compiler: Any = None  # of a module the user compiled
    layer_sync: Any = None
    log_hparams: bool = True
    failure: BaseException | None = None
    received_sigterm: bool = False
    job: Any = None
    job_checkpoint: Any = None  # where fit saves what the job's next attempt goes on from
    job_record: Any = None
    shared_store: Any = None  # fabric's key-value store
    root_dir: str = ""
    predictions: list[Any] = field(default_factory=list)
    feed_states: dict[str, Any] = field(default_factory=dict)  # of feeds that are closed already
    loaders: dict[str, Any] = field(default_factory=dict)  # stage → what the user gave
    loaded_in: dict[str, int] = field(default_factory=dict)  # stage → epoch
    module_validates: bool = False
    validation_batches: float | None = None
    indices: dict[int, list[Any]] = field(default_factory=dict)  # predict: loader → the dataset's indices of each batch
    results: list[dict[str, float]] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        """The counters."""
        return self.state.clock

    def request(self, kind: str, payload: str = "") -> None:
        """Ask all ranks to act on `kind` soon, at the same batch; no collective."""
        self.boundary.request(kind, payload)

    def take(self, kind: str) -> bool:
        """Return whether all ranks agreed on `kind` since it was last taken."""
        if kind in self.agreed:
            self.agreed.discard(kind)
            return True
        return False

    def fire(self, name: str, *args: Any, left: Left = None) -> None:
        """Call a hook's callees in order; in a resumed run those that come yet."""
        calls = self.plan[name] if left is None else remaining(self.plan[name], left)
        if calls:
            self.call(name, calls, *args)

    def call(self, name: str, calls: Calls, *args: Any) -> None:
        """Call these callees of a hook."""
        state, store = self.state, self.store
        outer, before, around = store.current, self.hook, (state.calls, state.callee)
        store.current, self.hook = store.slots(self.stage, name), name
        state.calls = self.plan[name]
        try:
            for state.callee, function in calls:
                function(*args)
        except BaseException:
            if not around[0]:
                around = (state.calls, state.callee)  # whoever saves now is inside this hook
            raise
        finally:
            store.current, self.hook = outer, before
            state.calls, state.callee = around

    def one(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call one function as the hook `name`, and return what it returns."""
        store = self.store
        outer, before = store.current, self.hook
        store.current, self.hook = store.slots(self.stage, name), name
        try:
            return function(*args, **kwargs)
        finally:
            store.current, self.hook = outer, before

    def at(self, phase: Phase) -> None:
        """Move to a phase."""
        self.state.phase = phase

    # -- steps, as the optimizers report them --------------------------------------------------------------------

    def before_step(self, optimizer: Optimizer) -> None:
        """Fire the hooks between backward and the update."""
        precision = self.strategy.precision
        if precision.scales_gradients and not self.strategy.owns_backward and not self.strategy.is_in_backward:
            precision.unscale_gradients(optimizer)
        self.fire("on_before_optimizer_step", optimizer)
        if self.module.automatic_optimization:
            clip = self.config.gradients
            if clip.value or self.plan.overrides("configure_gradient_clipping") or self.plan.overrides("clip_gradients"):
                self.one(
                    "configure_gradient_clipping",
                    self.plan.method("configure_gradient_clipping"),
                    optimizer,
                    clip.value,
                    clip.algorithm,
                )

    def after_step(self, optimizer: Any) -> None:
        """Count a step; one that the gradient scaler left out counts as skipped."""
        self.pending.discard(id(optimizer))
        if getattr(optimizer, "last_step_skipped", False):
            self.state.skipped_steps += 1
            return
        self.manual_steps += 1
        if self.manual_steps == 1:
            self.state.clock.step += 1

    def manual_backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        """Run backward for a module that steps by hand, with the hooks around it."""
        self.pending.update(id(item.optimizer) for item in self.optimizers)
        self.fire("on_before_backward", loss)
        self.one("backward", self.plan.method("backward"), loss, *args, **kwargs)
        self.fire("on_after_backward")
