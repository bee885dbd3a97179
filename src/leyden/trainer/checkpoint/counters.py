"""The `loops` tree of PyTorch Lightning 2.x: written for its tools, read where a file has no `run_state`."""

from collections.abc import Mapping
from typing import Any

from leyden.trainer.engine.state import Phase, RunState


def tree(state: RunState, *, automatic: bool) -> dict[str, Any]:
    """Return the counters of a run in the documented tree."""
    clock = state.clock
    in_batch = state.phase in (Phase.BATCH_END, Phase.VALIDATION, Phase.AFTER_VALIDATION, Phase.MID_BATCH)
    batch = clock.batch + (1 if in_batch else 0)
    batches = clock.batches + (1 if in_batch else 0)
    ended = state.phase is Phase.BATCH_END
    steps = clock.step
    epochs = clock.epoch + (1 if state.phase is Phase.EPOCH_END or (clock.batch and state.phase is not Phase.TRAIN_END) else 0)
    evaluated = _batches(0, 0, processed=0) | {"is_last_batch": False}
    progress = _batches(batches, batch, processed=batch) | {"is_last_batch": state.last_batch}
    if ended:
        progress["total"]["completed"] -= 1
        progress["current"]["completed"] -= 1
    epoch_progress = _batches(epochs, epochs, processed=epochs)
    if state.phase is Phase.EPOCH_END:
        epoch_progress["total"]["completed"] -= 1
        epoch_progress["current"]["completed"] -= 1
    elif clock.batch:
        for side in epoch_progress.values():
            side["processed"] -= 1
            side["completed"] -= 1
    return {
        "fit_loop": {
            "state_dict": {},
            "epoch_loop.state_dict": {"_batches_that_stepped": clock.log_step},
            "epoch_loop.batch_progress": progress,
            "epoch_loop.scheduler_progress": _steps(0),
            "epoch_loop.automatic_optimization.state_dict": {},
            "epoch_loop.automatic_optimization.optim_progress": {
                "optimizer": {"step": _steps(steps if automatic else 0), "zero_grad": _zero_grads(steps if automatic else 0)}
            },
            "epoch_loop.manual_optimization.state_dict": {},
            "epoch_loop.manual_optimization.optim_step_progress": _steps(0 if automatic else steps),
            "epoch_loop.val_loop.state_dict": {},
            "epoch_loop.val_loop.batch_progress": evaluated | {"is_last_batch": True},
            "epoch_progress": epoch_progress,
        },
        "validate_loop": {"state_dict": {}, "batch_progress": _batches(0, 0, processed=0) | {"is_last_batch": False}},
        "test_loop": {"state_dict": {}, "batch_progress": _batches(0, 0, processed=0) | {"is_last_batch": False}},
        "predict_loop": {"state_dict": {}, "batch_progress": _batches(0, 0, processed=0)},
    }


def position(loops: Mapping[str, Any], epoch: int, global_step: int, *, length: float) -> dict[str, Any]:
    """Return the position that a file without `run_state` says, as `RunState.state_dict` writes it; no callee left.

    Args:
        loops: The tree.
        epoch: The file's `epoch`.
        global_step: The file's `global_step`.
        length: The batches of an epoch, where they are known.
    """
    fit = loops.get("fit_loop", {})
    batch, epochs = _side(fit, "epoch_loop.batch_progress"), _side(fit, "epoch_progress")
    total = _side(fit, "epoch_loop.batch_progress", "total")["completed"]
    log_step = int(fit.get("epoch_loop.state_dict", {}).get("_batches_that_stepped", global_step))
    optimizer = fit.get("epoch_loop.automatic_optimization.optim_progress", {}).get("optimizer", {})
    steps = int(optimizer.get("step", {}).get("total", {}).get("completed", 0))
    is_inside = batch["processed"] > batch["completed"]
    # Batches that stepped are counted behind the validation that follows them, so between the two the count is behind.
    stepped = steps > log_step if steps else total + is_inside > log_step
    state: dict[str, Any] = {
        "v": 1, "fn": "fit", "epoch": epoch, "batches": total, "step": steps or log_step + stepped, "log_step": log_step,
        "micro": 0, "stepped": stepped, "last_batch": bool(fit.get("epoch_loop.batch_progress", {}).get("is_last_batch", False)),
        "eval": None,
    }  # fmt: skip
    if epochs["processed"] > epochs["completed"]:
        return {**state, "phase": "epoch_end", "batch": batch["completed"]}
    if epochs["ready"] == epochs["completed"]:
        return {**state, "phase": "train_end", "batch": 0}
    if is_inside:
        return {**state, "phase": "batch_end", "batch": batch["processed"] - 1}
    if batch["ready"] and (stepped or batch["ready"] >= length):
        return {**state, "phase": "after_validation", "batch": batch["ready"] - 1, "batches": max(total - 1, 0)}
    return {**state, "phase": "batch", "batch": batch["completed"]}


def _side(tree: Mapping[str, Any], key: str, side: str = "current") -> dict[str, int]:
    counts = tree.get(key, {}).get(side, {})
    return {name: int(counts.get(name, 0)) for name in ("ready", "started", "processed", "completed")}


def _batches(total: int, current: int, *, processed: int) -> dict[str, Any]:
    return {
        "total": {"ready": total, "completed": total, "started": total, "processed": total},
        "current": {"ready": current, "completed": current, "started": current, "processed": processed},
    }


def _steps(total: int) -> dict[str, Any]:
    return {"total": {"ready": total, "completed": total}, "current": {"ready": total, "completed": total}}


def _zero_grads(total: int) -> dict[str, Any]:
    return {
        "total": {"ready": total, "completed": total, "started": total},
        "current": {"ready": total, "completed": total, "started": total},
    }
