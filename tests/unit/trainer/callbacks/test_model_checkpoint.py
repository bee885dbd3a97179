"""What `ModelCheckpoint` saves, when, under which name, and what it keeps.

Long because the callback has many rules, each with its test, over one set of fakes.
"""

import logging
import math
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.failpoints import InjectedError, armed
from leyden.core.files import temporary_beside
from leyden.fabric.checkpoint import read
from leyden.fabric.checkpoint.plugin import AsyncCheckpointIO, TorchCheckpointIO
from leyden.fabric.strategies.single import SingleDeviceStrategy
from leyden.trainer.callbacks.model_checkpoint import ModelCheckpoint
from tests.support.fake_trainer import FakeTrainer, step_in


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if not path.is_dir() or path.is_symlink())


def ran(root: Path, saver: ModelCheckpoint, epochs: int = 3, **attributes: Any) -> FakeTrainer:
    trainer = FakeTrainer(root, saver, **attributes)
    trainer.begin()
    for _ in range(epochs):
        trainer.epoch()
    trainer.end()
    return trainer


# -- arguments -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"save_top_k": -2}, ConfigError, "Must be >= -1"),
        ({"save_top_k": True}, ConfigTypeError, "expected an integer"),
        ({"save_top_k": 2}, ConfigError, "is not a valid configuration"),
        ({"mode": "best"}, ConfigError, "`mode` can be min, max but got best"),
        ({"every_n_train_steps": -1}, ConfigError, "Must be >= 0"),
        ({"every_n_epochs": -1}, ConfigError, "Must be >= 0"),
        ({"every_n_epochs": 1.0}, ConfigTypeError, "expected an integer"),
        ({"every_n_epochs": 1, "every_n_train_steps": 1}, ConfigError, "Combination of parameters every_n_train_steps"),
        ({"every_n_epochs": 1, "train_time_interval": timedelta(0)}, ConfigError, "Combination of parameters every_n_train_steps"),
        ({"every_n_epochs": 1, "every": "5min"}, ConfigError, "Combination of parameters every_n_train_steps"),
        ({"train_time_interval": timedelta(0)}, ConfigError, "greater than 0"),
        ({"every": "5 parsec"}, ConfigError, "is no trigger"),
        ({"save_last": "links"}, ConfigError, "save_last='links' is not accepted"),
        ({"save_last": "link", "dirpath": "s3://bucket/a"}, ConfigError, "save_last='link'.* is only supported for local file paths"),
    ],
    ids=str,
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ModelCheckpoint(**arguments)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({}, "'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, 'train_time_interval': None"),
        (
            {"monitor": "v", "mode": "max", "every_n_train_steps": 5},
            "'monitor': 'v', 'mode': 'max', 'every_n_train_steps': 5, 'every_n_epochs': 0, 'train_time_interval': None",
        ),
        (
            {"every": "30min"},
            "'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 0, 'train_time_interval': None, 'every': '30min'",
        ),
    ],
)
def test_the_state_key_tells_metrics_and_rhythms_apart(arguments: dict[str, Any], key: str) -> None:
    assert ModelCheckpoint(**arguments).state_key == f"ModelCheckpoint{{{key}}}"


def test_without_a_rhythm_every_epoch_is_saved() -> None:
    assert ModelCheckpoint().every_n_epochs == 1
    assert ModelCheckpoint(every="2epoch").every_n_epochs == 2
    assert ModelCheckpoint(every_n_train_steps=0).every_n_epochs == 0


# -- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "call", "name"),
    [
        ({"filename": "{epoch}"}, {"metrics": {"epoch": 0}}, "epoch=0.ckpt"),
        ({}, {"metrics": {"epoch": 2, "step": torch.tensor(12)}}, "epoch=2-step=12.ckpt"),
        ({"filename": "{epoch}"}, {"metrics": {"epoch": 1}, "ver": 3}, "epoch=1-v3.ckpt"),
        ({"filename": "{epoch}"}, {"metrics": {"epoch": 1}, "prefix": "best"}, "best-epoch=1.ckpt"),
        ({"filename": "{epoch}"}, {"metrics": {"epoch": 2}, "filename": "{epoch:d}-x"}, "epoch=2-x.ckpt"),
        ({"filename": "e{epoch}", "auto_insert_metric_name": False}, {"metrics": {"epoch": 2}}, "e2.ckpt"),
    ],
    ids=str,
)
def test_names_are_the_documented_ones(tmp_path: Path, arguments: dict[str, Any], call: dict[str, Any], name: str) -> None:
    assert ModelCheckpoint(**arguments).format_checkpoint_name(**call) == name
    assert ModelCheckpoint(tmp_path, **arguments).format_checkpoint_name(**call) == str(tmp_path / name)


def test_signs_and_words_of_names_can_be_changed(tmp_path: Path) -> None:
    class Dotted(ModelCheckpoint):
        CHECKPOINT_JOIN_CHAR = "."
        CHECKPOINT_EQUALS_CHAR = ":"
        CHECKPOINT_NAME_LAST = "{epoch}.newest"
        FILE_EXTENSION = ".pt"
        STARTING_VERSION = 5

    (tmp_path / "epoch:0.step:4.pt").touch()
    with pytest.warns(match="not empty"):
        ran(tmp_path, Dotted(tmp_path, save_last=True), epochs=1)
    assert names_in(tmp_path) == ["epoch:0.newest.pt", "epoch:0.step:4.pt", "epoch:0.step:4.v5.pt"]


def test_a_metric_with_a_slash_makes_a_directory_only_with_its_name_in_front(tmp_path: Path) -> None:
    for inserts, path in ((True, "val/acc=0.50.ckpt"), (False, "0.50.ckpt")):
        saver = ModelCheckpoint(tmp_path / str(inserts), "{val/acc:.2f}", auto_insert_metric_name=inserts)
        trainer = FakeTrainer(tmp_path, saver)
        trainer.begin()
        trainer.epoch(**{"val/acc": 0.5})
        assert saver.best_model_path == str(tmp_path / str(inserts) / path)
        assert Path(saver.best_model_path).is_file()


# -- when ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "saved"),
    [
        ({}, ["epoch=0-step=4", "epoch=1-step=8", "epoch=2-step=12"]),
        ({"every_n_epochs": 2}, ["epoch=1-step=8"]),
        ({"every": "3epoch"}, ["epoch=2-step=12"]),
        ({"every_n_epochs": 0}, []),
        ({"every_n_train_steps": 5}, ["epoch=1-step=5", "epoch=2-step=10"]),
        ({"every": "3step"}, ["epoch=0-step=3", "epoch=1-step=6", "epoch=2-step=9", "epoch=2-step=12"]),
        (
            {"every": "0.5epoch"},
            [f"epoch={(step - 1) // 4}-step={step}" for step in range(2, 13, 2)],
        ),
        ({"every": "7batch"}, ["epoch=1-step=7"]),
    ],
    ids=str,
)
def test_each_rhythm_saves_when_it_says(tmp_path: Path, arguments: dict[str, Any], saved: list[str]) -> None:
    trainer = ran(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=-1, **arguments))
    assert trainer.saved == [f"{name}.ckpt" for name in saved]


def test_steps_are_counted_where_gradients_accumulate(tmp_path: Path) -> None:
    trainer = ran(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=-1, every_n_train_steps=1), accumulate=3, epochs=2)
    assert trainer.saved == ["epoch=0-step=1.ckpt", "epoch=0-step=2.ckpt", "epoch=1-step=3.ckpt", "epoch=1-step=4.ckpt"]


def test_batches_wait_for_the_step_that_follows(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_top_k=-1, every="2batch")
    trainer = FakeTrainer(tmp_path, saver, accumulate=3)
    trainer.begin()
    for index in range(4):
        trainer.batch(index)
    assert trainer.saved == ["epoch=0-step=1.ckpt"]
    trainer.batch(4)
    trainer.batch(5)
    assert trainer.saved[1:] == ["epoch=0-step=2.ckpt"]


@pytest.mark.parametrize("arguments", [{"train_time_interval": timedelta(minutes=10)}, {"every": "10min"}], ids=str)
def test_time_counts_from_the_end_of_the_last_save(tmp_path: Path, arguments: dict[str, Any]) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_top_k=-1, **arguments)
    trainer = FakeTrainer(tmp_path, saver, num_training_batches=100)
    clock = trainer.run.clock
    trainer.begin()
    saved_at = []
    for index in range(40):
        clock.now += 60
        before = len(trainer.saved)
        trainer.batch(index)
        if len(trainer.saved) > before:
            saved_at.append(index + 1)
            clock.now += 120  # the save took two minutes, of which the trigger does not know at the batch's end
            saver._trigger.saved(trainer)
    assert saved_at == [11, 22, 33]  # due after 10 minutes, agreed on at the next batch


def test_time_waits_for_a_step_and_for_agreement(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", every="10s")
    trainer = FakeTrainer(tmp_path, saver, accumulate=3)
    trainer.begin()
    trainer.run.clock.now = 11
    for index in range(5):
        trainer.batch(index)
    assert trainer.saved == ["epoch=0-step=1.ckpt"]


def test_seconds_of_the_last_save_survive_a_resume(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", every="10s", save_top_k=-1)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.run.clock.now = 11
    trainer.batch(0)
    trainer.batch(1)
    (again := FakeTrainer(tmp_path, ModelCheckpoint(tmp_path / "c", every="10s", save_top_k=-1))).run.clock.now = 11
    again.resume(saver.best_model_path)
    for index in range(2, 4):
        again.batch(index)
    assert again.saved == []
    again.run.clock.now = 21
    again.batch(4)
    again.batch(5)
    assert again.saved == ["epoch=0-step=6.ckpt"]


def test_a_part_of_an_epoch_needs_its_length(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, ModelCheckpoint(tmp_path / "c", every="0.5epoch"), num_training_batches=math.inf)
    with pytest.raises(ConfigError, match="has no length"):
        trainer.begin()


@pytest.mark.parametrize(
    ("attributes", "given", "at"),
    [
        ({"enable_validation": False}, None, "on_train_epoch_end"),
        ({"val_check_interval": 1.0}, None, "on_train_epoch_end"),
        ({"val_check_interval": 4}, None, "on_train_epoch_end"),
        ({"val_check_interval": 2}, None, "on_validation_end"),
        ({"val_check_interval": 0.5}, None, "on_validation_end"),
        ({"check_val_every_n_epoch": 2}, None, "on_validation_end"),
        ({"check_val_every_n_epoch": None, "val_check_interval": 4}, None, "on_validation_end"),
        ({"val_check_interval": 0.5}, True, "on_train_epoch_end"),
        ({"val_check_interval": 1.0}, False, "on_validation_end"),
    ],
    ids=str,
)
def test_epochs_are_saved_where_their_metrics_are_complete(tmp_path: Path, attributes: dict[str, Any], given: bool | None, at: str) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_on_train_epoch_end=given)
    trainer = FakeTrainer(tmp_path, saver, **{"enable_validation": True, **attributes})
    trainer.begin()
    trainer.batch(3, is_last=True, validates=attributes.get("enable_validation", True))
    assert bool(trainer.saved) == (at == "on_validation_end")
    trainer.fire("on_train_epoch_end")
    assert len(trainer.saved) == 1


def test_a_place_that_never_comes_is_warned_about(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, ModelCheckpoint(tmp_path / "c", save_on_train_epoch_end=False))
    with pytest.warns(match="no epoch is saved"):
        trainer.begin()


@pytest.mark.parametrize("attributes", [{"fast_dev_run": 1}, {"sanity_checking": True}, {"state": SimpleNamespace(fn="validate")}], ids=str)
def test_rehearsals_save_nothing(tmp_path: Path, attributes: dict[str, Any]) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_last=True, save_on_exception=True)
    trainer = FakeTrainer(tmp_path, saver, enable_validation=True, **attributes)
    trainer.begin()
    trainer.epoch(validates_after=[3])
    trainer.end()
    trainer.fail(RuntimeError("x"))
    assert trainer.saved == []


def test_a_step_is_not_saved_twice(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, ModelCheckpoint(tmp_path / "c", save_on_train_epoch_end=False, save_top_k=-1), enable_validation=True)
    trainer.begin()
    trainer.batch(0, validates=True)
    trainer.validate({})
    assert trainer.saved == ["epoch=0-step=1.ckpt"]


def test_a_metric_of_the_validation_to_come_is_waited_for(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", "{epoch}-{step}-{val:.0f}", monitor="val", every_n_train_steps=2, save_top_k=-1)
    trainer = FakeTrainer(tmp_path, saver, enable_validation=True)
    trainer.begin()
    values = iter([1.0, 2.0])
    trainer.epoch(validates_after=[2], metrics=lambda: {"val": next(values)})  # step 2 waits until after batch 3, step 4 does not
    assert trainer.saved == ["epoch=0-step=3-val=1.ckpt", "epoch=0-step=4-val=1.ckpt"]
    trainer.epoch(validates_after=[1], metrics=lambda: {"val": next(values)})  # validation is due after the batch of step 6
    assert trainer.saved[2:] == ["epoch=1-step=6-val=2.ckpt", "epoch=1-step=8-val=2.ckpt"]


def test_what_still_waits_when_training_ends_is_saved_then(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="val", every_n_train_steps=2, save_last=True)
    trainer = FakeTrainer(tmp_path, saver, enable_validation=True)
    trainer.begin()
    trainer.epoch()
    assert trainer.saved == []
    with pytest.warns(match="could not find the monitored key"):
        trainer.end()
    assert trainer.saved == ["last.ckpt"]


# -- which ---------------------------------------------------------------------------------------------------------------


def test_without_a_metric_the_newest_stays(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c")
    ran(tmp_path, saver)
    assert names_in(tmp_path / "c") == ["epoch=2-step=12.ckpt"]
    assert saver.best_model_path == str(tmp_path / "c" / "epoch=2-step=12.ckpt")
    assert (saver.best_k_models, saver.best_model_score) == ({}, None)


def test_the_best_stay_and_know_their_scores(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_top_k=2)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    for loss in (3.0, 1.0, math.nan, 2.0, 5.0):
        trainer.epoch(loss=loss)
    assert names_in(tmp_path / "c") == ["epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt"]
    best, second = (str(tmp_path / "c" / name) for name in names_in(tmp_path / "c"))
    assert saver.best_k_models == {best: torch.tensor(1.0), second: torch.tensor(2.0)}
    assert (saver.best_model_path, saver.best_model_score) == (best, torch.tensor(1.0))
    assert (saver.kth_best_model_path, saver.kth_value, saver.current_score) == (second, torch.tensor(2.0), torch.tensor(5.0))
    saver.to_yaml()
    assert yaml.safe_load((tmp_path / "c" / "best_k_models.yaml").read_text()) == {best: 1.0, second: 2.0}


def test_a_file_says_of_itself_that_it_is_the_best(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_last=True)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.epoch(loss=1.0)
    state = read(saver.best_model_path)["callbacks"][saver.state_key]
    assert state["best_model_path"] == saver.best_model_path
    assert state["last_model_path"] == saver.last_model_path == str(tmp_path / "c" / "last.ckpt")
    assert state["best_k_models"] == {saver.best_model_path: torch.tensor(1.0)}


def test_an_absent_metric_warns_until_a_validation_has_run(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="val_los")
    trainer = FakeTrainer(tmp_path, saver, enable_validation=True)
    trainer.begin()
    trainer.log(val_loss=1.0)
    with pytest.warns(match=r"could not find the monitored key.*'val_loss'.*Did you mean 'val_loss'"):
        trainer.epoch()
    assert trainer.saved == []
    with pytest.raises(ConfigError, match="could not find the monitored key"):
        trainer.epoch(validates_after=[3])


def test_a_taken_name_gets_a_version(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").touch()
    (tmp_path / "last.ckpt").touch()
    saver = ModelCheckpoint(tmp_path, "best", monitor="loss", save_top_k=2, save_last=True)
    trainer = FakeTrainer(tmp_path, saver)
    with pytest.warns(match="exists and is not empty"):
        trainer.begin()
    for loss in (3.0, 2.0, 1.0):
        trainer.epoch(loss=loss)
    assert names_in(tmp_path) == ["best-v1.ckpt", "best-v2.ckpt", "best.ckpt", "last-v1.ckpt", "last.ckpt"]
    assert {Path(path).name: float(score) for path, score in saver.best_k_models.items()} == {"best-v1.ckpt": 1.0, "best-v2.ckpt": 2.0}


def test_without_versions_what_has_the_name_is_replaced(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", "best", monitor="loss", save_top_k=3, enable_version_counter=False)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    for loss in (3.0, 2.0, 1.0):
        trainer.epoch(loss=loss)
    assert names_in(tmp_path / "c") == ["best.ckpt"]
    assert {Path(path).name: float(score) for path, score in saver.best_k_models.items()} == {"best.ckpt": 1.0}
    assert step_in(saver.best_model_path) == 12


def test_the_file_resumed_from_and_files_elsewhere_stay(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c")
    ran(tmp_path, saver, epochs=1)
    again = ModelCheckpoint(tmp_path / "c")
    trainer = FakeTrainer(tmp_path, again)
    trainer.resume(saver.best_model_path)
    trainer.run.clock.epoch += 1
    trainer.epoch()
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"]
    elsewhere = ModelCheckpoint(tmp_path / "d")
    moved = FakeTrainer(tmp_path, elsewhere)
    with pytest.warns(match="The dirpath has changed from"):
        moved.resume(again.best_model_path)
    moved.epoch()
    assert "epoch=1-step=8.ckpt" in names_in(tmp_path / "c")


# -- last ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_last", [True, "link"])
def test_last_is_the_newest_state_also_when_it_is_not_among_the_best(tmp_path: Path, save_last: Any) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_last=save_last)
    trainer = FakeTrainer(tmp_path, saver)
    last = tmp_path / "c" / "last.ckpt"
    trainer.begin()
    for epoch, loss in enumerate((2.0, 3.0, 1.0, 4.0), start=1):
        trainer.epoch(loss=loss)
        assert step_in(last) == 4 * epoch
        assert last.is_symlink() == (save_last == "link" and loss in (2.0, 1.0))
    assert names_in(tmp_path / "c") == ["epoch=2-step=12.ckpt", "last.ckpt"]
    assert trainer.saved == ["epoch=0-step=4.ckpt", "last.ckpt", "epoch=2-step=12.ckpt", "last.ckpt"]


def test_last_shares_the_bytes_of_the_newest_file(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_last=True)
    ran(tmp_path, saver)
    assert Path(saver.best_model_path).samefile(saver.last_model_path)
    assert not Path(saver.last_model_path).is_symlink()


def test_last_is_a_copy_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    saver = ModelCheckpoint(tmp_path / "c", save_last=True)
    trainer = ran(tmp_path, saver)
    assert not Path(saver.best_model_path).samefile(saver.last_model_path)
    assert step_in(saver.last_model_path) == trainer.global_step


def test_steps_after_the_last_trigger_reach_last_when_training_ends(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", every_n_train_steps=5, save_last=True)
    trainer = ran(tmp_path, saver)
    assert step_in(saver.last_model_path) == 12
    assert trainer.saved == ["epoch=1-step=5.ckpt", "epoch=2-step=10.ckpt", "last.ckpt"]


def test_two_savers_in_one_directory_have_a_last_each(tmp_path: Path) -> None:
    first = ModelCheckpoint(tmp_path / "c", monitor="a", save_last=True)
    second = ModelCheckpoint(tmp_path / "c", monitor="b", save_last=True)
    trainer = FakeTrainer(tmp_path, first, second)
    trainer.begin()
    for _ in range(2):
        trainer.epoch(a=1.0, b=1.0)
    assert [Path(saver.last_model_path).name for saver in (first, second)] == ["last.ckpt", "last-v1.ckpt"]
    assert names_in(tmp_path / "c") == ["epoch=0-step=4-v1.ckpt", "epoch=0-step=4.ckpt", "last-v1.ckpt", "last.ckpt"]


def test_last_may_have_the_epoch_in_its_name(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_last=True, every_n_train_steps=3)
    saver.CHECKPOINT_NAME_LAST = "{epoch}-last"
    ran(tmp_path, saver)
    assert names_in(tmp_path / "c") == ["epoch=2-last.ckpt", "epoch=2-step=12.ckpt"]


@pytest.mark.parametrize("place", ["c", "memory"])
def test_all_files_of_newest_states_are_found(tmp_path: Path, place: str) -> None:
    dirpath = tmp_path / "c" if place == "c" else f"memory://{tmp_path.name}/c"
    savers = [ModelCheckpoint(dirpath, monitor=name, save_last=True) for name in "ab"]
    assert savers[0].find_last([], "") == []
    trainer = FakeTrainer(tmp_path, *savers)
    trainer.begin()
    trainer.epoch(a=1.0, b=1.0)
    assert savers[0].find_last([], "") == [f"{savers[0].dirpath}/last-v1.ckpt", f"{savers[0].dirpath}/last.ckpt"]
    assert ModelCheckpoint().find_last([], f"{tmp_path}/elsewhere") == []


def test_a_newest_state_is_found_by_any_name_and_after_a_kill(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_last=True)
    saver.CHECKPOINT_NAME_LAST = "{epoch}-last"
    saver.FILE_EXTENSION = ".ckpt/"
    ran(tmp_path, saver, epochs=1)
    newest = tmp_path / "c" / "epoch=0-last.ckpt"
    written = newest.resolve()
    newest.unlink()
    written.rename(newest)
    newest.rename(temporary_beside(newest))  # killed between the renames that put a directory into its place
    assert saver.find_last([], "") == [str(newest)]


def test_last_alone_is_enough(tmp_path: Path) -> None:
    trainer = ran(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=0, save_last=True))
    assert names_in(tmp_path / "c") == ["last.ckpt"]
    assert step_in(tmp_path / "c" / "last.ckpt") == trainer.global_step


# -- places --------------------------------------------------------------------------------------------------------------


def test_the_directory_is_found_once(tmp_path: Path) -> None:
    logger = SimpleNamespace(save_dir=str(tmp_path), name="run", version=3, after_save_checkpoint=lambda callback: None)
    for loggers, directory in (([logger], "run/version_3/checkpoints"), ([], "checkpoints")):
        saver = ModelCheckpoint()
        ran(tmp_path, saver, epochs=1, loggers=loggers)
        assert saver.dirpath == str(tmp_path / directory)
        assert names_in(tmp_path / directory) == ["epoch=0-step=4.ckpt"]


def test_loggers_are_told_what_was_saved(tmp_path: Path) -> None:
    told: list[ModelCheckpoint] = []
    logger = SimpleNamespace(save_dir=str(tmp_path), name="run", version="a", after_save_checkpoint=told.append)
    saver = ModelCheckpoint()
    ran(tmp_path, saver, epochs=2, loggers=[logger])
    assert told == [saver, saver]


@pytest.mark.parametrize("save_top_k", [1, 2])
def test_a_url_holds_the_same_names(tmp_path: Path, save_top_k: int) -> None:
    url = f"memory://{tmp_path.name}-{save_top_k}/run"
    saver = ModelCheckpoint(url, monitor="loss", save_top_k=save_top_k, save_last=True)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    for loss in (3.0, 2.0, 1.0, 4.0):
        trainer.epoch(loss=loss)
    kept = ["epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt"][2 - save_top_k :]
    assert sorted(saver.best_k_models) == [f"{url}/{name}" for name in kept]
    for name in [*kept, "last.ckpt"]:
        assert saver.file_exists(f"{url}/{name}", trainer)
    assert not saver.file_exists(f"{url}/epoch=0-step=4.ckpt", trainer)
    assert step_in(f"{url}/last.ckpt") == 16
    saver.to_yaml()
    assert saver.file_exists(f"{url}/best_k_models.yaml", trainer)


def test_a_link_at_a_url_is_refused_when_the_place_is_known(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, ModelCheckpoint(save_last="link"), default_root_dir=f"memory://{tmp_path.name}")
    with pytest.raises(ConfigError, match="is only supported for local file paths"):
        trainer.begin()


@pytest.mark.parametrize("save_last", [True, "link"])
def test_directories_are_linked_and_removed_too(tmp_path: Path, save_last: Any) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_last=save_last)
    saver.FILE_EXTENSION = ".ckpt/"  # what makes fabric write a directory
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    for loss, is_link in ((2.0, True), (3.0, False), (1.0, True)):
        trainer.epoch(loss=loss)
        last = tmp_path / "c" / "last.ckpt"
        assert last.is_dir()
        assert last.is_symlink() == is_link
        assert step_in(last) == trainer.global_step
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["epoch=2-step=12.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    "plugin",
    [AsyncCheckpointIO(), TorchCheckpointIO(), AsyncCheckpointIO(TorchCheckpointIO())],
    ids=["async", "torch", "async-torch"],
)
@pytest.mark.filterwarnings("ignore:.*stores exactly the state")
def test_plug_ins_that_write_files_keep_the_same_files(tmp_path: Path, plugin: Any) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_last=True)
    trainer = FakeTrainer(tmp_path, saver, strategy=SingleDeviceStrategy(checkpoint_io=plugin))
    trainer.begin()
    for loss in (2.0, 1.0, 3.0):
        trainer.epoch(loss=loss)
    plugin.teardown()
    assert names_in(tmp_path / "c") == ["epoch=1-step=8.ckpt", "last.ckpt"]
    assert step_in(tmp_path / "c" / "last.ckpt") == 12


# -- faults --------------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_training_and_leaves_files_and_state_as_they_were(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_last=True)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.epoch(loss=2.0)
    before = saver.state_dict()
    trainer.is_full = True
    with pytest.raises(OSError, match="No space left"):
        trainer.epoch(loss=1.0)
    assert {name: value for name, value in saver.state_dict().items() if name != "position"} == {
        name: value for name, value in before.items() if name != "position"
    }
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt", "last.ckpt"]
    assert step_in(saver.last_model_path) == 4


def test_nothing_is_removed_before_the_new_file_is_there(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c")
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.epoch()
    with armed("checkpoint.before_remove=raise"), pytest.raises(InjectedError):
        trainer.epoch()
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"]


@pytest.mark.parametrize("exception", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(143)], ids=repr)
def test_an_exception_saves_what_would_be_lost(tmp_path: Path, exception: BaseException) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_on_exception=True, save_last=True)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.epoch()
    trainer.batch(0)
    trainer.fail(exception)
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt", "epoch=1-step=5.ckpt", "last.ckpt"]
    assert step_in(saver.last_model_path) == 5


def test_an_exception_refreshes_last_without_being_asked(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_last=True)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.epoch()
    trainer.fail(RuntimeError("x"))
    assert trainer.saved == ["epoch=0-step=4.ckpt"]  # nothing was lost
    trainer.batch(0)
    trainer.fail(RuntimeError("x"))
    assert trainer.saved[1:] == ["last.ckpt"]
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt", "last.ckpt"]


def test_an_exception_before_training_saves_nothing(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, ModelCheckpoint(tmp_path / "c", save_on_exception=True, save_last=True))
    trainer.fire("setup", "fit")
    trainer.run.clock.step = 7
    trainer.fail(RuntimeError("x"))
    trainer.fire("on_train_start")
    trainer.fail(RuntimeError("x"))
    assert trainer.saved == []


def test_a_save_that_fails_does_not_hide_the_exception(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = FakeTrainer(tmp_path, ModelCheckpoint(tmp_path / "c", save_on_exception=True))
    trainer.begin()
    trainer.batch(0)
    trainer.is_full = True
    trainer.fail(RuntimeError("x"))
    assert "RuntimeError at step 1: a checkpoint could not be saved" in caplog.text
    assert "No space left" in caplog.text


def test_the_verbose_say_what_they_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trainer = FakeTrainer(tmp_path, ModelCheckpoint(tmp_path / "c", monitor="loss", verbose=True))
    trainer.begin()
    trainer.epoch(loss=1.0)
    trainer.epoch(loss=2.0)
    assert "Epoch 0, global step 4: 'loss' is 1.00000, saved" in caplog.text
    assert "Epoch 1, global step 8: 'loss' is 2.00000, not in top 1" in caplog.text


# -- state ---------------------------------------------------------------------------------------------------------------


def test_a_resumed_saver_goes_on_where_it_was(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_top_k=2, save_last=True)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    for loss in (3.0, 2.0):
        trainer.epoch(loss=loss)
    again = ModelCheckpoint(tmp_path / "c", monitor="loss", save_top_k=2, save_last=True)
    other = FakeTrainer(tmp_path, again)
    other.resume(saver.last_model_path)
    assert {**again.state_dict(), "position": None} == {**saver.state_dict(), "position": None}
    other.run.clock.epoch += 1
    other.epoch(loss=1.0)
    assert names_in(tmp_path / "c") == ["epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt", "last.ckpt"]


def test_of_another_directory_only_the_best_path_is_taken_over(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss")
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.epoch(loss=1.0)
    other = ModelCheckpoint(tmp_path / "d", monitor="loss")
    with pytest.warns(match="The dirpath has changed from"):
        other.load_state_dict(saver.state_dict())
    assert other.best_model_path == saver.best_model_path
    assert (other.best_k_models, other.best_model_score, other.last_model_path) == ({}, None, "")


def test_what_another_process_saved_is_known_here(tmp_path: Path) -> None:
    there = ModelCheckpoint(monitor="loss")
    trainer = FakeTrainer(tmp_path, there)
    trainer.begin()
    trainer.epoch(loss=1.0)
    here = ModelCheckpoint(monitor="loss")
    here.load_state_dict(there.state_dict())
    assert here.state_dict() == there.state_dict()
    assert here.dirpath == str(tmp_path / "checkpoints")


def test_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_top_k=3, save_last=True)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    for loss in (3.0, 1.0, 2.0):
        trainer.epoch(loss=loss)
    Path(saver.best_model_path).unlink()
    Path(saver.last_model_path).unlink()
    other = ModelCheckpoint(tmp_path / "c", monitor="loss", save_top_k=3, save_last=True)
    with pytest.warns(match="are gone.*epoch=1-step=8.ckpt.*last.ckpt"):
        other.load_state_dict(saver.state_dict())
    assert [Path(path).name for path in other.best_k_models] == ["epoch=0-step=4.ckpt", "epoch=2-step=12.ckpt"]
    assert (Path(other.best_model_path).name, other.best_model_score) == ("epoch=2-step=12.ckpt", torch.tensor(2.0))
    assert (other.last_model_path, other.kth_best_model_path) == ("", "")


def test_a_state_of_lightning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c" / "epoch=0-step=4.ckpt"
    path.parent.mkdir()
    path.touch()
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss")
    state = {
        "monitor": "loss",
        "best_model_score": torch.tensor(1.0),
        "best_model_path": str(path),
        "current_score": torch.tensor(1.0),
        "dirpath": str(tmp_path / "c"),
        "best_k_models": {str(path): torch.tensor(1.0)},
        "kth_best_model_path": str(path),
        "kth_value": torch.tensor(1.0),
        "last_model_path": "",
    }
    saver.load_state_dict(state)
    assert {name: value for name, value in saver.state_dict().items() if name != "position"} == state


def test_a_saver_may_serve_another_run(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", every_n_train_steps=3, save_top_k=-1)
    ran(tmp_path, saver, epochs=2)
    with pytest.warns(match="not empty"):
        trainer = ran(tmp_path, saver, epochs=1)
    assert trainer.saved == ["epoch=0-step=3-v1.ckpt"]
