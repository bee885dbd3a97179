import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks.timer import Interval, Timer
from tests.support.fake_clock import FakeClock
from tests.support.fake_trainer import FakeTrainer


@pytest.mark.parametrize("duration", ["00:00:01:30", timedelta(seconds=90), {"minutes": 1, "seconds": 30}, "1.5min"], ids=str)
def test_a_duration_is_given_in_any_form(duration: Any) -> None:
    assert Timer(duration).time_remaining() == 90.0


def test_without_a_duration_nothing_remains_and_nothing_ends(tmp_path: Path) -> None:
    timer = Timer()
    assert timer.time_remaining() is None
    trainer = FakeTrainer(tmp_path, timer)
    trainer.begin()
    trainer.epoch()
    assert (trainer.stop_reasons, trainer.should_stop) == ([], False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"duration": "1:2:3"}, "format DD:HH:MM:SS"),
        ({"duration": 5}, "format DD:HH:MM:SS"),
        ({"interval": "steps"}, r"Unsupported parameter value `Timer\(interval=steps\)`.*'step', 'epoch'.*Did you mean 'step'"),
    ],
    ids=str,
)
def test_what_is_no_time_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Timer(**arguments)


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"stage='training'.*Did you mean 'train'"):
        Timer().time_elapsed("training")


def test_each_stage_has_a_clock(tmp_path: Path) -> None:
    clock = FakeClock(start=100.0)
    timer = Timer(clock=clock)
    trainer = FakeTrainer(tmp_path, timer)
    assert (timer.start_time(), timer.end_time(), timer.time_elapsed()) == (None, None, 0.0)
    for stage, start, end in (
        ("sanity_check", "on_sanity_check_start", "on_sanity_check_end"),
        ("train", "on_train_start", "on_train_end"),
        ("validate", "on_validation_start", "on_validation_end"),
        ("test", "on_test_start", "on_test_end"),
        ("predict", "on_predict_start", "on_predict_end"),
    ):
        began = clock.now
        trainer.fire(start)
        clock.advance(3)
        assert timer.time_elapsed(stage) == 3.0
        clock.advance(2)
        trainer.fire(end)
        clock.advance(10)
        assert (timer.start_time(stage), timer.end_time(stage), timer.time_elapsed(stage)) == (began, began + 5, 5.0)
    trainer.fire("on_validation_start")
    assert (timer.end_time("validate"), timer.time_elapsed("validate")) == (None, 0.0)


def test_training_is_asked_to_stop_once_after_the_step_in_which_time_is_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = FakeClock()
    timer = Timer("00:00:00:10", clock=clock)
    trainer = FakeTrainer(tmp_path, timer)
    trainer.begin()
    for index in range(4):
        clock.advance(4)
        trainer.batch(index)
        assert bool(trainer.stop_reasons) == (index >= 2)
    assert trainer.stop_reasons == ["the time limit of 0:00:10 is reached"]
    assert not trainer.should_stop  # that is the agreement's to set, on all ranks
    assert timer.time_remaining() == -6.0
    assert "Time limit reached after 0:00:12: training ends." in caplog.text


def test_by_epoch_training_ends_with_the_epoch(tmp_path: Path) -> None:
    clock = FakeClock()
    trainer = FakeTrainer(tmp_path, Timer("00:00:00:10", interval=Interval.epoch, clock=clock))
    trainer.begin()
    clock.advance(20)
    trainer.batch(0)
    assert (trainer.stop_reasons, trainer.should_stop) == ([], False)
    trainer.fire("on_train_epoch_end")
    assert trainer.should_stop


def test_elapsed_time_survives_a_resume(tmp_path: Path) -> None:
    clock = FakeClock(start=50.0)
    first = Timer("00:00:01:00", clock=clock)
    FakeTrainer(tmp_path, first).begin()
    clock.advance(40)
    state = first.state_dict()
    assert state == {"time_elapsed": {"train": 40.0, "sanity_check": 0.0, "validate": 0.0, "test": 0.0, "predict": 0.0}}
    second = Timer("00:00:01:00", clock=FakeClock(start=7_000.0))
    second.load_state_dict(state)
    assert (second.time_elapsed(), second.time_remaining()) == (40.0, 20.0)
    trainer = FakeTrainer(tmp_path, second)
    trainer.begin()
    assert not trainer.should_stop
    assert second.time_elapsed() == 40.0


@pytest.mark.parametrize("interval", list(Interval))
def test_a_run_whose_time_was_up_before_does_not_begin(tmp_path: Path, interval: Interval) -> None:
    timer = Timer("00:00:00:30", interval=interval, verbose=False)
    timer.load_state_dict({"time_elapsed": {"train": 30.0}})
    trainer = FakeTrainer(tmp_path, timer)
    trainer.fire("on_train_start")
    assert trainer.should_stop
