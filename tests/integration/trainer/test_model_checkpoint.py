"""`ModelCheckpoint` in a real fit: files of every rhythm, the best, `last`, faults, resuming."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, StorageError
from leyden.core.failpoints import armed
from leyden.fabric.checkpoint.plugin import AsyncCheckpointIO
from leyden.fabric.loggers import CSVLogger
from leyden.trainer.callbacks import ModelCheckpoint
from leyden.trainer.core.callback import Callback
from tests.support.s3_server import s3_server
from tests.support.scripted_fit import Scripted, fit, names_in, step_of

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:Checkpoint directory")


@pytest.mark.parametrize(
    ("arguments", "options", "files"),
    [
        ({}, {}, ["epoch=2-step=12.ckpt"]),
        ({"save_top_k": -1}, {}, ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt"]),
        ({"save_top_k": -1, "every_n_epochs": 2}, {}, ["epoch=1-step=8.ckpt"]),
        ({"save_top_k": -1, "every_n_train_steps": 5}, {}, ["epoch=1-step=5.ckpt", "epoch=2-step=10.ckpt"]),
        ({"save_top_k": -1, "every": "0.5epoch"}, {"max_epochs": 1}, ["epoch=0-step=2.ckpt", "epoch=0-step=4.ckpt"]),
        ({"save_top_k": -1}, {"val_check_interval": 0.5, "max_epochs": 1}, ["epoch=0-step=2.ckpt", "epoch=0-step=4.ckpt"]),
        ({"save_top_k": -1}, {"check_val_every_n_epoch": 2}, ["epoch=1-step=8.ckpt"]),
        ({"save_top_k": -1}, {"accumulate_grad_batches": 3, "max_epochs": 1}, ["epoch=0-step=2.ckpt"]),
        ({"save_last": True}, {"max_steps": 6}, ["epoch=1-step=6.ckpt", "last.ckpt"]),
        ({"save_top_k": 0, "save_last": True}, {}, ["last.ckpt"]),
        (
            {"monitor": "val_loss", "save_top_k": 2, "filename": "{epoch}-{val_loss:.1f}", "save_last": True},
            {},
            ["epoch=0-val_loss=2.0.ckpt", "epoch=2-val_loss=1.0.ckpt", "last.ckpt"],
        ),
        ({"monitor": "val_loss", "mode": "max"}, {}, ["epoch=1-step=8.ckpt"]),
        ({"monitor": "train_loss", "every_n_train_steps": 1, "filename": "{step}"}, {"max_epochs": 1}, ["step=4.ckpt"]),
        (
            {"monitor": "val_loss", "every_n_train_steps": 2, "save_top_k": -1, "filename": "{step}-{val_loss:.0f}"},
            {"max_epochs": 2},
            ["step=4-val_loss=2.ckpt", "step=6-val_loss=2.ckpt", "step=8-val_loss=3.ckpt"],
        ),
        ({}, {"fast_dev_run": 2}, []),
    ],
    ids=str,
)
def test_a_fit_leaves_the_documented_files(tmp_path: Path, arguments: dict[str, Any], options: dict[str, Any], files: list[str]) -> None:
    fit(tmp_path, ModelCheckpoint(tmp_path / "c", **arguments), module=Scripted([2.0, 3.0, 1.0]), **options)
    assert names_in(tmp_path / "c") == files


def test_the_default_saver_lies_beside_the_loggers_files(tmp_path: Path) -> None:
    trainer = fit(tmp_path, logger=CSVLogger(tmp_path, name="run"))
    assert trainer.checkpoint_callback.dirpath == str(tmp_path / "run" / "version_0" / "checkpoints")
    assert names_in(tmp_path / "run" / "version_0" / "checkpoints") == ["epoch=2-step=12.ckpt"]
    fit(tmp_path / "other")
    assert names_in(tmp_path / "other") == ["checkpoints/epoch=2-step=12.ckpt"]


def test_a_file_opens_safely_and_holds_the_documented_state(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="val_loss", save_last=True)
    fit(tmp_path, saver, max_epochs=1)
    state = torch.load(saver.best_model_path, weights_only=True)["callbacks"][saver.state_key]
    assert {name: value for name, value in state.items() if name != "position"} == {
        "monitor": "val_loss",
        "best_model_score": torch.tensor(1.0),
        "best_model_path": saver.best_model_path,
        "current_score": torch.tensor(1.0),
        "dirpath": str(tmp_path / "c"),
        "best_k_models": {saver.best_model_path: torch.tensor(1.0)},
        "kth_best_model_path": saver.best_model_path,
        "kth_value": torch.tensor(1.0),
        "last_model_path": saver.last_model_path,
    }


def test_only_weights_are_saved_on_request(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_weights_only=True)
    fit(tmp_path, saver, max_epochs=1)
    content = torch.load(saver.best_model_path, weights_only=True)
    assert "optimizer_states" not in content
    assert "callbacks" not in content
    assert set(content["state_dict"]) == {"layer.weight", "layer.bias"}


class SlowClock(Callback):
    """Lets a minute pass with every batch, on the run's own clock."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        trainer.run.clock._seconds += 60.0


@pytest.mark.parametrize("arguments", [{"train_time_interval": timedelta(minutes=3)}, {"every": "3min"}], ids=str)
def test_time_saves_at_the_next_step(tmp_path: Path, arguments: dict[str, Any]) -> None:
    fit(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=-1, **arguments), SlowClock())
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt"]


def test_an_absent_metric_ends_the_run_after_a_validation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"could not find the monitored key.*'train_loss'.*'val_loss'"):
        fit(tmp_path, ModelCheckpoint(tmp_path / "c", monitor="val_los"))


def test_nan_is_the_worst_score(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="val_loss")
    fit(tmp_path, saver, module=Scripted([math.nan, 2.0, math.nan]))
    assert names_in(tmp_path / "c") == ["epoch=1-step=8.ckpt"]


@given(
    losses=st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan]), min_size=1, max_size=5),
    keep=st.integers(-1, 3),
    mode=st.sampled_from(["min", "max"]),
    save_last=st.sampled_from([None, True, "link"]),
    name=st.sampled_from(["{epoch}", "best", "{val_loss:.0f}"]),
)
@settings(max_examples=12)
def test_the_directory_is_what_a_model_of_it_says(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], keep: int, mode: Any, save_last: Any, name: str
) -> None:
    root = tmp_path_factory.mktemp("run")
    saver = ModelCheckpoint(root / "c", name, "val_loss", save_last=save_last, save_top_k=keep, mode=mode)
    trainer = fit(root, saver, module=Scripted(losses), max_epochs=len(losses))
    worst = math.inf if mode == "min" else -math.inf
    sign = 1 if mode == "min" else -1
    scores = sorted(sign * (worst if math.isnan(loss) else loss) for loss in losses)[: len(losses) if keep == -1 else keep]
    assert sorted(sign * float(score) for score in saver.best_k_models.values()) == scores
    kept = {Path(path).name for path in saver.best_k_models}
    assert set(names_in(root / "c")) == kept | ({"last.ckpt"} if save_last else set())
    for path in saver.best_k_models:
        epoch = step_of(path) // 4 - 1
        assert math.isnan(losses[epoch]) or losses[epoch] == float(saver.best_k_models[path])
    if save_last:
        assert step_of(saver.last_model_path) == trainer.global_step


# -- last, and resuming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_last", [True, "link"])
def test_a_resumed_run_takes_last_and_goes_on_with_its_names(tmp_path: Path, save_last: Any) -> None:
    def saver() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "c", monitor="val_loss", save_last=save_last, save_top_k=2)

    fit(tmp_path, saver(), module=Scripted([3.0, 2.0]), max_epochs=2)
    last = tmp_path / "c" / "last.ckpt"
    assert step_of(last) == 8
    again = saver()
    trainer = fit(tmp_path, again, module=Scripted([1.0, 4.0]), max_epochs=4, ckpt_path="last")
    assert trainer.global_step == 16
    # The file resumed from stays, by which name ever it was named.
    kept = ["epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt"]
    assert names_in(tmp_path / "c") == [*kept, "last.ckpt"]
    assert sorted(Path(path).name for path in again.best_k_models) == kept
    assert step_of(last) == 16


def test_the_file_resumed_from_outlives_the_run(tmp_path: Path) -> None:
    fit(tmp_path, ModelCheckpoint(tmp_path / "c"), max_epochs=1)
    first = tmp_path / "c" / "epoch=0-step=4.ckpt"
    fit(tmp_path, ModelCheckpoint(tmp_path / "c"), max_epochs=3, ckpt_path=first)
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt", "epoch=2-step=12.ckpt"]


def test_two_savers_at_one_seam_both_save_there_after_a_resume_too(tmp_path: Path) -> None:
    def savers(root: Path) -> list[ModelCheckpoint]:
        return [
            ModelCheckpoint(root / "a", every_n_train_steps=2, save_top_k=-1),
            ModelCheckpoint(root / "b", every="2batch", save_top_k=-1),
        ]

    fit(tmp_path / "whole", *savers(tmp_path), max_epochs=1)
    files = names_in(tmp_path / "a"), names_in(tmp_path / "b")
    (tmp_path / "b" / "epoch=0-step=2.ckpt").unlink()
    (tmp_path / "b" / "epoch=0-step=4.ckpt").unlink()
    (tmp_path / "a" / "epoch=0-step=4.ckpt").unlink()
    fit(tmp_path / "rest", *savers(tmp_path), max_epochs=1, ckpt_path=tmp_path / "a" / "epoch=0-step=2.ckpt")
    assert (names_in(tmp_path / "a"), names_in(tmp_path / "b")) == files


def test_another_directory_begins_a_ranking_of_its_own(tmp_path: Path) -> None:
    first = ModelCheckpoint(tmp_path / "c", monitor="val_loss")
    fit(tmp_path, first, max_epochs=1)
    second = ModelCheckpoint(tmp_path / "d", monitor="val_loss")
    with pytest.warns(match="The dirpath has changed from"):
        fit(tmp_path, second, module=Scripted([5.0]), max_epochs=2, ckpt_path=first.best_model_path)
    assert names_in(tmp_path / "d") == ["epoch=1-step=8.ckpt"]


def test_a_directory_with_files_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "epoch=0-step=4.ckpt").touch()
    with pytest.warns(match=r"Checkpoint directory .* exists and is not empty"):
        fit(tmp_path, ModelCheckpoint(tmp_path / "c"), max_epochs=1)
    assert names_in(tmp_path / "c") == ["epoch=0-step=4-v1.ckpt", "epoch=0-step=4.ckpt"]


# -- faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*was written inside a batch")
@pytest.mark.parametrize("failure", [RuntimeError("x"), KeyboardInterrupt()], ids=repr)
def test_an_exception_saves_a_run_that_goes_on_from_there(tmp_path: Path, failure: BaseException) -> None:
    saver = ModelCheckpoint(tmp_path / "c", save_on_exception=True, save_last=True)
    with pytest.raises(type(failure)):
        fit(tmp_path, saver, module=Scripted(fails_at=6, failure=failure))
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt", "epoch=1-step=6.ckpt", "last.ckpt"]
    assert step_of(saver.last_model_path) == 6
    trainer = fit(tmp_path, ModelCheckpoint(tmp_path / "c", save_last=True), ckpt_path="last")
    assert trainer.current_epoch == 3


def test_a_full_disk_ends_the_run_and_keeps_the_files_before(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c")
    with armed("checkpoint.before_write:2=enospc"), pytest.raises(StorageError, match=r"epoch=1-step=8.*No space left"):
        fit(tmp_path, saver)
    assert names_in(tmp_path / "c") == ["epoch=0-step=4.ckpt"]
    assert saver.best_model_path == str(tmp_path / "c" / "epoch=0-step=4.ckpt")


def test_asynchronous_saves_leave_the_same_files(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "c", monitor="val_loss", save_last=True, every_n_train_steps=1, save_top_k=2, filename="{step}")
    fit(tmp_path, saver, module=Scripted([3.0, 2.0, 1.0]), plugins=AsyncCheckpointIO())
    assert set(names_in(tmp_path / "c")) == {"last.ckpt", *(Path(path).name for path in saver.best_k_models)}
    assert step_of(saver.last_model_path) == 12


# -- far away ------------------------------------------------------------------------------------------------------------


def test_memory_holds_a_run(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/run"
    saver = ModelCheckpoint(url, monitor="val_loss", save_last=True)
    fit(tmp_path, saver, module=Scripted([2.0, 1.0, 3.0]))
    assert saver.best_model_path == f"{url}/epoch=1-step=8.ckpt"
    assert step_of(f"{url}/last.ckpt") == 12
    trainer = fit(tmp_path, ModelCheckpoint(url, monitor="val_loss", save_last=True), max_epochs=4, ckpt_path="last")
    assert trainer.global_step == 16


def test_a_bucket_holds_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moto", reason="moto[server] is not installed")
    with s3_server(tmp_path / "log") as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        url = server.make_bucket("runs") + "/demo"
        saver = ModelCheckpoint(url, monitor="val_loss", save_last=True, save_top_k=2)
        trainer = fit(tmp_path, saver, module=Scripted([2.0, 1.0, 3.0]))
        assert sorted(saver.best_k_models) == [f"{url}/epoch=0-step=4.ckpt", f"{url}/epoch=1-step=8.ckpt"]
        assert step_of(f"{url}/last.ckpt") == 12
        assert not saver.file_exists(f"{url}/epoch=2-step=12.ckpt", trainer)
