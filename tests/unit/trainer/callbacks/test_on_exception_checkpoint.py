from pathlib import Path

import pytest

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
from tests.support.fake_trainer import FakeTrainer, step_in


def test_the_run_is_saved_at_any_exception_and_the_file_goes_when_a_run_ends_well(tmp_path: Path) -> None:
    saver = OnExceptionCheckpoint(tmp_path, "rescue")
    assert saver.ckpt_path == str(tmp_path / "rescue.ckpt")
    for exception in (RuntimeError("x"), KeyboardInterrupt(), SystemExit(143)):
        trainer = FakeTrainer(tmp_path, saver)
        trainer.begin()
        trainer.batch(0)
        trainer.fail(exception)
        assert step_in(saver.ckpt_path) == 1
        trainer.begin()
        trainer.end()
        assert not Path(saver.ckpt_path).exists()


def test_an_evaluation_neither_saves_nor_removes(tmp_path: Path) -> None:
    saver = OnExceptionCheckpoint(tmp_path)
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.fail(RuntimeError("x"))
    trainer.fire("setup", "validate")
    trainer.fire("on_validation_start")
    trainer.fail(RuntimeError("x"))
    assert trainer.saved == ["on_exception.ckpt"]
    trainer.fire("setup", "validate")
    trainer.fire("teardown", "validate")
    assert Path(saver.ckpt_path).exists()


def test_a_rehearsal_and_a_run_that_did_not_begin_save_nothing(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, OnExceptionCheckpoint(tmp_path), fast_dev_run=1)
    trainer.begin()
    trainer.fail(RuntimeError("x"))
    trainer.fast_dev_run = 0
    trainer.fire("setup", "fit")
    trainer.fail(RuntimeError("x"))
    assert trainer.saved == []


def test_a_save_that_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = FakeTrainer(tmp_path, OnExceptionCheckpoint(tmp_path), is_full=True)
    trainer.begin()
    trainer.fail(RuntimeError("x"))
    assert "RuntimeError at step 0: a checkpoint could not be saved" in caplog.text


def test_a_url_is_a_place_too(tmp_path: Path) -> None:
    saver = OnExceptionCheckpoint(f"memory://{tmp_path.name}/run/")
    trainer = FakeTrainer(tmp_path, saver)
    trainer.begin()
    trainer.batch(0)
    trainer.fail(RuntimeError("x"))
    assert saver.ckpt_path == f"memory://{tmp_path.name}/run/on_exception.ckpt"
    assert step_in(saver.ckpt_path) == 1


def test_an_empty_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="filename cannot be empty"):
        OnExceptionCheckpoint(tmp_path, "")
