"""`MetricStore`: what `self.log` keeps during a run, and the rows and dictionaries that become of it.

How loops use it; all of it is cheap, and only what is marked may be a collective, which every rank then has to call:

1. Once per run: `attach(module)`; `hook = store.slots("train", "training_step")` for each hook, kept in the plan; `clear()`
   when an entry point starts, `discard("sanity")` after `on_sanity_check_end`.
2. Before the callees of a hook: `store.current = hook`, afterwards that of the hook around it, or `None`, where logging is
   refused. Once per batch: `store.batch = batch`; outside batches `None`. `store.dataloader_idx` is the loader's number while
   batches of one of several evaluated loaders run, else `None`.
3. `begin_epoch(stage)` before the epoch's first hook (values of `on_<stage>_start` stay).
4. Rows: `step_row(stage)` (collective) when one is due, in evaluations after every batch if `store.stage(stage).on_step`.
5. The end of an epoch: `publish(stage)` (collective) before the callees of `on_<stage>_epoch_end`, so that they find the epoch's
   values in `callback_metrics`, also those that the module logs in that hook; after it, `end_epoch(stage)` (collective) returns
   the row and forgets the values. `results(stage, num_loaders)` is what `validate` and `test` return.
   `Rows` calls `step_row`, `end_epoch` and `results`.
6. Checkpoints: `state_dict()` is the same on all ranks, `rank_state()` is each rank's own; `load_state_dict` and then
   `load_rank_states` with those of all saved ranks, once metric objects exist.

A name costs one dictionary lookup and one comparison of options per call; everything is checked at its first call.
`callback_metrics` is current whenever it is read; between collectives it holds this rank's values.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.core.batch_size import infer_batch_size
from leyden.trainer.core.logging import Reduction
from leyden.trainer.engine.hookspec import log_rule
from leyden.trainer.metrics import resume
from leyden.trainer.metrics.objects import check_metric, is_metric
from leyden.trainer.metrics.options import Given, Options, resolve
from leyden.trainer.metrics.shown import Shown
from leyden.trainer.metrics.slot import HookSlots, Slot, StageSlots, Value, twice
from leyden.trainer.metrics.sync import AllGather, Part, Sync

STAGES = ("train", "sanity", "validate", "test", "predict")
_FIRST_HOOKS = {"train": "on_train_start", "sanity": "on_validation_start", "validate": "on_validation_start", "test": "on_test_start"}


class _Measured(int):
    """The size of the batch, in its place: inferred once, and the batch is let go."""


class MetricStore:
    """Keeps what is logged; see above for how to drive it.

    Args:
        device: Where ranks exchange values.
        world_size: How many ranks log.
        rank: Which one this is.
        all_gather: The collective, such as `strategy.all_gather`; needed with several ranks.

    Example:
        >>> store = MetricStore()
        >>> store.current, store.batch = store.slots("train", "training_step"), torch.zeros(4, 2)
        >>> store.log("loss", torch.tensor(0.5), on_step=True, on_epoch=True)
        >>> store.step_row("train"), store.end_epoch("train")
        ({'loss_step': 0.5}, {'loss_epoch': 0.5})
    """

    __slots__ = ("_module", "_rank", "_shown", "_stages", "_sync", "_world_size", "batch", "current", "dataloader_idx")

    def __init__(
        self, *, device: torch.device | str = "cpu", world_size: int = 1, rank: int = 0, all_gather: AllGather | None = None
    ) -> None:
        if world_size > 1 and all_gather is None:
            raise StateError(f"A store for world_size={world_size} needs all_gather, for example that of the strategy.")
        self.current: HookSlots | None = None
        self.batch: Any = None
        self.dataloader_idx: int | None = None
        self._stages = {name: StageSlots(name) for name in STAGES}
        self._shown = Shown(self._stages)
        self._sync = Sync(all_gather, torch.device(device)) if all_gather is not None and world_size > 1 else None
        self._world_size = world_size
        self._rank = rank
        self._module: nn.Module | None = None

    # -- set-up --------------------------------------------------------------------------------------------------

    def attach(self, module: nn.Module) -> None:
        """Name the module whose attributes are the metric objects."""
        self._module = module

    def stage(self, stage: str) -> StageSlots:
        """Return the slots of a stage; its `on_step` tells whether step rows can have anything in them."""
        return self._stages[stage]

    def slots(self, stage: str, hook: str) -> HookSlots:
        """Return the slots of a hook, the same object each time."""
        state = self._stages[stage]
        if hook not in state.hooks:
            state.hooks[hook] = HookSlots(state, hook, log_rule(hook))
        return state.hooks[hook]

    def clear(self) -> None:
        """Forget all names, values and shown metrics; an entry point starts."""
        for stage in self._stages.values():
            stage.forget()
        self._shown.clear()

    def discard(self, stage: str) -> None:
        """Forget the names of a stage, and what is shown."""
        self._stages[stage].forget()
        self._shown.clear()

    # -- logging -------------------------------------------------------------------------------------------------

    def log(  # noqa: PLR0913 - the documented signature
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        logger: bool | None = None,  # noqa: FBT001 - the documented signature
        on_step: bool | None = None,  # noqa: FBT001 - the documented signature
        on_epoch: bool | None = None,  # noqa: FBT001 - the documented signature
        reduce_fx: Reduction = "mean",
        enable_graph: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        sync_dist: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,  # noqa: FBT001, FBT002 - the documented signature
    ) -> None:
        """Keep a value; arguments as for `LightningModule.log`.

        Raises:
            ConfigError: The value, the name or the flags do not go here.
        """
        given = (
            prog_bar,
            logger,
            on_step,
            on_epoch,
            reduce_fx,
            enable_graph,
            sync_dist,
            sync_dist_group,
            add_dataloader_idx,
            metric_attribute,
            rank_zero_only,
        )
        try:
            slot = self.current.slots[name, self.dataloader_idx]  # type: ignore[union-attr] # pyrefly: ignore - None is the rare case
        except (KeyError, AttributeError):
            slot = self._declare(name, value, given)
        if slot.given != given:
            slot = self._declare(name, value, given)
        if batch_size is None:
            batch_size = self._batch_size() if slot.is_weighted else 1
        slot.update(value, batch_size)

    def _batch_size(self) -> int:
        batch = self.batch
        if type(batch) is not _Measured:
            self.batch = batch = _Measured(1 if batch is None else infer_batch_size(batch))
        return batch

    def _declare(self, name: str, value: Any, given: Given) -> Slot:
        current = self.current
        if current is None:
            raise ConfigError(
                f"`self.log({name!r}, ...)` was called outside the hooks of a run, so it is not managed by the `Trainer` control flow. "
                "Log inside a step or a hook."
            )
        if current.stage.name == "predict":
            raise ConfigError(
                f"`self.log({name!r}, ...)` was called inside `{current.hook}`, but predicting has no metrics: it doesn't support logging. "
                "Return the value instead, or use `Trainer.test`."
            )
        options = resolve(given, name=name, hook=current.hook, rule=current.rule)
        slot = current.slots.get((name, self.dataloader_idx))
        if slot is not None and slot.options == options:
            slot.given = given
            return slot
        if slot is not None and slot.given is None:  # of a checkpoint, and the code has changed since
            current.stage.remove(current, slot)
        elif slot is not None:
            raise twice(name, current.hook)
        return self._enter(current, name, value, options, given)

    def _enter(self, current: HookSlots, name: str, value: Any, options: Options, given: Given) -> Slot:
        for other in current.slots.values():  # of other loaders
            if other.name == name and not (options.add_dataloader_idx and other.options.add_dataloader_idx):
                raise twice(name, current.hook)
        has_metric = is_metric(value)
        if has_metric:
            check_metric(value, options.metric_attribute, self._module, name)
        is_weighted = options.on_epoch and options.reduce == "mean" and current.rule != "epoch_only" and not has_metric
        slot = Slot(name, current.hook, self.dataloader_idx, options, given, is_weighted=is_weighted)
        self._set_synced(slot, has_metric=has_metric)
        current.stage.add(current, slot)
        return slot

    def _set_synced(self, slot: Slot, *, has_metric: bool) -> None:
        options = slot.options
        if self._sync is None or options.rank_zero_only or has_metric:
            return
        slot.synced = options.sync_dist
        if options.on_epoch and not slot.synced:
            rank_zero_warn(
                f"It is recommended to use `self.log({slot.name!r}, ..., sync_dist=True)` for an epoch's values on several ranks: "
                "without it each rank keeps its own, and rank 0's is logged."
            )

    # -- rows ----------------------------------------------------------------------------------------------------

    def begin_epoch(self, stage: str) -> None:
        """Forget the values of a stage, save those that were logged before its epoch began."""
        self._stages[stage].clear(keep=_FIRST_HOOKS.get(stage, ""))

    def step_row(self, stage: str) -> dict[str, Value]:
        """Return the latest step values of this epoch, for loggers; of the loader that runs, where several are evaluated."""
        state = self._stages[stage]
        loader = self.dataloader_idx
        row: dict[str, Value] = {}
        has_synced = False
        for slot in state.on_step:
            if slot.loader == loader:
                has_synced = has_synced or slot.synced
                if slot.seen and slot.options.logger:
                    row[slot.step_name] = slot.step_value()
        if has_synced:
            self._sync_steps(state, row)
        self._shown.show_logged(row)
        return row

    def _sync_steps(self, state: StageSlots, row: dict[str, Value]) -> None:
        slots = [slot for slot in state.on_step if slot.synced and slot.loader == self.dataloader_idx]
        for slot, value in self._reduce(slots, lambda slot: Part(slot, slot.step_value(), None, slot.reduce) if slot.seen else None):
            self._shown.show_step(state, slot, value)
            if slot.options.logger:
                row[slot.step_name] = value

    def publish(self, stage: str) -> None:
        """Show what has become of the epoch's values so far in `callback_metrics`, reduced over ranks where that was asked for."""
        state = self._stages[stage]
        self._shown.refresh()
        due = [slot for slot in state.on_epoch if slot.seen and slot.epoch_value is None]
        # The first time, ranks meet if any synced name is known, logged or not: so one that was not logged everywhere is found.
        synced = [slot for slot in (due if state.is_published else state.on_epoch) if slot.synced]
        for slot, value in self._reduce(synced, lambda slot: _epoch_part(slot) if slot.seen else None):
            slot.epoch_value = value
        for slot in due:
            if slot.epoch_value is None:
                slot.epoch_value = slot.own_epoch_value()
            self._shown.show_epoch(slot, slot.epoch_value)
        state.is_published = True

    def end_epoch(self, stage: str) -> dict[str, Value]:
        """Return the epoch's values for loggers, reset metric objects, and forget the values."""
        self.publish(stage)
        state = self._stages[stage]
        logged = [(slot, slot.epoch_value) for slot in state.on_epoch if slot.epoch_value is not None]
        state.results = [(slot.loader, slot.epoch_name, value) for slot, value in logged if slot.options.logger]
        for metric in {id(slot.metric): slot.metric for slot, _ in logged if slot.metric is not None}.values():
            metric.reset()
        state.clear()
        if stage == "sanity":
            return {}
        row = {name: value for _, name, value in state.results}
        self._shown.show_logged(row)
        return row

    def results(self, stage: str, num_loaders: int) -> list[dict[str, float]]:
        """Return the values of the latest epoch per loader; those of no loader are in each."""
        return [
            {name: float(value) for loader, name, value in self._stages[stage].results if loader in (None, index)}
            for index in range(num_loaders)
        ]

    def _reduce(self, slots: Sequence[Slot], part_of: Callable[[Slot], Part | None]) -> list[tuple[Slot, float]]:
        groups: dict[Any, list[Slot]] = {}
        for slot in sorted(slots, key=lambda slot: (slot.hook, slot.name)):  # ranks may have logged in another order
            groups.setdefault(slot.options.sync_dist_group, []).append(slot)
        reduced: list[tuple[Slot, float]] = []
        for group, members in groups.items():
            assert self._sync is not None  # noqa: S101 - slots are synced under several ranks only
            reduced += self._sync.reduce([part for slot in members if (part := part_of(slot)) is not None], group)
        return reduced

    # -- what is shown -------------------------------------------------------------------------------------------

    @property
    def callback_metrics(self) -> dict[str, Any]:
        """All values, as tensors, under plain and forked names; of evaluations those of an epoch.

        A collective where an epoch has ended and something synced was logged since `publish`, in a hook at its end.
        """
        for stage in self._stages.values():
            if stage.is_published:
                self.publish(stage.name)
        return self._shown.callback

    @property
    def logged_metrics(self) -> dict[str, Any]:
        """What went to loggers, as tensors."""
        return self._shown.logged

    @property
    def progress_bar_metrics(self) -> dict[str, Any]:
        """What the progress bar shows, as floats; reading it waits for the device."""
        return self._shown.progress

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return names, options and shown metrics."""
        return {"slots": resume.declared(self._stages, self._module), "shown": self._shown.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; values come by `load_rank_states`."""
        self.clear()
        for slots, slot in resume.redeclared(state["slots"], self.slots, self._module):
            self._set_synced(slot, has_metric=slot.metric is not None)
            slots.stage.add(slots, slot)
        self._shown.load_state_dict(state["shown"])

    def rank_state(self) -> dict[str, Any]:
        """Return this rank's values and metric objects, and what it shows where ranks differ in that."""
        state = resume.values(self._stages, self._module)
        return state if self._world_size == 1 else state | {"shown": self._shown.state_dict()}

    def load_rank_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take over the values of a saved run.

        Args:
            states: What `rank_state` returned on each of its ranks. Another number of them is added up.
        """
        resume.load_values(self._stages, self._module, states, rank=self._rank, world_size=self._world_size)
        if len(states) == self._world_size and "shown" in states[self._rank]:
            self._shown.load_state_dict(states[self._rank]["shown"])


def _epoch_part(slot: Slot) -> Part:
    if slot.reduce == "mean":
        return Part(slot, slot.total, slot.weight, slot.reduce)
    return Part(slot, slot.total, None, slot.reduce)
