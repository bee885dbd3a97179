"""`TQDMProgressBar`: documented bars, counts and descriptions, and methods to override."""

import pickle
import re
from typing import Any

import pytest

from leyden.trainer.callbacks.progress.tqdm_progress import Tqdm, TQDMProgressBar
from tests.support.fake_clock import FakeClock
from tests.support.shown_run import ShownRun


def run_of(
    bar_class: type[TQDMProgressBar] = TQDMProgressBar, *, batch_seconds: float = 1.0, leave: bool = False, **arguments: Any
) -> ShownRun:
    clock = FakeClock()
    return ShownRun(bar_class(clock=clock, leave=leave, **arguments), clock, batch_seconds=batch_seconds)


def last_line(text: str) -> str:
    return [part for part in re.split(r"[\r\n]+", text.replace("\x1b[A", "")) if part.strip()][-1].strip()


def test_an_epoch_shows_count_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of()
    run.fit(epochs=1)
    line = last_line(capsys.readouterr().out)
    assert line.startswith("Epoch 0: 100%|")
    assert "| 10/10 [" in line
    assert line.endswith("v_num=3, loss=0.100]")


def test_counts_and_totals_are_there_after_the_run() -> None:
    run = run_of()
    run.fit(epochs=1)
    bar = run.bar
    assert (bar.train_progress_bar.n, bar.train_progress_bar.total) == (10, 10)
    assert (bar.val_progress_bar.n, bar.val_progress_bar.total) == (4, 4)
    assert bar.val_progress_bar.desc == "Validation DataLoader 0: "
    run.entry("test", "test")
    assert bar.test_progress_bar.n == 4
    run.entry("predict", "predict")
    assert bar.predict_progress_bar.n == 4


def test_the_count_moves_by_the_refresh_rate_however_fast_batches_are() -> None:
    moved = []

    class Counted(Tqdm):
        @property
        def n(self) -> int:
            return self.__dict__.get("_n", 0)

        @n.setter
        def n(self, value: int) -> None:
            self.__dict__["_n"] = value
            moved.append(value)

    class Bar(TQDMProgressBar):
        def init_train_tqdm(self) -> Any:
            return Counted(disable=self.is_disabled)

    run = run_of(Bar, batch_seconds=0.0, refresh_rate=4)
    run.fit(epochs=1)
    assert list(dict.fromkeys(moved)) == [0, 4, 8, 10]


@pytest.mark.parametrize("name", ["train", "val", "test", "predict"])
def test_a_bar_before_its_loop_is_an_error(name: str) -> None:
    with pytest.raises(TypeError, match=f"`TQDMProgressBar.{name}_progress_bar` reference has not been set yet"):
        getattr(TQDMProgressBar(), f"{name}_progress_bar")


def test_bars_can_be_overridden() -> None:
    class Bar(TQDMProgressBar):
        def init_validation_tqdm(self) -> Any:
            bar = super().init_validation_tqdm()
            bar.colour = "green"
            return bar

    run = run_of(Bar)
    run.fit(epochs=1)
    assert run.bar.val_progress_bar.colour == "green"


def test_finished_epochs_stay_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    run_of(leave=True).fit(epochs=2)
    out = capsys.readouterr().out
    assert re.search(r"Epoch 0: 100%[^\r]*\n", out)
    assert re.search(r"Epoch 1: 100%[^\r]*\n", out)


@pytest.mark.parametrize(("leave", "bars"), [(False, 1), (True, 3)])
def test_one_bar_serves_all_epochs_unless_they_stay(leave: bool, bars: int) -> None:
    made = []

    class Bar(TQDMProgressBar):
        def init_train_tqdm(self) -> Any:
            made.append(super().init_train_tqdm())
            return made[-1]

    run_of(Bar, leave=leave).fit(epochs=3)
    assert len(made) == bars


def test_an_unknown_length_has_no_total() -> None:
    run = run_of()
    run.trainer.num_training_batches = float("inf")
    run.fit(epochs=1)
    assert run.bar.train_progress_bar.total is None
    assert run.bar.train_progress_bar.n == 12


def test_validations_in_quick_succession_draw_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(batch_seconds=0.0)
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.train(last=1)
    capsys.readouterr()
    for _ in range(50):
        run.validation()
    assert "Validation" not in capsys.readouterr().out


def test_the_process_position_leaves_lines() -> None:
    assert TQDMProgressBar(process_position=2).process_position == 2


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1"), (1.0, "1.000"), (0.1, "0.100"), (1e-3, "0.001"), (1e-5, "1e-5"), ("2.0", "2.000"), ("abc", "abc"), (12345.0, "12345.0")],
)
def test_numbers_keep_their_width(number: Any, text: str) -> None:
    assert Tqdm.format_num(number) == text


def test_printing_goes_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of()
    run.hook("setup", "fit")
    run.hook("on_train_start")
    run.bar.print("[1] hello")
    assert "[1] hello\n" in capsys.readouterr().out
    run.hook("on_exception", RuntimeError())


def test_a_bar_that_has_run_is_pickled() -> None:
    run = run_of()
    run.fit(epochs=1)
    run.bar._trainer = None
    assert pickle.loads(pickle.dumps(run.bar)).refresh_rate == 1
