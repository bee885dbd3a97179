import io
import pickle
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, MissingDependencyError
from leyden.fabric.loggers.tensorboard import TensorBoardLogger
from leyden.fabric.rank_zero import rank_zero_only
from tests.support.event_files import fields, read_events, read_scalars


def run_of(root: Path) -> Path:
    return root / "lightning_logs" / "version_0"


def test_rows_come_back(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": torch.tensor(0.5), "accuracy": 1}, step=3)
    logger.log_metrics({"loss": lambda: torch.tensor(0.25)})
    logger.finalize("success")
    assert read_scalars(run_of(tmp_path)) == [("loss", 3, 0.5), ("accuracy", 3, 1.0), ("loss", 4, 0.25)]


def test_directories_are_the_documented_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS", str(tmp_path))
    logger = TensorBoardLogger("$RUNS/logs", name="digits", version="first", sub_dir="fold_1")
    assert (logger.root_dir, logger.name, logger.version, logger.sub_dir) == (str(tmp_path / "logs"), "digits", "first", "fold_1")
    assert logger.log_dir == str(tmp_path / "logs/digits/first/fold_1")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert TensorBoardLogger("~/logs", name="", version=2).log_dir == str(tmp_path / "logs/version_2")


def test_a_run_keeps_one_event_file(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    for step in range(3):
        logger.log_metrics({"loss": 0.5}, step)
        logger.experiment.add_text("note", "x", step)
        logger.finalize("success")
    assert len(list(run_of(tmp_path).glob("events*"))) == 1


def test_a_copy_in_another_process_writes_its_own_file(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": 0.5}, 0)
    logger.save()
    copy = pickle.loads(pickle.dumps(logger))
    copy._pid = -1  # what it finds in another process
    copy.log_metrics({"loss": 0.25}, 1)
    copy.save()
    assert len(list(run_of(tmp_path).glob("events*"))) == 2


def test_a_dictionary_becomes_curves_of_one_diagram(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, prefix="run")
    logger.log_metrics({"loss": {"train": 0.5, "val": 0.75}, "accuracy": 1.0}, step=2)
    logger.save()
    assert read_scalars(run_of(tmp_path)) == [("run-accuracy", 2, 1.0)]
    assert read_scalars(run_of(tmp_path) / "run-loss_train") == [("run-loss", 2, 0.5)]
    assert read_scalars(run_of(tmp_path) / "run-loss_val") == [("run-loss", 2, 0.75)]


@pytest.mark.parametrize("value", ["text", None, [1.0]])
def test_what_is_no_number_is_refused_where_it_is_logged(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigTypeError, match="currently not supported"):
        TensorBoardLogger(tmp_path).log_metrics({"x": value})


def test_unknown_keywords_are_refused_and_idle_ones_warn(tmp_path: Path) -> None:
    with pytest.raises(ConfigTypeError, match="Did you mean 'purge_step'"):
        TensorBoardLogger(tmp_path, purge_steps=1)
    with pytest.warns(UserWarning, match="'flush_secs' have no effect"):
        TensorBoardLogger(tmp_path, flush_secs=5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [("hp_metric", 0, -1.0)]),
        ({"metrics": 0.5}, [("hp_metric", 0, 0.5)]),
        ({"metrics": {"acc": 0.5}, "step": 3}, [("acc", 3, 0.5)]),
    ],
    ids=["default", "number", "dictionary"],
)
def test_hyperparameters_have_a_metric(tmp_path: Path, arguments: dict[str, Any], expected: list[tuple[str, int, float]]) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams(Namespace(lr=0.1, optimizer={"name": "sgd"}), **arguments)
    logger.log_metrics({"loss": 1.0})
    logger.save()
    assert read_scalars(run_of(tmp_path)) == [*expected, ("loss", 0, 1.0)]
    assert yaml.safe_load((run_of(tmp_path) / "hparams.yaml").read_text()) == {"lr": 0.1, "optimizer": {"name": "sgd"}}
    tags = [
        fields(fields(event[5][0])[1][0])[1][0].decode()
        for path in run_of(tmp_path).glob("events*")
        for event in read_events(path)
        if 5 in event
    ]
    assert tags[1:4] == ["_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"]


def test_without_a_default_metric_hyperparameters_are_only_stored(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    logger.log_hyperparams({"lr": 0.1})
    logger.save()
    assert [path.name for path in run_of(tmp_path).iterdir()] == ["hparams.yaml"]


def test_hyperparameters_of_another_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigTypeError, match=r"log_hyperparams\(\{"):
        TensorBoardLogger(tmp_path).log_hyperparams([1, 2])


def test_what_is_added_is_copied_at_once(tmp_path: Path) -> None:
    logger, picture = TensorBoardLogger(tmp_path), torch.ones(1, 2, 2)
    logger.experiment.add_image("x", picture, 1)
    picture.zero_()
    logger.save()
    (path,) = run_of(tmp_path).glob("events*")
    image = fields(fields(fields(read_events(path)[1][5][0])[1][0])[4][0])
    pil = pytest.importorskip("PIL.Image")
    with pil.open(io.BytesIO(image[4][0])) as opened:
        assert opened.tobytes() == b"\xff" * 4


def test_a_bad_picture_costs_itself_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_image("x", torch.ones(7, 2, 2), 1)
    logger.experiment.add_scalar("loss", 0.5, 1)
    with pytest.warns(UserWarning, match="1 entries were dropped"):
        logger.finalize("success")
    assert read_scalars(run_of(tmp_path)) == [("loss", 1, 0.5)]
    assert "a picture has 1 to 4 channels" in caplog.text


def test_figures_are_drawn_at_once_and_closed(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    logger, figure = TensorBoardLogger(tmp_path), pyplot.figure(figsize=(2, 1), dpi=50)
    logger.experiment.add_figure("plot", figure, 1)
    assert not pyplot.fignum_exists(figure.number)
    logger.save()
    (path,) = run_of(tmp_path).glob("events*")
    image = fields(fields(fields(read_events(path)[1][5][0])[1][0])[4][0])
    assert (image[1], image[2], image[4][0][:4]) == ([50], [100], b"\x89PNG")


def test_other_methods_name_the_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    experiment = TensorBoardLogger(tmp_path).experiment
    with pytest.raises(MissingDependencyError, match=r"experiment\.add_graph needs the package 'tensorboard'.*pip install"):
        experiment.add_graph(nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(AttributeError, match="SummaryWriter"):
        _ = experiment.adds_graph


def test_a_graph_without_an_example_is_left_out_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Could not log computational graph"):
        TensorBoardLogger(tmp_path).log_graph(nn.Linear(2, 2))
    TensorBoardLogger(tmp_path, log_graph=False).log_graph(nn.Linear(2, 2))


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    rank_zero_only.rank = 1
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": 0.5, "both": {"a": 1.0}}, step=0)
    logger.log_hyperparams({"lr": 0.1})
    logger.log_graph(nn.Linear(2, 2))
    logger.experiment.add_image("x", torch.ones(1, 2, 2))
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_a_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="is a URL"):
        TensorBoardLogger("gs://bucket/logs")
