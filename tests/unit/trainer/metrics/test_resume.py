import io
from typing import Any

import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leyden.core.errors import ConfigError
from leyden.trainer.core.logging import log
from leyden.trainer.metrics.store import MetricStore
from tests.support.metric_loops import numbers
from tests.support.rank_threads import on_ranks

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-10, 10, width=32), st.integers(1, 4)), min_size=1, max_size=12)
OPTIONS: dict[str, dict[str, Any]] = {
    "a": {"on_step": True, "on_epoch": True, "prog_bar": True},
    "b": {"on_step": False, "on_epoch": True, "reduce_fx": "max"},
    "c": {},
}


def through_a_file(value: Any) -> Any:
    """Return what a checkpoint makes of a value; it must hold nothing that needs pickle."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def run(store: MetricStore, steps: list[tuple[str, float, int]]) -> None:
    store.current = store.slots("train", "training_step")
    for name, value, size in steps:
        store.log(name, torch.tensor(value), batch_size=size, **OPTIONS[name])


def outcome(store: MetricStore) -> Any:
    before = numbers(store.callback_metrics), dict(store.progress_bar_metrics)
    return before, store.step_row("train"), store.end_epoch("train"), numbers(store.callback_metrics), numbers(store.logged_metrics)


@given(STEPS, st.data())
def test_a_resumed_epoch_ends_as_the_unbroken_one_to_the_bit(steps: list[tuple[str, float, int]], data: Any) -> None:
    cut = data.draw(st.integers(0, len(steps)))
    unbroken, resumed = MetricStore(), MetricStore()
    run(unbroken, steps[:cut])
    state, rank_state = through_a_file((unbroken.state_dict(), unbroken.rank_state()))
    resumed.load_state_dict(state)
    resumed.load_rank_states([rank_state])
    run(unbroken, steps[cut:])
    run(resumed, steps[cut:])
    assert outcome(resumed) == outcome(unbroken)


def test_values_of_evaluated_loaders_and_hooks_are_told_apart() -> None:
    store, resumed = MetricStore(), MetricStore()
    for loader in (0, 1):
        store.dataloader_idx, store.current = loader, store.slots("validate", "validation_step")
        store.log("v", float(loader), batch_size=1)
    store.dataloader_idx, store.current = None, store.slots("validate", "on_validation_epoch_end")
    store.log("v", 7.0)
    resumed.load_state_dict(through_a_file(store.state_dict()))
    resumed.load_rank_states([through_a_file(store.rank_state())])
    assert resumed.end_epoch("validate") == {"v/dataloader_idx_0": 0.0, "v/dataloader_idx_1": 1.0, "v": 7.0}
    assert resumed.results("validate", 2) == [{"v/dataloader_idx_0": 0.0, "v": 7.0}, {"v/dataloader_idx_1": 1.0, "v": 7.0}]


def test_what_a_callback_added_is_still_shown() -> None:
    store, resumed = MetricStore(), MetricStore()
    store.callback_metrics["lr-SGD"] = torch.tensor(0.1, dtype=torch.float64)
    resumed.load_state_dict(through_a_file(store.state_dict()))
    assert resumed.callback_metrics["lr-SGD"].item() == 0.1


def test_changed_code_may_log_a_name_in_another_way_after_a_resume() -> None:
    store, resumed = MetricStore(), MetricStore()
    run(store, [("c", 1.0, 1)])
    resumed.load_state_dict(store.state_dict())
    resumed.load_rank_states([store.rank_state()])
    resumed.current = resumed.slots("train", "training_step")
    resumed.log("c", 2.0, on_step=False, on_epoch=True, batch_size=1)
    assert resumed.step_row("train") == {}
    assert resumed.end_epoch("train") == {"c": 2.0}
    with pytest.raises(ConfigError, match="twice"):
        resumed.log("c", 2.0)


class Net(nn.Module):
    log = log

    def __init__(self) -> None:
        super().__init__()
        self.metric: Any = torchmetrics.MeanMetric()


def test_a_metric_object_is_computed_after_a_resume_though_nobody_logs_it_again() -> None:
    net, other = Net(), Net()
    store, resumed = MetricStore(), MetricStore()
    store.attach(net)
    resumed.attach(other)
    store.current = store.slots("train", "training_step")
    net.metric.update(1.0)
    net.metric.update(3.0)
    store.log("m", net.metric, on_step=False, on_epoch=True)
    resumed.load_state_dict(through_a_file(store.state_dict()))
    resumed.load_rank_states([through_a_file(store.rank_state())])
    assert resumed.end_epoch("train") == {"m": 2.0}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_sums_of_another_number_of_ranks_are_added_up(ranks: int) -> None:
    def log_all(store: MetricStore, rank: int) -> None:
        store.current = store.slots("train", "training_step")
        store.log("mean", float(rank), on_step=False, on_epoch=True, sync_dist=True, batch_size=rank + 1)
        store.log("max", float(rank), on_step=False, on_epoch=True, sync_dist=True, reduce_fx="max")

    def save(rank: int, all_gather: Any) -> Any:
        store = MetricStore(world_size=2, rank=rank, all_gather=all_gather)
        log_all(store, rank)
        return store.state_dict(), store.rank_state(), store.end_epoch("train")

    saved, _ = on_ranks(2, save)
    states: list[Any] = [through_a_file(rank_state) for _, rank_state, _ in saved]  # type: ignore[misc]

    def load(rank: int, all_gather: Any) -> Any:
        store = MetricStore(world_size=ranks, rank=rank, all_gather=all_gather)
        store.load_state_dict(saved[0][0])  # type: ignore[index]
        store.load_rank_states(states)
        return store.end_epoch("train")

    loaded, _ = on_ranks(ranks, load)
    assert loaded == [saved[0][2]] * ranks  # type: ignore[index]
    assert saved[0][2] == {"mean": pytest.approx(2 / 3), "max": 1.0}  # type: ignore[index]


def test_metric_objects_of_another_number_of_ranks_are_warned_about() -> None:
    net = Net()
    store = MetricStore()
    store.attach(net)
    net.metric.update(1.0)
    state = store.rank_state()
    with pytest.warns(UserWarning, match="metric objects cannot be split"):
        store.load_rank_states([state, state])
