import logging
import warnings
from collections.abc import Iterator

import pytest

from leyden.fabric import rank_zero
from leyden.fabric.rank_zero import (
    rank_from,
    rank_prefixed_message,
    rank_zero_deprecation,
    rank_zero_info,
    rank_zero_only,
    rank_zero_warn,
)


@pytest.fixture(autouse=True)
def _rank_restored() -> Iterator[None]:
    yield
    rank_zero_only.rank = None


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, 0),
        ({"RANK": "2", "LOCAL_RANK": "1"}, 2),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "5"}, 1),
        ({"SLURM_PROCID": "5"}, 5),
        ({"JSM_NAMESPACE_RANK": "7"}, 7),
        ({"RANK": "", "SLURM_PROCID": "5"}, 5),
    ],
)
def test_rank_is_read_from_the_launcher(environ: dict[str, str], rank: int) -> None:
    assert rank_from(environ) == rank


def test_a_set_rank_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    rank_zero_only.rank = None
    assert rank_zero_only.rank == 3
    rank_zero_only.rank = 1
    assert rank_zero_only.rank == 1


def test_other_ranks_return_the_default_without_calling() -> None:
    calls: list[int] = []

    def count(value: int) -> int:
        calls.append(value)
        return value

    rank_zero_only.rank = 1
    assert rank_zero_only(count)(5) is None
    assert rank_zero_only(count, default=-1)(5) == -1
    assert calls == []
    rank_zero_only.rank = 0
    assert rank_zero_only(count)(5) == 5


def test_the_decorator_keeps_the_name() -> None:
    @rank_zero_only
    def save() -> None:
        """Save."""

    assert save.__name__ == "save"
    assert save.__doc__ == "Save."


def test_a_warning_points_at_the_calling_line() -> None:
    rank_zero_only.rank = 0
    with pytest.warns(UserWarning, match="odd") as caught:
        rank_zero_warn("odd")
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="old") as caught:
        rank_zero_deprecation("old")
    assert caught[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="odd"):
        rank_zero_warn("odd", category=RuntimeWarning)


def test_other_ranks_neither_warn_nor_log(caplog: pytest.LogCaptureFixture) -> None:
    rank_zero_only.rank = 1
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        rank_zero_warn("odd")
        rank_zero_info("hello")
    assert caplog.records == []


def test_info_names_the_calling_function(caplog: pytest.LogCaptureFixture) -> None:
    rank_zero_only.rank = 0
    with caplog.at_level(logging.INFO, logger=rank_zero.__name__):
        rank_zero_info("hello %s", "you")
    (record,) = caplog.records
    assert record.getMessage() == "hello you"
    assert record.funcName == "test_info_names_the_calling_function"


def test_a_message_carries_its_rank() -> None:
    assert rank_prefixed_message("saved", 1) == "[rank: 1] saved"
    assert rank_prefixed_message("saved", None) == "saved"
