"""What of the metrics lies in a checkpoint: names with their options, each rank's sums, metric objects by path.

All of it is plain values and tensors. Sums of another number of ranks are added up; metric objects cannot be.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.metrics.objects import find_metrics, load_metric_states, metric_states
from leyden.trainer.metrics.options import Options
from leyden.trainer.metrics.slot import HookSlots, Slot, StageSlots

Saved = dict[str, Any]


def declared(stages: Mapping[str, StageSlots], module: nn.Module | None) -> list[Saved]:
    """Return the names that were logged, with their options."""
    paths = {id(metric): path for path, metric in find_metrics(module)} if module is not None else {}
    found: list[Saved] = []
    for stage, _, slot in _slots(stages):
        options = {name: value for name, value in asdict(replace(slot.options, sync_dist_group=None)).items() if name != "sync_dist_group"}
        entry = {"stage": stage.name, "hook": slot.hook, "name": slot.name, "loader": slot.loader, "double": slot.double}
        entry |= {"is_weighted": slot.is_weighted, "metric": paths.get(id(slot.metric)), "options": options}
        entry["has_group"] = slot.options.sync_dist_group is not None
        found.append(entry)
    return found


def redeclared(
    entries: Sequence[Saved], slots: Callable[[str, str], HookSlots], module: nn.Module | None
) -> Iterator[tuple[HookSlots, Slot]]:
    """Yield a slot for each name that `declared` returned, and the hook it belongs to."""
    metrics = dict(find_metrics(module)) if module is not None else {}
    for entry in entries:
        options = Options(**entry["options"], sync_dist_group=None)
        slot = Slot(entry["name"], entry["hook"], entry["loader"], options, None, is_weighted=entry["is_weighted"])
        slot.double, slot.metric = entry["double"], metrics.get(str(entry.get("metric")))
        if entry["has_group"]:
            rank_zero_warn(
                f"{slot.name!r} was reduced over a process group, which a checkpoint cannot hold: until it is logged again, "
                "it is reduced over all ranks."
            )
        yield slots(entry["stage"], entry["hook"]), slot


def values(stages: Mapping[str, StageSlots], module: nn.Module | None) -> Saved:
    """Return this rank's values."""
    paths = {id(metric): path for path, metric in find_metrics(module)} if module is not None else {}
    saved = {
        _key(stage, slot): {
            "last": _number(slot.last),
            "total": _number(slot.total),
            "weight": slot.weight,
            "metric": paths.get(id(slot.metric)),
        }
        for stage, _, slot in _slots(stages)
        if slot.seen
    }
    return {"values": saved, "objects": metric_states(module) if module is not None else {}}


def load_values(
    stages: Mapping[str, StageSlots], module: nn.Module | None, states: Sequence[Mapping[str, Any]], *, rank: int, world_size: int
) -> None:
    """Give slots and metric objects back what `values` returned on each saved rank."""
    is_same = len(states) == world_size
    metrics = dict(find_metrics(module)) if module is not None else {}
    own = states[rank if rank < len(states) else 0]
    for stage, _, slot in _slots(stages):
        found = [state["values"].get(_key(stage, slot)) for state in ([own] if is_same else states)]
        saved = [value for value in found if value is not None]
        if saved:
            _give(slot, saved, keeps_sum=is_same or rank == 0 or not slot.synced)
            slot.metric = metrics.get(saved[0]["metric"])
    if module is None:
        return
    if is_same:
        load_metric_states(module, own["objects"])
    elif any(object_.get("updates") for state in states for object_ in state["objects"].values()):
        rank_zero_warn(
            f"The checkpoint was saved by {len(states)} ranks inside an epoch and is loaded by {world_size}: metric objects cannot be "
            "split, so their values of this epoch count only what comes from now on."
        )


def _slots(stages: Mapping[str, StageSlots]) -> Iterator[tuple[StageSlots, HookSlots, Slot]]:
    for stage in stages.values():
        for slots in stage.hooks.values():
            for slot in slots.slots.values():
                yield stage, slots, slot


def _key(stage: StageSlots, slot: Slot) -> str:
    return f"{stage.name}/{slot.hook}/{'' if slot.loader is None else slot.loader}/{slot.name}"


def _number(value: Any) -> float | None:
    return value.item() if isinstance(value, Tensor) else value


def _give(slot: Slot, saved: list[Saved], *, keeps_sum: bool) -> None:
    slot.clear()
    slot.seen = True
    slot.last = saved[0]["last"]
    if not keeps_sum:  # rank 0 has it; this rank only takes part
        return
    totals = [value["total"] for value in saved]
    if slot.reduce in ("mean", "sum"):
        slot.total = float(sum(totals))
        slot.weight = float(sum(value["weight"] for value in saved))
    elif any(math.isnan(total) for total in totals):
        slot.total = math.nan
    else:
        slot.total = max(totals) if slot.reduce == "max" else min(totals)
