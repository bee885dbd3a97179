from typing import Any

import pytest
import torch

from leyden.fabric.loggers import Logger
from leyden.trainer.engine.state import RunState
from leyden.trainer.metrics.rows import Rows, arrived, on_the_way
from leyden.trainer.metrics.store import MetricStore
from tests.support.metric_loops import MemoryLogger


class ThreadedMemory(MemoryLogger):
    threaded = True


class Counting(MemoryLogger):
    saves = 0

    def save(self) -> None:
        self.saves += 1


def rows(*loggers: Logger) -> tuple[MetricStore, Rows, RunState]:
    store, state = MetricStore(), RunState()
    store.current = store.slots("train", "training_step")
    return store, Rows(store, loggers, state), state


def graph(value: float) -> Any:
    """Return a value that stays a tensor, as one on a device does."""
    return torch.tensor(value, requires_grad=True) * 1


def test_an_empty_row_is_not_written() -> None:
    logger = MemoryLogger()
    _, writer, state = rows(logger)
    writer.train_step(state.clock)
    writer.train_epoch(state.clock)
    assert logger.rows == []


def test_a_logged_step_becomes_the_step_of_the_row() -> None:
    logger = MemoryLogger()
    store, writer, state = rows(logger)
    store.log("step", 7.9)
    store.log("a", 1.0)
    writer.train_step(state.clock)
    assert logger.rows == [[7, {"a": 1.0}]]
    assert float(store.logged_metrics["step"]) == pytest.approx(7.9)


def test_a_logged_epoch_is_kept() -> None:
    logger = MemoryLogger()
    store, writer, state = rows(logger)
    store.log("epoch", 7.5)
    writer.train_step(state.clock)
    assert logger.rows == [[0, {"epoch": 7.5}]]


def test_tensors_reach_plain_loggers_as_numbers_and_threaded_ones_as_functions() -> None:
    plain, threaded = MemoryLogger(), ThreadedMemory()
    store, writer, state = rows(plain, threaded)
    store.log("a", graph(1.0), enable_graph=True)
    store.log("b", 2.0)
    writer.train_step(state.clock)
    assert plain.rows == [[0, {"a": 1.0, "b": 2.0, "epoch": 0}]]
    row = threaded.rows[0][1]
    assert row["a"]() == 1.0
    assert row["b"] == 2.0


def test_a_row_is_copied_once_whatever_the_precisions() -> None:
    row = on_the_way({"half": torch.tensor(0.5, dtype=torch.float16), "double": torch.tensor(0.1, dtype=torch.float64), "epoch": 3})
    assert row["half"].func.__self__ is row["double"].func.__self__
    assert arrived(row) == {"half": 0.5, "double": 0.1, "epoch": 3}


def test_evaluated_loaders_count_their_own_steps_over_epochs() -> None:
    logger = MemoryLogger()
    store, writer, state = rows(logger)
    for _ in range(2):
        writer.begin_eval("validate", 2)
        store.begin_epoch("validate")
        for loader in (0, 1):
            store.dataloader_idx, store.current = loader, store.slots("validate", "validation_step")
            store.log("v", float(loader), on_step=True, on_epoch=False)
            writer.eval_step("validate", loader)
        store.dataloader_idx = None
        writer.eval_epoch("validate", state.clock, 2)
    assert [(step, dict(row)) for step, row in logger.rows] == [
        (step, {f"v/dataloader_idx_{loader}": float(loader)}) for step in (0, 1) for loader in (0, 1)
    ]
    assert state.eval_rows == {"validate": [2, 2]}


def test_the_sanity_check_writes_nothing() -> None:
    logger = MemoryLogger()
    store, writer, state = rows(logger)
    writer.begin_eval("sanity", 1)
    store.current = store.slots("sanity", "validation_step")
    store.log("v", 1.0, on_step=True, on_epoch=True)
    writer.eval_step("sanity")
    assert writer.eval_epoch("sanity", state.clock) == [{"v_epoch": 1.0}]
    store.discard("sanity")
    assert logger.rows == []
    assert store.callback_metrics == store.progress_bar_metrics == store.logged_metrics == {}


def test_loggers_are_saved_when_asked() -> None:
    logger = Counting()
    store, writer, state = rows(logger)
    store.log("a", 1.0)
    writer.train_step(state.clock)
    assert logger.saves == 0
    writer.save()
    assert logger.saves == 1


def test_without_loggers_the_dictionaries_are_filled_all_the_same() -> None:
    store, writer, state = rows()
    store.log("a", 1.0)
    writer.train_step(state.clock)
    assert store.logged_metrics == {"a": 1.0}
