"""Logging values of a GPU: nothing waits for it until a row is read, and what is read is right."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from leyden.trainer.engine.state import RunState
from leyden.trainer.metrics.rows import Rows
from leyden.trainer.metrics.store import MetricStore
from tests.support.gpu import DEVICE, needs_gpu
from tests.support.metric_loops import MemoryLogger, numbers

pytestmark = [needs_gpu, pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")]


class ThreadedMemory(MemoryLogger):
    threaded = True


@contextmanager
def without_waiting() -> Iterator[None]:
    if DEVICE.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rows_of_device_values_wait_only_where_they_are_read() -> None:
    store, state, logger = MetricStore(device=DEVICE), RunState(), ThreadedMemory()
    rows = Rows(store, [logger], state)
    values = torch.arange(1.0, 9.0, device=DEVICE)
    batch = torch.zeros(2, device=DEVICE)
    torch.empty(8, pin_memory=DEVICE.type == "cuda")
    with without_waiting():
        store.current = store.slots("train", "training_step")
        for index in range(8):
            store.batch = batch
            store.log("a", values[index], on_step=True, on_epoch=True, prog_bar=True)
            store.log("max", values[index], on_step=False, on_epoch=True, reduce_fx="max")
            store.log("host", float(index))
            rows.train_step(state.clock)
            state.clock.log_step += 1
            assert set(store.callback_metrics) == {"a", "a_step", "host"}
        values.mul_(100)  # what was logged is not touched
        rows.train_epoch(state.clock)
    read: list[Any] = [(step, {name: value() if callable(value) else value for name, value in row.items()}) for step, row in logger.rows]
    assert read[:-1] == [(index, {"a_step": index + 1.0, "host": float(index), "epoch": 0}) for index in range(8)]
    assert read[-1] == (7, {"a_epoch": 4.5, "max": 8.0, "epoch": 0})
    assert numbers(store.callback_metrics) == {"a": 4.5, "a_step": 8.0, "a_epoch": 4.5, "host": 7.0, "max": 8.0}
    assert store.progress_bar_metrics == {"a_step": 8.0, "a_epoch": 4.5}


def test_ranks_exchange_device_values() -> None:
    store = MetricStore(device=DEVICE, world_size=2, all_gather=lambda vector, group: torch.stack([vector, of_another_rank(vector)]))
    store.current = store.slots("train", "training_step")
    for index in range(20):
        store.log(f"a{index}", torch.tensor(float(index), device=DEVICE), sync_dist=True)
    assert store.step_row("train") == {f"a{index}": 2.0 * index for index in range(20)}


def of_another_rank(vector: torch.Tensor) -> torch.Tensor:
    """Return the vector of a rank with the same names, which the first two numbers tell, and three times the values."""
    return torch.cat([vector[:2], 3 * vector[2:]])


def test_a_resumed_run_goes_on_with_the_device_sums() -> None:
    store, other = MetricStore(device=DEVICE), MetricStore(device=DEVICE)
    store.current = store.slots("train", "training_step")
    store.log("a", torch.tensor(0.1, device=DEVICE), on_epoch=True, batch_size=3)
    other.load_state_dict(store.state_dict())
    other.load_rank_states([store.rank_state()])
    other.current = other.slots("train", "training_step")
    for each in (store, other):
        each.log("a", torch.tensor(0.7, device=DEVICE), on_epoch=True, batch_size=1)
    assert float(other.end_epoch("train")["a_epoch"]) == float(store.end_epoch("train")["a_epoch"])
