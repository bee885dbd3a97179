"""The base of progress bars: totals, metrics, rank 0, and a bar of one's own in five lines."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from leyden.core.errors import StateError
from leyden.trainer.callbacks.progress.progress_bar import ProgressBar
from tests.support.shown_run import ShownRun


class Percent(ProgressBar):
    """The documented example: it overrides `enable` by an attribute, too."""

    def __init__(self) -> None:
        super().__init__()
        self.enable = True  # type: ignore[method-assign,assignment]

    def disable(self) -> None:
        self.enable = False  # type: ignore[method-assign,assignment]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.enable:
            sys.stdout.write(f"{100 * (batch_idx + 1) / self.total_train_batches:.0f}%\n")


def test_a_bar_of_ones_own_needs_one_hook(capsys: pytest.CaptureFixture[str]) -> None:
    run = ShownRun(Percent(), num_training_batches=4)
    run.fit(epochs=1)
    assert capsys.readouterr().out.split() == ["25%", "50%", "75%", "100%"]


def test_other_ranks_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Percent()
    ShownRun(bar, is_global_zero=False).fit(epochs=1)
    assert capsys.readouterr().out == ""


def test_a_trainer_before_a_run_is_an_error() -> None:
    with pytest.raises(StateError, match="before a run has begun"):
        ProgressBar().trainer  # noqa: B018 - the access is the test


def test_disabling_and_enabling_are_seen() -> None:
    bar = ProgressBar()
    assert bar.is_enabled
    assert not bar.is_disabled
    bar.disable()
    assert bar.is_disabled
    bar.enable()
    assert bar.is_enabled


@pytest.mark.parametrize(("version", "shown"), [(7, {"v_num": 7}), ("1a2b3c4d", {"v_num": "3c4d"}), (None, {}), ("", {"v_num": ""})])
def test_the_version_of_the_first_logger_is_shown(version: Any, shown: dict[str, Any]) -> None:
    run = ShownRun(ProgressBar(), loggers=[SimpleNamespace(version=version), SimpleNamespace(version="other")])
    assert run.bar.get_metrics(run.trainer, None) == shown


def test_logged_metrics_stand_behind_the_version() -> None:
    run = ShownRun(ProgressBar(), progress_bar_metrics={"loss": 0.5})
    assert list(run.bar.get_metrics(run.trainer, None).items()) == [("v_num", 3), ("loss", 0.5)]


def test_a_metric_called_like_the_version_warns_and_wins() -> None:
    run = ShownRun(ProgressBar(), progress_bar_metrics={"v_num": 0.5})
    with pytest.warns(UserWarning, match="already shows a metric with the name.*v_num"):
        assert run.bar.get_metrics(run.trainer, None) == {"v_num": 0.5}


def test_totals_are_those_of_the_loader_that_runs() -> None:
    run = ShownRun(ProgressBar(), num_val_batches=[4, 6], num_sanity_val_batches=[1, 2], num_test_batches=[7], num_predict_batches=[8, 9])
    run.hook("setup", "fit")
    bar = run.bar
    assert bar.total_train_batches == 10
    assert bar.total_val_batches == 10
    assert bar.has_dataloader_changed(1)
    assert not bar.has_dataloader_changed(1)
    assert bar.total_val_batches_current_dataloader == 6
    assert bar.total_predict_batches_current_dataloader == 9
    run.trainer.sanity_checking = True
    assert bar.total_val_batches_current_dataloader == 2
    bar.reset_dataloader_idx_tracker()
    assert bar.total_test_batches_current_dataloader == 7
    run.trainer.enable_validation = False
    assert bar.total_val_batches == 0


def test_printing_is_printing(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressBar().print("a", 1, sep="-", end="!\n")
    ProgressBar().print("b", file=sys.stderr, flush=True)
    assert capsys.readouterr() == ("a-1!\n", "b\n")
