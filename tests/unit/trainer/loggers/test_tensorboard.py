"""The TensorBoard logger with a trainer's arguments."""

from pathlib import Path

import pytest

from leyden.core.errors import ConfigTypeError
from leyden.trainer.loggers import CSVLogger, DummyLogger, TensorBoardLogger
from tests.support.event_files import read_scalars


def test_save_dir_is_the_directory_of_all_experiments(tmp_path: Path) -> None:
    logger = TensorBoardLogger(save_dir=tmp_path, name="digits", version=3)
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.finalize("success")
    assert logger.save_dir == str(tmp_path)
    assert "loss" in str(read_scalars(tmp_path / "digits" / "version_3"))


def test_positions_are_a_trainers(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, "a", 0, False, True, "pre", "sub")
    assert logger.sub_dir == "sub"


def test_a_wrong_keyword_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigTypeError, match="does not take 'savedir'"):
        TensorBoardLogger(tmp_path, savedir="x")


def test_csv_takes_save_dir_too(tmp_path: Path) -> None:
    assert CSVLogger(save_dir=tmp_path).save_dir == str(tmp_path)


def test_the_dummy_keeps_nothing() -> None:
    logger = DummyLogger()
    logger.log_metrics({"loss": 1.0}, 0)
    logger.log_hyperparams({"lr": 1.0})
    assert (logger.name, logger.version) == ("", "")
