"""`LightningCLI` in real fits, and the example project as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from leyden.trainer import LightningModule
from leyden.trainer.cli import LightningCLI, SaveConfigCallback
from tests.support.command_line import FAST, PREDICT, SHORT, Noise, SmallNet, SmallNetWithoutOptimizer, command

PROJECT = Path(__file__).parents[3] / "examples" / "trainer" / "cli_project"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def only(pattern, root="."):
    (found,) = Path(root).rglob(pattern)
    return found


def test_the_saved_configuration_repeats_the_run():
    words = ["fit", *SHORT, "--model.width=6", "--optimizer=Adam", "--optimizer.lr=0.01", "--seed_everything=3"]
    first = command(words, SmallNetWithoutOptimizer, Noise)
    config = only("config.yaml")
    assert yaml.safe_load(config.read_text())["seed_everything"] == 3
    again = command(["fit", f"--config={config}", "--trainer.logger.init_args.save_dir=again"], SmallNetWithoutOptimizer, Noise)
    assert torch.equal(first.model.layer.weight, again.model.layer.weight)
    assert first.trainer.global_step == 2


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_every_subcommand_runs_with_its_hooks(subcommand):
    calls = []

    class Hooked(LightningCLI):
        pass

    setattr(Hooked, f"before_{subcommand}", lambda self: calls.append(("before", self.trainer.state.fn)))
    setattr(Hooked, f"after_{subcommand}", lambda self: calls.append(("after", self.trainer.state.fn.value)))
    command([subcommand, *FAST], SmallNet, Noise, cli=Hooked)
    assert calls == [("before", None), ("after", subcommand)]


def test_the_old_projects_file_runs_as_it_stands():
    Path("config.yaml").write_text("""
seed_everything: 3
trainer:
  max_epochs: 1
  accelerator: cpu
  limit_train_batches: 2
  limit_val_batches: 1
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: logs}
  callbacks:
    - class_path: lightning.pytorch.callbacks.EarlyStopping
      init_args: {monitor: val/loss}
    - class_path: pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint
      init_args: {monitor: val/loss}
    - class_path: pytorch_lightning.callbacks.LearningRateMonitor
model:
  class_path: tests.support.command_line.SmallNet
  init_args: {width: 6}
data:
  class_path: tests.support.command_line.Noise
optimizer:
  class_path: torch.optim.SGD
  init_args: {lr: 0.1}
lr_scheduler:
  class_path: lightning.pytorch.cli.ReduceLROnPlateau
  init_args: {monitor: val/loss}
""")
    with pytest.warns(UserWarning, match="will be overridden by `LightningCLI.configure_optimizers`"):
        cli = command(["fit", "--config=config.yaml"])
    assert cli.trainer.early_stopping_callback is not None
    assert cli.trainer.checkpoint_callback.best_model_path
    assert cli.trainer.lr_scheduler_configs[0].monitor == "val/loss"
    assert "lightning.pytorch" not in only("config.yaml", "logs").read_text()


def test_a_second_run_in_the_same_directory_is_stopped_before_it_begins():
    words = ["fit", *(word for word in SHORT if "logger" not in word), "--trainer.logger=false", "--trainer.default_root_dir=x"]
    words.append("--trainer.enable_checkpointing=false")
    command(words, SmallNet, Noise)
    with pytest.raises(RuntimeError, match="Aborting to avoid overwriting results of a previous run"):
        command(words, SmallNet, Noise)
    command(words, SmallNet, Noise, save_config_kwargs={"overwrite": True})


def test_parts_of_a_configuration_go_to_files_of_their_own_again():
    Path("model.yaml").write_text("width: 6\n")
    Path("config.yaml").write_text("model: model.yaml\n")
    command(["fit", "--config=config.yaml", *SHORT], SmallNet, Noise, save_config_kwargs={"multifile": True})
    saved = only("config.yaml", "logs")
    assert yaml.safe_load(saved.read_text())["model"] == "model.yaml"
    assert yaml.safe_load((saved.parent / "model.yaml").read_text())["width"] == 6


def test_a_trial_run_saves_no_configuration():
    cli = command(["fit", *FAST], SmallNet, Noise)
    assert not any(isinstance(callback, SaveConfigCallback) for callback in cli.trainer.callbacks)
    assert not list(Path().rglob("config.yaml"))


@pytest.mark.parametrize("chosen", [False, True], ids=["one class", "a class that was chosen"])
def test_a_checkpoint_builds_the_objects_among_its_arguments_again(chosen):
    words = ["--model=SmallNet", "--data=Noise"] if chosen else []
    classes = () if chosen else (SmallNet, Noise)
    cli = command(["fit", *words, "--model.act=torch.nn.Tanh", "--model.width=6", *SHORT], *classes)
    checkpoint = only("*.ckpt")
    kept = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    assert kept["_instantiator"] == "leyden.trainer.cli.instantiate_module"
    for kind in (SmallNet, LightningModule) if chosen else (SmallNet,):
        module = kind.load_from_checkpoint(checkpoint)
        assert isinstance(module.act, torch.nn.Tanh)
        assert torch.equal(module.layer.weight, cli.model.layer.weight)
    assert SmallNet.load_from_checkpoint(checkpoint, batch_size=2).batch_size == 2
    found = command(["predict", *(words[1:]), f"--ckpt_path={checkpoint}", *PREDICT], *classes).model
    assert (type(found), found.width, type(found.act)) == (SmallNet, 6, torch.nn.Tanh)


def test_the_command_line_comes_before_a_checkpoint_and_that_before_the_class(capsys):
    command(["fit", "--model.width=6", "--model.batch_size=2", *SHORT], SmallNet, Noise)
    checkpoint = only("*.ckpt")
    found = command(["predict", f"--ckpt_path={checkpoint}", "--model.batch_size=3", *PREDICT], SmallNet, Noise).model
    assert (found.width, found.batch_size) == (6, 3)
    Path("config.yaml").write_text(f"ckpt_path: {checkpoint}\n")
    assert command(["predict", "--config=config.yaml", *PREDICT], SmallNet, Noise).model.width == 6

    class Other(SmallNet):
        def __init__(self, depth: int = 1) -> None:
            super().__init__()

    with pytest.raises(SystemExit):
        command(["predict", f"--ckpt_path={checkpoint}", *PREDICT], Other, Noise)
    assert "Parsing of ckpt_path hyperparameters failed!" in capsys.readouterr().err


def test_a_linked_argument_is_left_to_its_link_when_a_checkpoint_is_read():
    class Linked(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.link_arguments("data.batch_size", "model.batch_size")
            parser.link_arguments("data.num_classes", "model.width", apply_on="instantiate")

    command(["fit", "--data.batch_size=5", *SHORT], SmallNet, Noise, cli=Linked)
    checkpoint = only("*.ckpt")
    kept = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    assert (kept["batch_size"], kept["width"]) == (5, 3)
    found = command(["predict", f"--ckpt_path={checkpoint}", "--data.batch_size=4", *PREDICT], SmallNet, Noise, cli=Linked).model
    assert (found.batch_size, found.width) == (4, 3)


def test_variables_of_the_environment_configure_a_run(monkeypatch):
    monkeypatch.setenv("LEYDEN_FIT__MODEL__WIDTH", "6")
    monkeypatch.setenv("PL_FIT__MODEL__BATCH_SIZE", "2")
    found = command(["fit", *FAST], SmallNet, Noise, parser_kwargs={"default_env": True}).model
    assert (found.width, found.batch_size) == (6, 2)
    monkeypatch.setenv("PL_TRAINER__MAX_EPOCHS", "4")
    cli = command([], SmallNet, Noise, run=False, parser_kwargs={"default_env": True}, trainer_defaults={"accelerator": "cpu"})
    assert cli.trainer.max_epochs == 4


def project(*words):
    command_line = [sys.executable, str(PROJECT / "main.py"), *words]
    return subprocess.run(
        command_line, capture_output=True, text=True, timeout=110, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_the_example_project_learns_is_resumed_and_tested():
    pytest.importorskip("sklearn", reason="the extra demo is not installed")
    config = ("--config", str(PROJECT / "config.yaml"), "--trainer.enable_progress_bar=false")
    done = project("fit", *config)
    assert done.returncode == 0, done.stderr
    saved = yaml.safe_load(only("config.yaml").read_text())
    assert (saved["seed_everything"], saved["model"]["width"]) == (7, 48)
    tested = project("test", *config, "--ckpt_path", str(only("last.ckpt")), "--trainer.logger=false")
    assert tested.returncode == 0, tested.stderr
    accuracy = float(next(line for line in tested.stdout.splitlines() if "test/accuracy" in line).split()[-2])
    assert accuracy > 0.9


@pytest.mark.slow
def test_a_wrong_word_ends_the_program_with_status_2():
    pytest.importorskip("sklearn", reason="the extra demo is not installed")
    done = project("fit", "--trainer.max_epoch=3")
    assert done.returncode == 2
    assert "Did you mean 'trainer.max_epochs'?" in done.stderr
