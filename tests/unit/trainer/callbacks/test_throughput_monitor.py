from collections.abc import Callable
from typing import Any

import pytest
import torch

from leyden.trainer.callbacks import ThroughputMonitor
from tests.support.fake_clock import FakeClock
from tests.support.module_trainer import FakeModule, ModuleTrainer, RowLogger


class Timed:
    """A fit with a monitor, where each batch takes a second."""

    def __init__(self, monitor: ThroughputMonitor | None = None, flops: int | None = None, **options: Any) -> None:
        self.clock = FakeClock()
        self.monitor = monitor or ThroughputMonitor(batch_size_fn=len, window_size=2)
        self.monitor.clock = self.clock
        self.logger = RowLogger()
        self.module: Any = FakeModule()
        self.module.flops_per_batch = flops
        optimizers = [torch.optim.SGD(self.module.parameters(), lr=0.1)]
        self.trainer = ModuleTrainer(callbacks=[self.monitor], loggers=[self.logger], optimizers=optimizers, **options)

    def loss(self, module: Any, batch: Any) -> Any:
        self.clock.advance(1.0)
        return module(batch).sum()

    def epoch(self, batches: int, size: int = 8) -> None:
        self.trainer.epoch(self.module, [torch.ones(size, 4)] * batches, self.loss)


def test_rates_come_with_rows_of_training() -> None:
    fit = Timed(log_every_n_steps=2)
    fit.trainer.start(fit.module)
    fit.epoch(4)
    steps, rows = zip(*fit.logger.rows, strict=True)
    assert steps == (1, 3)
    assert rows[1] == {
        "train/time": 4.0,
        "train/batches": 4,
        "train/samples": 32,
        "train/device/batches_per_sec": 1.0,
        "train/device/samples_per_sec": 8.0,
    }


def test_items_and_flops_are_counted_where_told() -> None:
    fit = Timed(
        ThroughputMonitor(len, torch.numel, window_size=2, available_flops=1000.0, using_sparse_model=False), 100, log_every_n_steps=2
    )
    fit.trainer.start(fit.module)
    fit.epoch(2)
    row = fit.logger.rows[0][1]
    assert (row["train/device/items_per_sec"], row["train/device/flops_per_sec"], row["train/device/mfu"]) == (32.0, 100.0, 0.1)


def test_validation_is_no_training_time() -> None:
    fit = Timed(log_every_n_steps=1)
    fit.trainer.start(fit.module)
    fit.epoch(2)
    fit.clock.advance(5)
    began = fit.clock.now
    fit.trainer.fire("on_validation_start", fit.module)
    fit.clock.advance(100)
    fit.trainer.fire("on_validation_end", fit.module)
    fit.epoch(1)
    assert fit.clock.now > began + 100
    assert fit.logger.rows[-1][1]["train/time"] == 8.0


def test_accumulating_batches_count_and_only_the_last_logs() -> None:
    fit = Timed(log_every_n_steps=1, accumulate_grad_batches=2)
    fit.trainer.start(fit.module)
    fit.epoch(4)
    assert [(step, row["train/batches"]) for step, row in fit.logger.rows] == [(0, 2), (1, 4)]


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_other_stages_have_rows_of_their_own_that_go_on_over_epochs(stage: str) -> None:
    fit = Timed(log_every_n_steps=2)
    word = "validation" if stage == "validate" else stage
    for _ in range(2):
        fit.trainer.fire(f"on_{word}_start", fit.module)
        for index in range(3):
            fit.clock.advance(0.5)
            fit.trainer.fire(f"on_{word}_batch_end", fit.module, None, torch.ones(4, 4), index, 0)
    assert [step for step, _ in fit.logger.rows] == [2, 4, 6]
    assert fit.logger.rows[0][1][f"{stage}/device/batches_per_sec"] == 2.0


def test_the_sanity_check_is_not_measured() -> None:
    fit = Timed(log_every_n_steps=1, sanity_checking=True)
    fit.trainer.validation(fit.module, [torch.ones(2, 4)])
    assert fit.logger.rows == []


def test_totals_go_on_after_a_resume() -> None:
    fit = Timed(log_every_n_steps=1)
    fit.trainer.start(fit.module)
    fit.epoch(3)
    checkpoint = fit.trainer.checkpoint(fit.module)
    other = Timed(log_every_n_steps=1)
    other.trainer.resume(other.module, checkpoint)
    other.clock.now = 5.0  # another process's clock
    other.monitor._meters["train"].began = 5.0 - 3.0
    other.epoch(1)
    row = other.logger.rows[0][1]
    assert (row["train/time"], row["train/batches"], row["train/samples"]) == (4.0, 4, 32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: (ModuleTrainer(), FakeModule()), "no effect without a logger"),
        (lambda: (ModuleTrainer(loggers=[RowLogger()]), FakeModule()), "no `flops_per_batch`"),
    ],
    ids=["logger", "flops"],
)
def test_what_will_be_missing_is_warned_of(make: Callable[[], tuple[ModuleTrainer, Any]], words: str) -> None:
    trainer, module = make()
    if "logger" in words:
        module.flops_per_batch = 1
    with pytest.warns(UserWarning, match=words):
        ThroughputMonitor(len).setup(trainer, module, "fit")
