import csv
import errno
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.fabric.loggers import append
from leyden.fabric.loggers.csv_file import CSVFile, CSVLogger
from leyden.fabric.loggers.writer_thread import WriterThread, flush_all
from leyden.fabric.rank_zero import rank_zero_only


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def metrics_file(root: Path, version: str = "version_0") -> Path:
    return root / "lightning_logs" / version / "metrics.csv"


def test_files_lie_where_they_are_documented(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    assert logger.root_dir == logger.save_dir == str(tmp_path)
    assert (logger.name, logger.version) == ("lightning_logs", 0)
    assert logger.log_dir == str(tmp_path / "lightning_logs" / "version_0")
    logger.log_metrics({"loss": 0.5}, step=3)
    logger.log_hyperparams({"lr": 0.1})
    logger.save()
    assert metrics_file(tmp_path).read_text() == "loss,step\n0.5,3\n"
    assert yaml.safe_load((Path(logger.log_dir) / "hparams.yaml").read_text()) == {"lr": 0.1}


def test_columns_are_sorted_and_a_new_name_rewrites_the_file(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.5}, step=0)
    logger.save()
    logger.log_metrics({"accuracy": 0.9, "val/loss": 0.4}, step=1)
    logger.log_metrics({"train/loss": 0.3}, step=1)
    logger.save()
    assert metrics_file(tmp_path).read_text() == "accuracy,step,train/loss,val/loss\n,0,0.5,\n0.9,1,,0.4\n,1,0.3,\n"
    assert [path.name for path in metrics_file(tmp_path).parent.iterdir()] == ["metrics.csv"], "no temporary file is left"


def test_a_flush_opens_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 0.5}, step=0)
    logger.save()
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args, **kwargs: (opened.append(self), real(self, *args, **kwargs))[1])
    for step in range(1, 80):
        logger.log_metrics({"loss": 0.5}, step=step)
    logger.save()
    assert opened == [metrics_file(tmp_path)]
    assert len(rows_of(metrics_file(tmp_path))) == 80


def test_step_counts_up_if_absent(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    for step in (None, None, 10, None):
        logger.log_metrics({"loss": 0.5}, step)
    assert [row["step"] for row in logger.experiment.metrics] == [0, 1, 10, 11]


def test_experiment_shows_rows_not_yet_handed_over(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.experiment.log_metrics({"loss": torch.tensor(0.5)}, step=2)
    assert logger.experiment.metrics == [{"loss": 0.5, "step": 2}]
    logger.experiment.save()
    assert logger.experiment.metrics == []
    assert logger.experiment.metrics_file_path == str(metrics_file(tmp_path))


def test_prefix_is_joined_by_a_dash(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, prefix="run")
    logger.log_metrics({"loss": 1}, step=0)
    assert logger.experiment.metrics == [{"run-loss": 1, "step": 0}]


def test_rows_are_copied_when_they_are_logged(tmp_path: Path) -> None:
    logger, metrics = CSVLogger(tmp_path), {"loss": 1}
    logger.log_metrics(metrics, step=0)
    metrics["loss"] = 2
    assert logger.experiment.metrics == [{"loss": 1, "step": 0}]


def test_a_tensor_of_several_elements_is_refused_where_it_is_logged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be converted to a scalar"):
        CSVLogger(tmp_path).log_metrics({"loss": torch.ones(2)})


def test_every_n_steps_the_thread_is_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[bool] = []
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=5)
    with monkeypatch.context() as patch:
        patch.setattr(WriterThread, "wake", lambda self: woken.append(True))
        for step in range(5):
            assert woken == []
            logger.log_metrics({"loss": 0.5}, step=step)
    assert woken == [True]
    assert flush_all(10)
    assert len(rows_of(metrics_file(tmp_path))) == 5


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    rank_zero_only.rank = 1
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 0.5}, step=0)
    logger.log_hyperparams({"lr": 0.1})
    logger.save()
    logger.finalize("success")
    assert logger.log_dir == str(tmp_path / "lightning_logs" / "version_0")
    assert logger.experiment.metrics is not None
    assert list(tmp_path.iterdir()) == []


def test_an_explicit_version_that_exists_is_replaced_with_a_warning(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        logger = CSVLogger(tmp_path, version="mine")
        if loss == 2.0:
            with pytest.warns(UserWarning, match="its rows are replaced.*resume=True"):
                logger.log_metrics({"loss": loss}, step=0)
        else:
            logger.log_metrics({"loss": loss}, step=0)
        logger.finalize("success")
    assert metrics_file(tmp_path, "mine").read_text() == "loss,step\n2.0,0\n"


def test_resume_appends_and_drops_what_comes_again(tmp_path: Path) -> None:
    first = CSVLogger(tmp_path, version=4)
    for step in range(6):
        first.log_metrics({"loss": float(step)}, step=step)
    first.finalize("success")
    with metrics_file(tmp_path, "version_4").open("a") as file:
        file.write("9.0,")  # killed in the middle of a line
    second = CSVLogger(tmp_path, version=4, resume=True)
    second.log_metrics({"loss": -4.0}, step=4)
    second.log_metrics({"accuracy": 0.5}, step=5)
    second.finalize("success")
    rows = rows_of(metrics_file(tmp_path, "version_4"))
    assert [(row["step"], row["loss"], row["accuracy"]) for row in rows] == [
        ("0", "0.0", ""),
        ("1", "1.0", ""),
        ("2", "2.0", ""),
        ("3", "3.0", ""),
        ("4", "-4.0", ""),
        ("5", "", "0.5"),
    ]


def test_resume_counts_on_from_the_last_step(tmp_path: Path) -> None:
    first = CSVLogger(tmp_path, version=0)
    first.log_metrics({"loss": 1.0}, step=41)
    first.finalize("success")
    second = CSVLogger(tmp_path, version=0, resume=True)
    second.log_metrics({"loss": 2.0})
    second.finalize("success")
    assert [row["step"] for row in rows_of(metrics_file(tmp_path))] == ["41", "42"]


def test_logging_goes_on_after_finalize(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    for step in range(2):
        logger.log_metrics({"loss": 0.5}, step=step)
        logger.finalize("success")
    assert len(rows_of(metrics_file(tmp_path))) == 2


def test_a_pickled_logger_keeps_its_version_and_leaves_waiting_rows_behind(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 0.5}, step=0)
    copy = pickle.loads(pickle.dumps(logger))
    assert copy.version == 0
    assert copy.experiment.metrics == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "pass exactly one"),
        ({"root_dir": "a", "save_dir": "b"}, "pass exactly one"),
        ({"root_dir": "a", "resume": True}, "needs the version"),
        ({"root_dir": "a", "flush_logs_every_n_steps": 0}, "at least 1"),
        ({"root_dir": "s3://bucket/logs"}, "is a URL"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CSVLogger(**arguments)


def test_save_dir_is_another_name_of_root_dir(tmp_path: Path) -> None:
    assert CSVLogger(save_dir=tmp_path).root_dir == str(tmp_path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = CSVFile(tmp_path / "metrics.csv")
    file.write([{"loss": 1.0, "step": 0}])

    class FullAfterTwoBytes:
        def __init__(self, raw: Any) -> None:
            self._raw = raw

        def __getattr__(self, name: str) -> Any:
            return getattr(self._raw, name)

        def __enter__(self) -> "FullAfterTwoBytes":
            return self

        def __exit__(self, *error: object) -> None:
            self._raw.close()

        def write(self, data: bytes) -> int:
            if self._raw.tell() > len("loss,step\n1.0,0\n"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._raw.write(data[:2])

    real = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(append.Path, "open", lambda self, *args, **kwargs: FullAfterTwoBytes(real(self, *args, **kwargs)))
        with pytest.raises(OSError, match="No space left"):
            file.write([{"loss": 2.0, "step": 1}])
    assert (tmp_path / "metrics.csv").read_text() == "loss,step\n1.0,0\n"
    file.write([{"loss": 2.0, "step": 1}])
    assert (tmp_path / "metrics.csv").read_text() == "loss,step\n1.0,0\n2.0,1\n"


def test_a_deleted_file_comes_back_with_its_columns(tmp_path: Path) -> None:
    file = CSVFile(tmp_path / "run" / "metrics.csv")
    file.write([{"loss": 1.0, "step": 0}])
    file.path.unlink()
    file.write([{"step": 1}])
    assert file.path.read_text() == "loss,step\n,1\n"


names = st.sampled_from(["loss", "val/loss", "a,b", 'say "hi"', "line\nbreak", "ü"])
values = st.floats(allow_nan=False) | st.integers(-(2**60), 2**60)


@given(batches=st.lists(st.lists(st.dictionaries(names, values, max_size=4), min_size=1, max_size=4), max_size=4))
def test_rows_of_any_names_and_values_come_back(batches: list[list[dict[str, float]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file, expected = CSVFile(Path(directory) / "metrics.csv"), []
        for batch in batches:
            rows = [{**row, "step": len(expected) + index} for index, row in enumerate(batch)]
            file.write(rows)
            expected += rows
        read = [] if not expected else rows_of(file.path)
        assert [{name: float(text) for name, text in row.items() if text} for row in read] == [
            {name: float(value) for name, value in row.items()} for row in expected
        ]
