import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from leyden.core.errors import StateError
from leyden.trainer.metrics.store import MetricStore
from tests.support.metric_loops import Module
from tests.support.rank_threads import on_ranks

Log = Callable[[Module, int], None]


def train(log: Log, *, ranks: int = 2, steps: int = 1, read: bool = False) -> tuple[list[Any], int]:
    """Log in `training_step` on each rank; return (step row, epoch row, callback metrics) of each."""

    def rank_main(rank: int, all_gather: Any) -> Any:
        store = MetricStore(world_size=ranks, rank=rank, all_gather=all_gather)
        store.begin_epoch("train")
        row: dict[str, Any] = {}
        for _ in range(steps):
            store.current, store.batch = store.slots("train", "training_step"), torch.zeros(rank + 1)
            log(Module(store), rank)
            row = store.step_row("train")
        return row, store.end_epoch("train"), {name: float(value) for name, value in store.callback_metrics.items()}

    return on_ranks(ranks, rank_main)


def test_steps_are_averaged_plainly_and_epochs_by_batch_size() -> None:
    results, calls = train(lambda module, rank: module.log("a", float(rank), on_step=True, on_epoch=True, sync_dist=True))
    for row, epoch, shown in results:
        assert row == {"a_step": 0.5}
        assert epoch == {"a_epoch": pytest.approx(2 / 3)}
        assert shown == {"a": pytest.approx(2 / 3), "a_step": 0.5, "a_epoch": pytest.approx(2 / 3)}
    assert calls == 2


@pytest.mark.parametrize(("reduce_fx", "expected"), [("sum", 3.0), ("max", 2.0), ("min", 1.0), ("mean", 1.5)])
def test_ranks_are_reduced_as_the_epoch_is(reduce_fx: str, expected: float) -> None:
    results, _ = train(lambda module, rank: module.log("a", rank + 1.0, reduce_fx=reduce_fx, sync_dist=True))
    assert [row for row, _, _ in results] == [{"a": expected}] * 2


def test_not_a_number_on_one_rank_is_seen_by_all() -> None:
    results, _ = train(lambda module, rank: module.log("a", math.nan if rank else 1.0, reduce_fx="max", sync_dist=True))
    assert all(math.isnan(row["a"]) for row, _, _ in results)


def test_many_names_travel_in_one_collective() -> None:
    def log(module: Module, rank: int) -> None:
        for index in range(30):
            module.log(f"a{index}", rank + float(index), sync_dist=True)

    results, calls = train(log, steps=5)
    assert results[0][0] == results[1][0] == {f"a{index}": index + 0.5 for index in range(30)}
    assert calls == 5 + 1  # the first time, the vector grows


def test_the_order_of_calls_may_differ_between_ranks() -> None:
    def log(module: Module, rank: int) -> None:
        for name in ("b", "a") if rank else ("a", "b"):
            module.log(name, 1.0 if name == "a" else 2.0, sync_dist=True)

    results, _ = train(log)
    assert [row for row, _, _ in results] == [{"a": 1.0, "b": 2.0}] * 2


@pytest.mark.parametrize("shared", [1, 13, 14, 40])
def test_a_name_that_only_some_ranks_logged_is_named(shared: int) -> None:
    def log(module: Module, rank: int) -> None:
        for index in range(shared):
            module.log(f"a{index}", 1.0, sync_dist=True)
        if rank == 1:
            module.log("odd", 1.0, sync_dist=True)

    results, _ = train(log)
    assert all(isinstance(result, StateError) for result in results)
    assert "'odd' (training_step) only by ranks [1]" in str(results[0])


def test_one_name_with_two_reductions_is_found() -> None:
    results, _ = train(lambda module, rank: module.log("a", 1.0, reduce_fx="max" if rank else "min", sync_dist=True))
    assert "the same in another way" in str(results[0])


def test_what_is_not_synced_meets_nobody() -> None:
    def log(module: Module, rank: int) -> None:
        module.log("a", float(rank))
        if rank == 0:
            module.log("b", 1.0, sync_dist=True, rank_zero_only=True)

    results, calls = train(log)
    assert [row for row, _, _ in results] == [{"a": 0.0, "b": 1.0}, {"a": 1.0}]
    assert calls == 0


def test_an_epoch_value_of_each_rank_alone_is_warned_about() -> None:
    store = MetricStore(world_size=2, all_gather=lambda tensor, group: tensor[None])
    store.current = store.slots("validate", "validation_step")
    with pytest.warns(UserWarning, match="It is recommended to use"):
        store.log("a", 1.0)


def test_a_group_of_its_own_has_a_collective_of_its_own() -> None:
    groups: list[Any] = []

    def all_gather(tensor: torch.Tensor, group: Any) -> torch.Tensor:
        groups.append(group)
        return torch.stack([tensor, tensor])

    store = MetricStore(world_size=4, all_gather=all_gather)
    store.current = store.slots("train", "training_step")
    store.log("a", 1.0, sync_dist=True)
    store.log("b", 1.0, sync_dist=True, sync_dist_group="pair", reduce_fx="sum")
    assert store.step_row("train") == {"a": 1.0, "b": 2.0}
    assert groups == [None, "pair"]


def test_callbacks_at_the_end_of_an_epoch_see_synced_values_of_that_hook() -> None:
    def rank_main(rank: int, all_gather: Any) -> Any:
        store = MetricStore(world_size=2, rank=rank, all_gather=all_gather)
        store.current, store.batch = store.slots("validate", "validation_step"), torch.zeros(1)
        store.log("a", float(rank), sync_dist=True)
        store.publish("validate")
        first = dict(store.callback_metrics)
        store.current = store.slots("validate", "on_validation_epoch_end")
        store.log("b", float(rank), sync_dist=True)
        second = dict(store.callback_metrics)
        return first, second, store.end_epoch("validate")

    results, calls = on_ranks(2, rank_main)
    assert results[0] == results[1] == ({"a": 0.5}, {"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5})
    assert calls == 2


def test_several_ranks_need_a_collective() -> None:
    with pytest.raises(StateError, match="all_gather"):
        MetricStore(world_size=2)
