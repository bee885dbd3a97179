from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from leyden.core.errors import ConfigError
from leyden.trainer import Trainer
from leyden.trainer.callbacks import EarlyStopping
from leyden.trainer.cli import LightningArgumentParser
from tests.support.command_line import Noise, SmallNet


def parser_of(*classes, **kwargs):
    parser = LightningArgumentParser(exit_on_error=False, **kwargs)
    for kind, key in classes:
        parser.add_lightning_class_args(kind, key)
    return parser


def test_a_class_that_is_none_of_ours_is_refused():
    with pytest.raises(ConfigError, match=r"Cannot add arguments from: .*You should provide either a callable or a subclass of: Trainer"):
        LightningArgumentParser().add_lightning_class_args(dict, "x")


def test_a_function_gives_its_own_arguments():
    def narrow(width: int = 2) -> SmallNet:
        return SmallNet(width)

    parser = parser_of((narrow, "model"))
    assert parser.instantiate(parser.parse_args(["--model.width=3"])).model.width == 3


def test_callbacks_are_remembered_by_their_keys():
    assert parser_of((EarlyStopping, "stopper"), (SmallNet, "model")).callback_keys == ["stopper"]


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("devices=2", "devices", 2),
        ("devices=[0,1]", "devices", [0, 1]),
        ("limit_train_batches=1", "limit_train_batches", 1),
        ("limit_train_batches=1.0", "limit_train_batches", 1.0),
        ("val_check_interval=0.5", "val_check_interval", 0.5),
        ("val_check_interval=500step", "val_check_interval", "500step"),
        ("max_time=00:01:00:00", "max_time", "00:01:00:00"),
        ("max_time={hours: 1}", "max_time", {"hours": 1}),
        ("precision=16", "precision", 16),
        ("precision=bf16-mixed", "precision", "bf16-mixed"),
        ("deterministic=warn", "deterministic", "warn"),
        ("logger=false", "logger", False),
        ("strategy=ddp", "strategy", "ddp"),
        ("profiler=simple", "profiler", "simple"),
    ],
)
def test_arguments_of_the_trainer_keep_their_types(word, key, value):
    found = parser_of((Trainer, "trainer")).parse_args([f"--trainer.{word}"]).trainer[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=x"],
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=x", "--trainer.callbacks+=ModelCheckpoint"],
        ['--trainer.callbacks={"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "x"}}'],
        ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=x"],
        ["--trainer.strategy=DDPStrategy", "--trainer.strategy.find_unused_parameters=true"],
        ["--trainer.profiler=PyTorchProfiler", "--trainer.profiler.row_limit=3"],
        ["--trainer.plugins=AsyncCheckpointIO"],
        ["--trainer.accelerator=CPUAccelerator"],
    ],
)
def test_objects_of_the_trainer_are_chosen_by_name_or_path(words):
    parser = parser_of((Trainer, "trainer"))
    key = words[0].partition("=")[0].removeprefix("--trainer.").rstrip("+")
    found = parser.instantiate(parser.parse_args(words)).trainer[key]
    found = found[0] if isinstance(found, list) else found
    assert type(found).__name__ in words[0]


def test_class_paths_of_lightning_are_read_in_files_defaults_and_objects(tmp_path):
    stopper = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "x"}}
    ours = "leyden.trainer.callbacks.EarlyStopping"
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"trainer": {"callbacks": [stopper]}}))
    parser = parser_of((Trainer, "trainer"))
    assert parser.parse_args([f"--config={file}"]).trainer.callbacks[0].class_path == ours
    assert parser.parse_object({"trainer": {"callbacks": [stopper]}}).trainer.callbacks[0].class_path == ours
    parser.set_defaults({"trainer.callbacks": stopper})
    assert parser.parse_args([]).trainer.callbacks.class_path == ours


def test_other_parsers_of_the_process_read_yaml_as_it_stands():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--path", type=dict)
    assert parser.parse_args(["--path={class_path: lightning.pytorch.callbacks.Timer}"]).path["class_path"].startswith("lightning")


def test_a_wrong_argument_names_the_closest_one(tmp_path):
    parser = parser_of((Trainer, "trainer"))
    with pytest.raises(ArgumentError, match=r"trainer.max_epoch=1.* Did you mean 'trainer.max_epochs'\?"):
        parser.parse_args(["--trainer.max_epoch=1"])
    file = tmp_path / "config.yaml"
    file.write_text("trainer: {max_epoch: 1}\n")
    with pytest.raises(ArgumentError, match=r"Did you mean 'trainer.max_epochs'\?"):
        parser.parse_args([f"--config={file}"])


def test_optimizers_and_schedulers_are_linked_where_they_are_wanted():
    class TwoMakers(SmallNet):
        def __init__(self, optimizer_init: dict, scheduler_init: dict) -> None:
            super().__init__()
            self.optimizer_init, self.scheduler_init = optimizer_init, scheduler_init

    parser = parser_of((TwoMakers, "model"))
    parser.add_optimizer_args(torch.optim.Adam, "fixed", link_to="model.optimizer_init")
    parser.add_lr_scheduler_args(nested_key="chosen", link_to="model.scheduler_init")
    parser.link_makers()
    model = parser.instantiate(parser.parse_args(["--fixed.lr=0.3", "--chosen=StepLR", "--chosen.step_size=2"])).model
    assert model.optimizer_init["init_args"]["lr"] == 0.3
    assert model.optimizer_init["class_path"].endswith("Adam")
    assert model.scheduler_init["init_args"]["step_size"] == 2


def test_the_environment_is_read_on_request_under_both_prefixes(monkeypatch):
    monkeypatch.setenv("LEYDEN_MODEL__WIDTH", "9")
    monkeypatch.setenv("PL_DATA__BATCH_SIZE", "5")
    classes = ((SmallNet, "model"), (Noise, "data"))
    config = parser_of(*classes, default_env=True).parse_args([])
    assert (config.model.width, config.data.batch_size) == (9, 5)
    config = parser_of(*classes).parse_args([])
    assert (config.model.width, config.data.batch_size) == (4, 8)


def test_an_argument_may_have_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.yaml").write_text("width: 6\n")
    Path("config.yaml").write_text("model: model.yaml\n")
    assert parser_of((SmallNet, "model")).parse_args(["--config=config.yaml"]).model.width == 6
