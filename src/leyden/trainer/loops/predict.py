"""Prediction: the outputs of every batch, kept or handed out one by one."""

from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.trees import map_tensors
from leyden.trainer.engine.modes import capture_modes, restore_modes
from leyden.trainer.engine.run import Run
from leyden.trainer.loops.decide import act


class Prediction(NamedTuple):
    """One batch's prediction.

    Args:
        dataloader_idx: The loader's number.
        batch_idx: The batch's number in it.
        indices: The dataset's indices in the batch, where the loader draws some.
        output: What `predict_step` returned, on the CPU.
    """

    dataloader_idx: int
    batch_idx: int
    indices: list[int] | None
    output: Any


def predictions(run: Run, feed: Any) -> Generator[Prediction]:
    """Yield the prediction of every batch, with the hooks around it; closing it runs the end hooks."""
    modes = capture_modes(run.module)
    run.one("on_predict_model_eval", run.plan.method("on_predict_model_eval"))
    run.fire("on_predict_start")
    feed = run.val  # a finder may have asked for the loaders anew
    run.fire("on_predict_epoch_start")
    try:
        yield from _batches(run, feed)
    except GeneratorExit:
        _finish(run, feed, modes)
        raise
    _finish(run, feed, modes)


def _batches(run: Run, feed: Any) -> Iterator[Prediction]:
    plan, store = run.plan, run.store
    step, slots = run.steps["predict_step"], run.store.slots("predict", "predict_step")
    starts, ends = plan["on_predict_batch_start"], plan["on_predict_batch_end"]
    several, has_warned = len(feed.num_batches) > 1, False
    for batch in feed:
        index, loader = feed.batch_idx, feed.dataloader_idx
        indices = feed.batch_indices
        run.indices.setdefault(loader, []).append(indices)
        store.batch, store.dataloader_idx = batch, loader if several else None
        where = (batch, index, loader) if several else (batch, index)
        if starts:
            run.call("on_predict_batch_start", starts, *where)
        store.current = slots
        out = step(*where)
        store.current = None
        if out is None and not has_warned:
            has_warned = True
            rank_zero_warn("predict returned None. If this was on purpose, ignore this warning.")
        if ends:
            run.call("on_predict_batch_end", ends, out, *where)
        run.clock.ticks += 1
        if (decision := run.boundary()) is not None:  # each rank by itself: predict has no common batch
            act(run, decision)
        yield Prediction(loader, index, indices, on_cpu(out))
        if run.state.should_stop:
            return


def _finish(run: Run, feed: Any, modes: Any) -> None:
    feed.end()
    run.fire("on_predict_epoch_end")
    run.fire("on_predict_end")
    restore_modes(modes)


def on_cpu(output: Any) -> Any:
    """Return an output with its tensors on the CPU."""
    return map_tensors(output, Tensor.cpu)


def nested(collected: list[Prediction], num_loaders: int) -> list[Any]:
    """Return outputs as `predict` returns them: a list, or one per loader."""
    if num_loaders == 1:
        return [prediction.output for prediction in collected]
    return [[prediction.output for prediction in collected if prediction.dataloader_idx == number] for number in range(num_loaders)]
