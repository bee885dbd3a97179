"""When rows are begun, moved, drawn and ended, on a screen that writes everything down."""

import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks.progress.staged_progress import Screen, Stage, StagedProgressBar
from tests.support.fake_clock import FakeClock
from tests.support.shown_run import ShownRun


class Notes:
    """A screen that writes down what it is told."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.calls: list[tuple[Any, ...]] = []
        self.drawn_at: list[float] = []

    def begin(self, stage: Stage) -> None:
        self.calls.append(("begin", stage))

    def restart(self, stage: Stage, description: str, total: int | None) -> None:
        self.calls.append(("restart", stage, description, total))

    def move(self, stage: Stage, done: int) -> None:
        self.calls.append(("move", stage, done))

    def draw(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        self.drawn_at.append(self.clock.now)
        self.calls.append(("draw", stage, done))

    def finish(self, stage: Stage, done: int, metrics: dict[str, Any]) -> None:
        self.calls.append(("finish", stage, done, dict(metrics)))

    def end(self, stage: Stage) -> None:
        self.calls.append(("end", stage))

    def print(self, text: str) -> None:
        self.calls.append(("print", text))

    def stop(self) -> None:
        self.calls.append(("stop",))


class NotedBar(StagedProgressBar):
    """A bar on such screens."""

    def __init__(self, refresh_rate: int = 1) -> None:
        self.time = FakeClock()
        super().__init__(refresh_rate, clock=self.time)
        self.screens: list[Notes] = []

    def _make_screen(self) -> Screen:
        self.screens.append(Notes(self.time))
        return self.screens[-1]

    def noted(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [call for screen in self.screens for call in screen.calls if not kinds or call[0] in kinds]


def run_of(refresh_rate: int = 1, **attributes: Any) -> ShownRun:
    bar = NotedBar(refresh_rate)
    return ShownRun(bar, bar.time, **attributes)


def test_rows_follow_the_run() -> None:
    run = run_of(num_training_batches=2, num_val_batches=[1], num_sanity_val_batches=[1])
    run.fit(epochs=1)
    assert run.bar.noted("begin", "restart", "end", "stop") == [
        ("begin", "sanity"),
        ("restart", "sanity", "Sanity Checking", 1),
        ("end", "sanity"),
        ("begin", "train"),
        ("restart", "train", "Epoch 0/1", 2),
        ("restart", "train", "Epoch 0/1", 2),
        ("begin", "validation"),
        ("restart", "validation", "Validation", 1),
        ("end", "validation"),
        ("end", "train"),
        ("stop",),
    ]


def test_the_sanity_check_and_training_share_a_screen() -> None:
    run = run_of()
    run.fit()
    assert len(run.bar.screens) == 1


@pytest.mark.parametrize(
    ("stage", "fn", "word"), [("validation", "validate", "Validation"), ("test", "test", "Testing"), ("predict", "predict", "Predicting")]
)
def test_each_loader_restarts_the_row(stage: str, fn: str, word: str) -> None:
    run = run_of(num_val_batches=[2, 3], num_test_batches=[2, 3], num_predict_batches=[2, 3])
    run.entry(stage, fn)
    assert run.bar.noted("restart") == [("restart", stage, f"{word} DataLoader 0", 2), ("restart", stage, f"{word} DataLoader 1", 3)]
    assert [call[:3] for call in run.bar.noted("finish")] == [("finish", stage, 2), ("finish", stage, 3)]
    assert run.bar.noted()[-1] == ("stop",)


def test_the_refresh_rate_counts_batches_and_the_last_one_always_counts() -> None:
    run = run_of(refresh_rate=4)
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.hook("on_train_epoch_start")
    run.train()
    assert run.bar.noted("move") == [("move", "train", 4), ("move", "train", 8), ("move", "train", 10)]


def test_unknown_lengths_have_no_total() -> None:
    run = run_of(refresh_rate=5, num_training_batches=float("inf"), num_val_batches=[float("inf")], max_epochs=-1)
    run.fit(epochs=1)
    assert ("restart", "train", "Epoch 0", None) in run.bar.noted()
    assert ("restart", "validation", "Validation", None) in run.bar.noted()
    assert [call[2] for call in run.bar.noted("move") if call[1] == "train"] == [5, 10]


def test_zero_shows_nothing_and_a_negative_rate_is_refused() -> None:
    run = run_of(refresh_rate=0)
    run.fit()
    assert run.bar.screens == []
    assert run.bar.is_disabled
    with pytest.raises(ConfigError, match="refresh_rate=-1"):
        NotedBar(-1)


def test_other_ranks_make_no_screen() -> None:
    run = run_of(is_global_zero=False)
    run.fit()
    assert run.bar.screens == []


def test_a_run_resumed_inside_an_epoch_shows_where_it_is() -> None:
    run = run_of(current_epoch=1)
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.train(first=7)
    assert run.bar.noted("restart", "move") == [("restart", "train", "Epoch 1/1", 10), *(("move", "train", done) for done in (8, 9, 10))]


def test_a_run_resumed_inside_validation_begins_its_row_with_the_first_batch() -> None:
    run = run_of()
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.hook("on_validation_batch_start", None, 2, 0)
    run.hook("on_validation_batch_end", None, None, 2, 0)
    assert run.bar.noted("begin", "move") == [("begin", "train"), ("begin", "validation"), ("move", "validation", 3)]


def test_a_failed_run_gives_the_terminal_back_and_the_next_one_begins_anew() -> None:
    run = run_of()
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.train(last=3)
    run.hook("on_exception", RuntimeError())
    assert run.bar.noted()[-1] == ("stop",)
    run.entry("test", "test")
    assert len(run.bar.screens) == 2


def test_metrics_of_the_validation_are_in_the_epochs_last_state() -> None:
    run = run_of()
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.train()
    run.trainer.progress_bar_metrics["val_loss"] = 0.25
    run.hook("on_train_epoch_end")
    assert run.bar.noted("finish") == [("finish", "train", 10, {"v_num": 3, "loss": 0.1, "val_loss": 0.25})]


def test_disabling_amid_a_run_stops_and_enabling_goes_on() -> None:
    run = run_of()
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.train(last=2)
    run.bar.disable()
    run.train(first=2, last=4)
    assert run.bar.noted()[-1] == ("stop",)
    run.bar.enable()
    run.train(first=4, last=5)
    assert run.bar.noted("move")[-1] == ("move", "train", 5)


def test_printing_goes_to_the_screen_while_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of()
    run.bar.print("before")
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.bar.print("during", 1, sep=": ")
    run.hook("on_train_end")
    run.bar.print("after")
    assert run.bar.noted("print") == [("print", "during: 1\n")]
    assert capsys.readouterr().out == "before\nafter\n"


@given(
    batch_seconds=st.sampled_from([0.0, 0.001, 0.03, 0.1, 2.0]),
    batches=st.integers(1, 30),
    validation=st.integers(0, 5),
    rate=st.integers(1, 7),
)
def test_two_drawings_are_a_tenth_of_a_second_apart(batch_seconds: float, batches: int, validation: int, rate: int) -> None:
    run = run_of(rate, batch_seconds=batch_seconds, num_training_batches=batches, num_val_batches=[validation])
    run.fit(epochs=3)
    times = [time for screen in run.bar.screens for time in screen.drawn_at]
    assert all(later - earlier >= 0.1 - 1e-6 for earlier, later in pairwise(times))


@given(batches=st.integers(1, 30), rate=st.integers(1, 40))
def test_a_quiet_batch_asks_nobody(batches: int, rate: int) -> None:
    run = run_of(rate, num_training_batches=batches)
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.hook("on_train_epoch_start")
    run.train()
    moved = [call[2] for call in run.bar.noted("move")]
    assert moved == sorted({*range(rate, batches + 1, rate), batches})


def test_a_bar_is_pickled_without_its_screen() -> None:
    bar = pickle.loads(pickle.dumps(NotedBar(3)))
    assert bar.refresh_rate == 3
