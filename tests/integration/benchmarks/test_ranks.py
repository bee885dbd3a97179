"""The benchmarks' ranks, started by torchrun: numbers come back in rank order, and a failure says what happened."""

import pytest

from benchmarks.fabric_ddp import leyden_rank
from benchmarks.large import peak_bytes
from benchmarks.ranks import on_ranks, slowest


def test_a_ddp_step_takes_the_one_collective_of_its_gradients_on_each_rank() -> None:
    results = on_ranks(leyden_rank, 5)
    assert [result["collectives"] for result in results] == [1.0, 1.0]
    assert all(result["seconds"] > 0 for result in results)


def test_a_rank_that_fails_is_an_error_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"a rank of benchmarks\.large\.peak_bytes failed:(.|\n)*TypeError"):
        on_ranks(peak_bytes, ranks=1)  # type: ignore[arg-type] - it returns a number


def test_the_slowest_rank_decides_each_number() -> None:
    assert slowest([{"a": 1.0, "b": 5.0}, {"a": 2.0, "b": 3.0}]) == {"a": 2.0, "b": 5.0}
