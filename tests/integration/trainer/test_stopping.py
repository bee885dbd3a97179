"""`EarlyStopping`, `Timer`, `LearningRateMonitor` and `OnExceptionCheckpoint` in a real fit."""

import csv
from pathlib import Path
from typing import Any

import pytest

from leyden.fabric.loggers import CSVLogger
from leyden.trainer.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, OnExceptionCheckpoint, Timer
from leyden.trainer.callbacks.early_stopping import EarlyStoppingReason
from leyden.trainer.core.callback import Callback
from tests.support.fake_clock import FakeClock
from tests.support.scripted_fit import Scripted, fit, loader, step_of, trainer_for

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:Checkpoint directory",
    "ignore:You defined a `validation_step` but have no `val_dataloader`",
    "ignore:Be aware that when using `ckpt_path`",
)


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}, {"check_val_every_n_epoch": 1, "min_epochs": 1}], ids=str)
def test_training_ends_when_nothing_improves(tmp_path: Path, options: dict[str, Any]) -> None:
    stopping = EarlyStopping("val_loss", patience=2)
    trainer = fit(tmp_path, stopping, module=Scripted([1.0, 2.0, 3.0, 4.0]), max_epochs=10, enable_checkpointing=False, **options)
    assert stopping.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED
    assert trainer.current_epoch == (2 if "val_check_interval" in options else 3)
    assert trainer.early_stopping_callback is stopping


def test_min_epochs_put_the_end_off(tmp_path: Path) -> None:
    stopping = EarlyStopping("val_loss", patience=1)
    trainer = fit(tmp_path, stopping, module=Scripted([1.0, 2.0]), min_epochs=4, max_epochs=9, enable_checkpointing=False)
    assert trainer.current_epoch == 4


def test_a_training_metric_is_watched_without_validation(tmp_path: Path) -> None:
    stopping = EarlyStopping("train_loss", stopping_threshold=1e9)
    trainer = fit(tmp_path, stopping, validates=False, max_epochs=9, enable_checkpointing=False)
    assert (trainer.current_epoch, stopping.stopping_reason) == (1, EarlyStoppingReason.STOPPING_THRESHOLD)


def test_an_absent_metric_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Early stopping conditioned on metric `loss`"):
        fit(tmp_path, EarlyStopping("loss"), enable_checkpointing=False)


def test_patience_counts_on_after_a_resume(tmp_path: Path) -> None:
    fit(tmp_path, EarlyStopping("val_loss", patience=3), ModelCheckpoint(tmp_path / "c"), module=Scripted([1.0, 2.0]), max_epochs=2)
    stopping = EarlyStopping("val_loss", patience=3)
    path = tmp_path / "c" / "epoch=1-step=8.ckpt"
    trainer = fit(tmp_path, stopping, ModelCheckpoint(tmp_path / "c"), module=Scripted([3.0]), max_epochs=9, ckpt_path=path)
    assert trainer.current_epoch == 4
    assert stopping.wait_count == 3


class Ticking(Callback):
    """Lets a minute pass with every batch."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.clock.advance(60)


@pytest.mark.parametrize(("interval", "steps"), [("step", 6), ("epoch", 8)])
def test_a_run_ends_when_its_time_is_up(tmp_path: Path, interval: str, steps: int) -> None:
    clock = FakeClock()
    timer = Timer("6min", interval, clock=clock)
    trainer = fit(tmp_path, Ticking(clock), timer, max_epochs=-1, enable_checkpointing=False)
    assert trainer.global_step == steps
    assert timer.time_elapsed() == 60 * steps
    assert timer.end_time() is not None


def test_time_counts_over_attempts(tmp_path: Path) -> None:
    clock = FakeClock()
    fit(tmp_path, Ticking(clock), Timer("6min", clock=clock), ModelCheckpoint(tmp_path / "c"), max_epochs=1)
    clock.advance(1e6)
    path = tmp_path / "c" / "epoch=0-step=4.ckpt"
    timer = Timer("6min", clock=clock)
    trainer = fit(tmp_path, Ticking(clock), timer, max_epochs=9, ckpt_path=path, enable_checkpointing=False)
    assert trainer.global_step == 6
    assert timer.time_remaining() == 0.0


def test_a_run_whose_time_was_up_trains_no_more(tmp_path: Path) -> None:
    clock = FakeClock()
    fit(tmp_path, Ticking(clock), Timer("4min", clock=clock), ModelCheckpoint(tmp_path / "c"), max_epochs=1)
    path = tmp_path / "c" / "epoch=0-step=4.ckpt"
    trainer = fit(tmp_path, Ticking(clock), Timer("4min", clock=clock), max_epochs=9, ckpt_path=path, enable_checkpointing=False)
    assert trainer.global_step == 4


def test_rates_go_to_the_logger_and_to_other_callbacks(tmp_path: Path) -> None:
    monitor = LearningRateMonitor(log_momentum=True)
    trainer = fit(tmp_path, monitor, logger=CSVLogger(tmp_path, name="", version=""), enable_checkpointing=False)
    assert monitor.lrs == {"lr-SGD": [0.01, 0.005, 0.0025]}
    assert float(trainer.callback_metrics["lr-SGD"]) == pytest.approx(0.0025)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [(int(row["step"]), float(row["lr-SGD"])) for row in csv.DictReader(file) if row["lr-SGD"]]
    assert rows == [(0, 0.01), (4, 0.005), (8, 0.0025)]


@pytest.mark.filterwarnings("ignore:.*was written inside a batch")
def test_a_run_that_failed_goes_on_by_itself_and_tidies_up(tmp_path: Path) -> None:
    saver = OnExceptionCheckpoint(tmp_path)
    with pytest.raises(RuntimeError, match="the step fails"):
        fit(tmp_path, saver, module=Scripted(fails_at=5), enable_checkpointing=None)
    assert step_of(saver.ckpt_path) == 5
    trainer = trainer_for(tmp_path, OnExceptionCheckpoint(tmp_path))
    module = Scripted()
    steps: list[int] = []
    module.on_train_batch_start = lambda batch, batch_idx: steps.append(trainer.global_step)
    trainer.fit(module, loader(), loader(1))
    assert steps[0] == 5
    assert trainer.current_epoch == 3
    assert not Path(saver.ckpt_path).exists()
