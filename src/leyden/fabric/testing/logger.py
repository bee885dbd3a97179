"""The kit for loggers: rows arrive once and in order, other ranks do nothing, a copy goes on with the run."""

import math
import pickle
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, TypeAlias

import torch

from leyden.core.errors import ConfigError
from leyden.fabric.loggers.logger import DummyExperiment, Logger
from leyden.fabric.rank_zero import rank_zero_only
from leyden.fabric.testing.expectations import expect, expect_close, expect_equal, refused

Points: TypeAlias = list[tuple[str, int, float]]


class LoggerConformance(ABC):
    """What every logger promises. Each test gets a folder of its own from pytest's `tmp_path`.

    A logger whose `threaded` is true also takes tensors and functions: subclass `ThreadedLoggerConformance`. Others get
    plain numbers from fabric, in the calling thread.

    Example:
        ```python
        class TestMine(LoggerConformance):
            def make(self, root, **options):
                return MyLogger(root, **options)

            def read(self, logger, root):
                return [("loss", 0, 0.5)]  # every (name, step, value) that reached the back-end, in order
        ```
    """

    @abstractmethod
    def make(self, root: Path, **options: Any) -> Logger:
        """Return a logger of a new run below `root`."""

    @abstractmethod
    def read(self, logger: Logger, root: Path) -> Points:
        """Return every point that reached the back-end of the run that `logger` logged to, in the order logged."""

    def setup_method(self) -> None:
        """Be rank 0."""
        rank_zero_only.rank = 0

    def teardown_method(self) -> None:
        """Be no rank again."""
        rank_zero_only.rank = None

    def test_rows_arrive_once_and_in_order(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        for step in range(30):
            logger.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
            if step == 20:
                logger.save()
        logger.finalize("success")
        points = self.read(logger, tmp_path)
        expect_equal([(name, step) for name, step, _ in points], [("loss", step) for step in range(30)], "names and steps")
        expect_close([value for *_, value in points], [1.0 / (step + 1) for step in range(30)], "the values", relative=1e-6)

    def test_names_may_change_and_hold_groups(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        separator = logger.group_separator
        logger.log_metrics({f"train{separator}loss": 0.5}, step=0)
        logger.log_metrics({f"val{separator}loss": 0.25, "epoch": 1}, step=0)
        logger.finalize("success")
        expected = [("epoch", 0, 1.0), (f"train{separator}loss", 0, 0.5), (f"val{separator}loss", 0, 0.25)]
        expect_equal(sorted(self.read(logger, tmp_path)), expected, "the points")

    def test_values_that_are_not_finite_arrive(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.log_metrics({"loss": math.inf}, step=0)
        logger.finalize("success")
        points = self.read(logger, tmp_path)
        expect_equal([(name, step) for name, step, _ in points], [("loss", 0)], "names and steps")
        expect(points[0][2] > 1e300, f"infinity should arrive, or the largest number where a store has none, not {points[0][2]!r}")

    def test_the_caller_may_change_its_dictionary(self, tmp_path: Path) -> None:
        logger, metrics = self.make(tmp_path), {"loss": 0.5}
        logger.log_metrics(metrics, step=0)
        metrics["loss"] = 0.75
        logger.finalize("success")
        expect_equal(self.read(logger, tmp_path), [("loss", 0, 0.5)], "the points")

    def test_hyperparameters_of_any_kind_are_taken(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.log_hyperparams({"lr": 0.1, "layers": (64, 10), "optimizer": {"name": "sgd"}, "path": Path("x"), "none": None})
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.finalize("success")
        expect(("loss", 0, 0.5) in self.read(logger, tmp_path), "a row after log_hyperparams is lost")

    def test_saving_and_ending_twice_or_unused_is_fine(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.save()
        logger.finalize("success")
        logger.log_metrics({"loss": 0.5}, step=0)
        for _ in range(2):
            logger.save()
            logger.finalize("success")
        expect_equal(self.read(logger, tmp_path), [("loss", 0, 0.5)], "the points")

    def test_other_ranks_do_nothing(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        rank_zero_only.rank = 1
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.log_hyperparams({"lr": 0.1})
        expect(isinstance(logger.experiment, DummyExperiment), "on other ranks `experiment` should be a dummy: use rank_zero_experiment")
        logger.save()
        logger.finalize("success")
        expect_equal(sorted(tmp_path.rglob("*")), before, "files after another rank has logged")

    def test_a_copy_goes_on_with_the_same_run(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.save()
        copy = pickle.loads(pickle.dumps(logger))  # noqa: S301 - made here
        expect(logger.version is not None, "after the first row a logger should have a version")
        expect_equal((copy.name, copy.version), (logger.name, logger.version), "name and version of a copy")


class ThreadedLoggerConformance(LoggerConformance):
    """The promises of a logger whose `threaded` is true, besides the others.

    Example:
        ```python
        class TestMine(ThreadedLoggerConformance):
            def make(self, root, **options):
                return MyThreadedLogger(root, **options)

            def read(self, logger, root):
                return read_points(logger.log_dir)
        ```
    """

    def test_tensors_and_functions_are_read(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        expect(logger.threaded, "a logger of this kit should say threaded = True")
        value = torch.tensor([0.5], requires_grad=True)
        logger.log_metrics({"tensor": value, "function": lambda: torch.tensor(0.25)}, step=0)
        with torch.no_grad():
            value.zero_()
        logger.finalize("success")
        expect_equal(sorted(self.read(logger, tmp_path)), [("function", 0, 0.25), ("tensor", 0, 0.5)], "the points")
        with refused("a tensor of two elements", ConfigError, words="cannot be converted to a scalar"):
            logger.log_metrics({"tensor": torch.ones(2)}, step=1)

    def test_a_failing_function_costs_its_row_only(self, tmp_path: Path) -> None:
        logger = self.make(tmp_path)
        logger.log_metrics({"bad": lambda: 1 / 0}, step=0)
        logger.log_metrics({"good": 0.5}, step=1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            logger.finalize("failed")
        said = [str(warning.message) for warning in caught]
        expect(any("1 entries were dropped" in text for text in said), f"finalize should warn of the dropped entry, but said {said}")
        expect_equal(self.read(logger, tmp_path), [("good", 1, 0.5)], "the points")
