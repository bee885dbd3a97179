"""Progress as lines: when they come, and what they say."""

import pytest

from leyden.trainer.callbacks.progress.plain_progress import PlainProgressBar
from tests.support.fake_clock import FakeClock
from tests.support.shown_run import ShownRun


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def run_of(**attributes: object) -> ShownRun:
    clock = FakeClock()
    return ShownRun(PlainProgressBar(clock=clock), clock, **attributes)  # type: ignore[arg-type]


def test_a_short_run_has_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    run_of(batch_seconds=0.1).fit()
    assert shown(capsys) == [
        "Epoch 0/1: 100% 10/10, 7.1 it/s, v_num=3, loss=0.100",
        "Epoch 1/1: 100% 10/10, 7.1 it/s, v_num=3, loss=0.100",
    ]


def test_a_long_epoch_has_a_line_every_twentieth_part(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(num_training_batches=1000, num_val_batches=[0], num_sanity_val_batches=[0])
    run.fit(epochs=1)
    lines = shown(capsys)
    assert len(lines) == 20
    assert lines[0] == "Epoch 0/1:   5% 50/1000, 1.0 it/s, 0:15:50 left, v_num=3, loss=0.020"


def test_no_minute_passes_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(num_training_batches=100_000, num_val_batches=[0], num_sanity_val_batches=[0])
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.train(last=600)
    assert len(shown(capsys)) == 10


def test_slow_batches_have_a_line_each_and_seconds_per_batch(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(batch_seconds=30.0, num_training_batches=3, num_val_batches=[0], num_sanity_val_batches=[0])
    run.fit(epochs=1)
    assert [line.split(", v_num")[0] for line in shown(capsys)] == [
        "Epoch 0/1:  33% 1/3, 30.0 s/it, 0:01:00 left",
        "Epoch 0/1:  67% 2/3, 30.0 s/it, 0:00:30 left",
        "Epoch 0/1: 100% 3/3, 30.0 s/it",
    ]


def test_a_long_validation_has_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(num_val_batches=[100], num_sanity_val_batches=[0])
    run.fit(epochs=1)
    assert any(line.startswith("Validation:  10% 10/100") for line in shown(capsys))


@pytest.mark.parametrize(
    ("stage", "fn", "word"), [("validation", "validate", "Validation"), ("test", "test", "Testing"), ("predict", "predict", "Predicting")]
)
def test_an_entry_point_ends_with_a_line(capsys: pytest.CaptureFixture[str], stage: str, fn: str, word: str) -> None:
    run_of(batch_seconds=0.01).entry(stage, fn)
    assert shown(capsys) == [f"{word}: 100% 4/4, 100.0 it/s, v_num=3"]


def test_an_unknown_length_shows_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(num_training_batches=float("inf"), num_val_batches=[0], num_sanity_val_batches=[0])
    run.fit(epochs=1)
    assert shown(capsys)[0] == "Epoch 0/1: 10, 1.0 it/s, v_num=3, loss=0.100"


def test_the_speed_of_a_resumed_epoch_counts_its_own_batches(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(num_training_batches=100)
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.train(first=80)
    run.hook("on_train_epoch_end")
    assert "100% 100/100, 1.0 it/s" in shown(capsys)[-1]


def test_lines_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of()
    run.fit()
    run.bar.print("done")
    out = capsys.readouterr().out
    assert "\r" not in out
    assert "\x1b" not in out
