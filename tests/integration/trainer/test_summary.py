"""The model summary in real runs: once, before training, and without a trace in it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.trainer import Trainer
from leyden.trainer.callbacks import ModelSummary, RichModelSummary
from leyden.trainer.demos.boring_classes import BoringModel


class Dropping(BoringModel):
    """A model whose training draws random numbers."""

    def __init__(self, example: Any = None) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.5)
        self.example_input_array = example

    def forward(self, x: Any) -> Any:
        return self.layer(self.dropout(x))


def trainer_with(root: Path, *callbacks: Any, **arguments: Any) -> Trainer:
    defaults = {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 1, "logger": False, "enable_checkpointing": False}
    plain = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    return Trainer(default_root_dir=root, callbacks=list(callbacks), **{**defaults, **plain, **arguments})


def test_fit_shows_the_default_summary_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = trainer_with(tmp_path)
    trainer.fit(Dropping(torch.zeros(3, 32)))
    out = capsys.readouterr().out
    assert out.count("Trainable params") == 1
    assert "0 | layer   | Linear  | 66     | train | 384   | [3, 32]  | [3, 2]" in out
    trainer.validate(Dropping(), verbose=False)
    trainer.test(Dropping(), verbose=False)
    assert "params" not in capsys.readouterr().out


def test_no_summary_is_shown_if_none_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_with(tmp_path, enable_model_summary=False).fit(Dropping())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("own", [ModelSummary(max_depth=-1), RichModelSummary(max_depth=2)], ids=["plain", "rich"])
def test_one_of_ones_own_replaces_the_default(tmp_path: Path, own: ModelSummary) -> None:
    trainer = trainer_with(tmp_path, own)
    assert [callback for callback in trainer.callbacks if isinstance(callback, ModelSummary)] == [own]


def test_a_summary_changes_nothing_of_the_training(tmp_path: Path) -> None:
    weights = []
    for example in (None, torch.ones(3, 32)):
        torch.manual_seed(1)
        model = Dropping(example)
        trainer_with(tmp_path).fit(model)
        weights.append(model.layer.weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_the_example_passes_in_every_precision(tmp_path: Path, precision: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_with(tmp_path, precision=precision).fit(Dropping(torch.zeros(3, 32)))
    assert "[3, 2]" in capsys.readouterr().out
