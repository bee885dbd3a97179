import cProfile
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leyden.fabric.loggers.csv_file import CSVLogger
from leyden.fabric.loggers.writer_thread import process_writer
from leyden.fabric.rank_zero import rank_zero_only


def num_calls(function: Callable[[], object]) -> int:
    """Return how many calls, of Python and of C functions, `function` makes."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return sum(entry.callcount for entry in profile.getstats())


@pytest.mark.parametrize(("value", "limit"), [(0.5, 9), (torch.tensor(0.5), 11)], ids=["float", "tensor"])
def test_logging_a_row_makes_few_calls(tmp_path: Path, value: object, limit: int) -> None:
    # A step of 100 us may cost 15 % more with logging; each of these calls costs about a tenth of a microsecond.
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=10_000)
    logger.log_metrics({"loss": value}, 0)

    def log(count: int) -> Callable[[], None]:
        def loop() -> None:
            for step in range(count):
                logger.log_metrics({"loss": value}, step)

        return loop

    assert num_calls(log(1100)) - num_calls(log(100)) <= 1000 * limit


def test_a_row_is_read_when_it_is_logged(tmp_path: Path) -> None:
    logger, value = CSVLogger(tmp_path), torch.tensor(1.0)
    logger.log_metrics({"loss": value}, torch.tensor(4))
    value.fill_(2.0)
    assert logger.experiment.metrics == [{"loss": 1.0, "step": 4}]


def test_nothing_is_opened_before_the_first_row(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "logs")
    logger.save()
    logger.finalize("success")
    pickle.dumps(logger)
    assert not (tmp_path / "logs").exists()


def test_finalize_closes_the_channel_and_the_next_row_opens_another(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 1.0})
    assert len(process_writer().channels) == 1
    logger.finalize("success")
    assert process_writer().channels == []
    logger.log_metrics({"loss": 1.0})
    assert len(process_writer().channels) == 1


def test_other_ranks_do_not_even_look_at_the_values(tmp_path: Path) -> None:
    rank_zero_only.rank = 1
    CSVLogger(tmp_path).log_metrics({"loss": torch.ones(5)})
