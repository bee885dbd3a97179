from typing import Any

import torch
import torch.distributed as dist
import torchmetrics
from torch import nn

from leyden.core.errors import StateError
from leyden.fabric import collectives
from leyden.trainer.core.logging import log
from leyden.trainer.metrics.store import MetricStore
from tests.support.ranks import run_ranks


class Net(nn.Module):
    log = log

    def __init__(self, sink: MetricStore) -> None:
        super().__init__()
        self.__dict__["_log_sink"] = sink
        self.metric = torchmetrics.MeanMetric()


def rows_of_a_rank() -> list[Any]:
    rank = dist.get_rank()
    store = MetricStore(world_size=2, rank=rank, all_gather=collectives.all_gather)
    net = Net(store)
    store.attach(net)
    store.current, store.batch = store.slots("train", "training_step"), torch.zeros(rank + 1)
    for index in range(20):  # more than fits into the first vector
        net.log(f"a{index}", torch.tensor(float(rank)), on_step=True, on_epoch=True, sync_dist=True)
    net.metric.update(float(rank))
    net.log("metric", net.metric, on_step=False, on_epoch=True)
    step, epoch = store.step_row("train"), store.end_epoch("train")
    alone = dist.new_group([0]), dist.new_group([1])
    net.log("own", float(rank), sync_dist=True, sync_dist_group=alone[rank], reduce_fx="sum")
    own = store.step_row("train")
    return [step["a19_step"], round(epoch["a19_epoch"], 6), epoch["metric"], own]


def differing() -> str:
    rank = dist.get_rank()
    store = MetricStore(world_size=2, rank=rank, all_gather=collectives.all_gather)
    store.current = store.slots("train", "training_step")
    store.log("both", 1.0, sync_dist=True)
    if rank == 0:
        store.log("first", 1.0, sync_dist=True)
    try:
        store.step_row("train")
    except StateError as error:
        return str(error)
    return ""


def test_values_and_metric_objects_are_reduced_over_a_real_group() -> None:
    first, second = run_ranks(rows_of_a_rank, 2)
    assert first == [0.5, 0.666667, 0.5, {"own": 0.0}]
    assert second == [0.5, 0.666667, 0.5, {"own": 1.0}]


def test_every_rank_learns_which_name_was_logged_by_one_alone() -> None:
    messages = run_ranks(differing, 2)
    assert messages[0] == messages[1]
    assert "'first' (training_step) only by ranks [0]" in messages[0]
