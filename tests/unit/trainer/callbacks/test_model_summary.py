"""The summary callbacks: once, on rank 0, before training; tables on a terminal, text elsewhere."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks.defaults import default_model_summary, default_progress_bar
from leyden.trainer.callbacks.model_summary import ModelSummary
from leyden.trainer.callbacks.progress.plain_progress import PlainProgressBar
from leyden.trainer.callbacks.progress.rich_progress import RichProgressBar
from leyden.trainer.callbacks.rich_model_summary import RichModelSummary

RANK_ZERO, OTHER_RANK = SimpleNamespace(is_global_zero=True), SimpleNamespace(is_global_zero=False)
BOTH = pytest.mark.parametrize("callback", [ModelSummary, RichModelSummary])


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 2))
    net.example_input_array = torch.zeros(3, 4)  # type: ignore[assignment]
    return net


@BOTH
def test_rank_zero_shows_the_layers(callback: type[ModelSummary], capsys: pytest.CaptureFixture[str]) -> None:
    callback().on_fit_start(RANK_ZERO, model())
    out = capsys.readouterr().out
    assert "0 | 0    | Linear | 10     | train | 48    | [3, 4]   | [3, 2]" in out
    assert "Total params" in out


@BOTH
def test_other_ranks_and_depth_zero_show_nothing(callback: type[ModelSummary], capsys: pytest.CaptureFixture[str]) -> None:
    callback().on_fit_start(OTHER_RANK, model())
    callback(max_depth=0).on_fit_start(RANK_ZERO, model())
    assert capsys.readouterr().out == ""


@BOTH
def test_a_depth_that_means_nothing_is_refused_at_once(callback: type[ModelSummary]) -> None:
    with pytest.raises(ConfigError, match="`max_depth` can be"):
        callback(max_depth=-2)


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    RichModelSummary(header_style="bold").on_fit_start(RANK_ZERO, model())
    out = stream.getvalue()
    assert "┃" in out
    assert "[3, 4]" in out
    assert "Trainable params" in out


def test_a_subclass_may_show_it_elsewhere() -> None:
    shown: list[Any] = []

    class Noted(ModelSummary):
        @staticmethod
        def summarize(*args: Any, **kwargs: Any) -> None:
            shown.append((args, kwargs))

    Noted(max_depth=1, colour="red").on_fit_start(RANK_ZERO, model())
    ((columns, total, trainable, size, modes, flops), kwargs) = shown[0]
    assert columns[1] == ("Name", ["0"])
    assert (total, trainable, size, modes, flops) == (10, 10, pytest.approx(4e-5), {"train": 1, "eval": 0}, 48)
    assert kwargs == {"colour": "red"}


def test_the_defaults_are_rich_ones_where_rich_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(default_progress_bar()) is RichProgressBar
    assert type(default_model_summary()) is RichModelSummary
    monkeypatch.setattr("leyden.trainer.callbacks.defaults.installed", lambda name: False)
    assert type(default_progress_bar()) is PlainProgressBar
    assert type(default_model_summary()) is ModelSummary
