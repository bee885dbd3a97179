"""What every logger promises. Subclass it, override `make` and `read`, and pytest runs the promises against yours.

```python
class TestMine(LoggerSuite):
    def make(self, root, **options):
        return MyLogger(root, **options)

    def read(self, logger, root):
        return [("loss", 0, 0.5)]              # every (name, step, value) that reached the back-end, in order
```

A logger whose `threaded` is true also takes tensors and functions: subclass `ThreadedLoggerSuite`. Others get plain
numbers from fabric, in the calling thread.
"""

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.fabric.loggers.logger import DummyExperiment, Logger
from leyden.fabric.rank_zero import rank_zero_only

Points = list[tuple[str, int, float]]


class LoggerSuite:
    def make(self, root: Path, **options: Any) -> Logger:
        """Return a logger of a new run below `root`."""
        raise NotImplementedError

    def read(self, logger: Logger, root: Path) -> Points:
        """Return every point that reached the back-end of the run that `logger` logged to, in the order logged."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _rank_zero(self) -> Iterator[None]:
        rank_zero_only.rank = 0
        yield
        rank_zero_only.rank = None

    def test_rows_arrive_once_and_in_order(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        for step in range(30):
            logger.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
            if step == 20:
                logger.save()
        logger.finalize("success")
        points = self.read(logger, tmp_path)
        assert [(name, step) for name, step, _ in points] == [("loss", step) for step in range(30)]
        assert [value for *_, value in points] == pytest.approx([1.0 / (step + 1) for step in range(30)], rel=1e-6)

    def test_names_may_change_and_hold_groups(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.log_metrics({f"train{logger.group_separator}loss": 0.5}, step=0)
        logger.log_metrics({f"val{logger.group_separator}loss": 0.25, "epoch": 1}, step=0)
        logger.finalize("success")
        separator = logger.group_separator
        expected = [("epoch", 0, 1.0), (f"train{separator}loss", 0, 0.5), (f"val{separator}loss", 0, 0.25)]
        assert sorted(self.read(logger, tmp_path)) == expected

    def test_values_that_are_not_finite_arrive(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.log_metrics({"loss": math.inf}, step=0)
        logger.finalize("success")
        ((name, step, value),) = self.read(logger, tmp_path)
        assert (name, step) == ("loss", 0)
        assert value == math.inf or value > 1e300, "SQL stores have no infinity"

    def test_the_caller_may_change_its_dictionary(self, tmp_path: Path) -> None:
        logger, metrics = self.make(tmp_path), {"loss": 0.5}
        logger.log_metrics(metrics, step=0)
        metrics["loss"] = 0.75
        logger.finalize("success")
        assert self.read(logger, tmp_path) == [("loss", 0, 0.5)]

    def test_hyperparameters_of_any_kind_are_taken(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.log_hyperparams({"lr": 0.1, "layers": (64, 10), "optimizer": {"name": "sgd"}, "path": Path("x"), "none": None})
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.finalize("success")
        assert ("loss", 0, 0.5) in self.read(logger, tmp_path)

    def test_saving_and_ending_twice_or_unused_is_fine(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.save()
        logger.finalize("success")
        logger.log_metrics({"loss": 0.5}, step=0)
        for _ in range(2):
            logger.save()
            logger.finalize("success")
        assert self.read(logger, tmp_path) == [("loss", 0, 0.5)]

    def test_other_ranks_do_nothing(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        rank_zero_only.rank = 1
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.log_hyperparams({"lr": 0.1})
        assert isinstance(logger.experiment, DummyExperiment)
        logger.save()
        logger.finalize("success")
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_copy_goes_on_with_the_same_run(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.save()
        copy = pickle.loads(pickle.dumps(logger))
        assert copy.version == logger.version is not None
        assert copy.name == logger.name


class ThreadedLoggerSuite(LoggerSuite):
    """The promises of a logger whose `threaded` is true, besides the others."""

    def test_tensors_and_functions_are_read(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        assert logger.threaded
        value = torch.tensor([0.5], requires_grad=True)
        logger.log_metrics({"tensor": value, "function": lambda: torch.tensor(0.25)}, step=0)
        with torch.no_grad():
            value.zero_()
        logger.finalize("success")
        assert sorted(self.read(logger, tmp_path)) == [("function", 0, 0.25), ("tensor", 0, 0.5)]
        with pytest.raises(ConfigError, match="cannot be converted to a scalar"):
            logger.log_metrics({"tensor": torch.ones(2)}, step=1)

    def test_a_failing_function_costs_its_row_only(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        assert logger.threaded
        logger.log_metrics({"bad": lambda: 1 / 0}, step=0)
        logger.log_metrics({"good": 0.5}, step=1)
        with pytest.warns(UserWarning, match="1 entries were dropped"):
            logger.finalize("failed")
        assert self.read(logger, tmp_path) == [("good", 1, 0.5)]
