import copy
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from leyden.fabric import loggers
from leyden.fabric.loggers.logger import DummyExperiment, Logger, rank_zero_experiment
from leyden.fabric.rank_zero import rank_zero_only


class ListLogger(Logger):
    name = "list"
    version = 0

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, Any]]] = []
        self.num_saves = 0

    @property
    @rank_zero_experiment
    def experiment(self) -> list[Any]:
        return self.rows

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.rows.append((None, dict(params)))

    def save(self) -> None:
        self.num_saves += 1


def test_the_abstract_logger_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Logger()


def test_a_foreign_logger_needs_four_members_only() -> None:
    logger = ListLogger()
    assert not logger.threaded
    assert (logger.root_dir, logger.save_dir, logger.log_dir, logger.group_separator) == (None, None, None, "/")
    logger.log_graph(None)
    logger.after_save_checkpoint(None)


def test_finalize_saves() -> None:
    logger = ListLogger()
    logger.finalize("success")
    assert logger.num_saves == 1


def test_other_ranks_get_a_dummy_experiment() -> None:
    logger = ListLogger()
    assert logger.experiment is logger.rows
    rank_zero_only.rank = 1
    assert isinstance(logger.experiment, DummyExperiment)


def test_the_dummy_takes_everything_and_does_nothing() -> None:
    dummy = DummyExperiment()
    assert dummy.add_scalar("loss", 0.5, global_step=1) is None
    dummy.attribute = 5
    dummy["key"] = 5
    assert dummy[0].add_image("x", None) is None
    assert dummy() is None
    copy.deepcopy(dummy)
    pickle.loads(pickle.dumps(dummy))


def test_the_front_door_offers_all_loggers() -> None:
    assert sorted(loggers.__all__) == ["CSVLogger", "Logger", "MLFlowLogger", "TensorBoardLogger", "WandbLogger"]
    for name in loggers.__all__:
        assert issubclass(getattr(loggers, name), Logger)
        assert getattr(loggers, name).threaded == (name != "Logger")
