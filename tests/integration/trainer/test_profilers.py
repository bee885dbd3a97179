"""Profilers in real runs: the documented actions, reports in the log directory, and nothing left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.trainer import Trainer
from leyden.trainer.callbacks import ModelCheckpoint
from leyden.trainer.demos.boring_classes import BoringModel, ManualOptimBoringModel
from leyden.trainer.profilers import AdvancedProfiler, PassThroughProfiler, Profiler, PyTorchProfiler, SimpleProfiler


def trainer_with(root: Path, profiler: Any, **arguments: Any) -> Trainer:
    defaults = {
        "max_epochs": 1,
        "limit_train_batches": 6,
        "limit_val_batches": 2,
        "limit_test_batches": 2,
        "limit_predict_batches": 2,
        "log_every_n_steps": 1,
    }
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}
    return Trainer(default_root_dir=root, profiler=profiler, accelerator="cpu", devices=1, **{**defaults, **quiet, **arguments})


class Marked(BoringModel):
    """A model that measures something of its own."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with self.trainer.profiler.profile("my own"):
            return super().training_step(batch, batch_idx)


def test_the_documented_actions_are_measured(tmp_path: Path) -> None:
    profiler = SimpleProfiler()
    trainer = trainer_with(tmp_path, profiler, callbacks=[ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    trainer.fit(Marked())
    counts = {action: len(durations) for action, durations in profiler.recorded_durations.items()}
    expected = {
        "run_training_epoch": 1,
        "run_training_batch": 6,
        "[Strategy]SingleDeviceStrategy.training_step": 6,
        "[Strategy]SingleDeviceStrategy.validation_step": 4,  # two of the sanity check
        "[LightningModule]Marked.optimizer_step": 6,
        "[LightningModule]Marked.configure_optimizers": 1,
        "my own": 6,
        "save_checkpoint": 1,
    }
    assert {action: counts.get(action) for action in expected} == expected
    assert counts["train_dataloader_next"] >= 6
    assert any(action.startswith("[Callback]ModelCheckpoint") for action in counts)


@pytest.mark.parametrize("name", ["simple", "advanced", "pytorch"])
def test_a_profiler_by_name_reports_each_entry_point(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = trainer_with(tmp_path, name)
    model = BoringModel()
    trainer.fit(model)
    assert "FIT Profiler Report" in capsys.readouterr().out
    if name != "pytorch":  # whose schedule needs more batches than these have
        trainer.validate(model, verbose=False)
        trainer.test(model, verbose=False)
        trainer.predict(model)
        out = capsys.readouterr().out
        assert [f"{stage} Profiler Report" in out for stage in ("VALIDATE", "TEST", "PREDICT")] == [True, True, True]


@pytest.mark.parametrize("make", [SimpleProfiler, AdvancedProfiler, PyTorchProfiler], ids=["simple", "advanced", "pytorch"])
def test_a_named_report_goes_to_the_log_directory(tmp_path: Path, make: Any) -> None:
    trainer = trainer_with(tmp_path, make(filename="report"), logger=True)
    trainer.fit(BoringModel())
    assert trainer.log_dir is not None
    assert "FIT Profiler Report" in (Path(trainer.log_dir) / "fit-report.txt").read_text()


def test_the_trace_shows_whole_batches(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path, PyTorchProfiler(tmp_path, schedule=torch.profiler.schedule(wait=1, warmup=1, active=2, repeat=1)))
    trainer.fit(BoringModel())
    events = json.loads(next(tmp_path.glob("*.pt.trace.json")).read_text())["traceEvents"]
    names = [event["name"] for event in events if "name" in event]
    assert names.count("[pl][profile]run_training_batch") == 2
    assert names.count("aten::mse_loss") == 2
    assert names.count("Optimizer.step#SGD.step") == 2


def test_manual_optimisation_is_profiled_too(tmp_path: Path) -> None:
    profiler = SimpleProfiler()
    trainer_with(tmp_path, profiler).fit(ManualOptimBoringModel())
    assert len(profiler.recorded_durations["run_training_batch"]) == 6


def test_without_a_profiler_marks_of_ones_own_do_nothing(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path, None)
    trainer.fit(Marked())
    assert isinstance(trainer.profiler, PassThroughProfiler)


@pytest.mark.parametrize("make", [SimpleProfiler, AdvancedProfiler, PyTorchProfiler])
def test_a_failed_run_leaves_nothing_running(tmp_path: Path, make: Any) -> None:
    class Failing(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 4:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    profiler = make()
    with pytest.raises(ZeroDivisionError):
        trainer_with(tmp_path, profiler).fit(Failing())
    assert not torch.autograd._profiler_enabled()
    trainer_with(tmp_path, profiler).fit(BoringModel())  # and it can be used again


def test_a_profiler_changes_nothing_of_the_training(tmp_path: Path) -> None:
    weights = []
    for profiler in (None, SimpleProfiler(), AdvancedProfiler(), PyTorchProfiler(tmp_path)):
        torch.manual_seed(1)
        model = BoringModel()
        trainer_with(tmp_path, profiler).fit(model)
        weights.append(model.layer.weight.detach().clone())
    assert all(torch.equal(weights[0], other) for other in weights[1:])


def test_the_hooks_of_a_profiler_of_ones_own_come_in_order(tmp_path: Path) -> None:
    calls: list[str] = []

    class Noted(Profiler):
        def start(self, action_name: str) -> None: ...
        def stop(self, action_name: str) -> None: ...
        def setup(self, stage: str, local_rank: int | None = None, log_dir: Any = None) -> None:
            calls.append(f"setup {stage} {local_rank}")

        def describe(self) -> None:
            calls.append("describe")

        def teardown(self, stage: str | None) -> None:
            calls.append(f"teardown {stage}")

    trainer = trainer_with(tmp_path, Noted())
    trainer.fit(BoringModel())
    trainer.test(BoringModel(), verbose=False)
    assert calls == ["setup fit None", "describe", "teardown fit", "setup test None", "describe", "teardown test"]


@pytest.mark.parametrize("wrong", ["simpel", 3])
def test_what_is_no_profiler_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="it can only be one of"):
        trainer_with(tmp_path, wrong)
