"""How ranks agree on a step: what it costs when all succeed, and what everybody hears when one does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import distributed as dist

from leyden.core.errors import ConfigError, LeydenError, RemoteError
from leyden.fabric.checkpoint.peers import Peers
from tests.support.ranks import run_ranks


def sequence() -> int:
    """Return how many collectives the group has run; gloo counts them."""
    number: int = dist.distributed_c10d._get_default_group()._get_sequence_number_for_group()
    return number


def cost_of_agreeing() -> tuple[int, list[str]]:
    peers = Peers(dist.get_rank(), dist.get_world_size())
    before = sequence()
    values = [peers.agreed("open it", lambda: f"rank {peers.rank}") for _ in range(3)]
    return sequence() - before, values


def test_a_step_that_all_ranks_can_do_costs_one_collective() -> None:
    for rank, (collectives, values) in enumerate(run_ranks(cost_of_agreeing, 2)):
        assert collectives == 3
        assert values == [f"rank {rank}"] * 3


@contextmanager
def heard(messages: list[Any]) -> Iterator[None]:
    try:
        yield
    except (LeydenError, KeyError) as error:
        messages.append((type(error).__name__, str(error), getattr(error, "remote_traceback", "")))


def failing(rank: int) -> list[Any]:
    peers = Peers(dist.get_rank(), dist.get_world_size())

    def fail(error: Exception) -> None:
        if peers.rank == rank:
            raise error

    messages: list[Any] = []
    for error in (ConfigError("too wide"), KeyError("weight")):
        with heard(messages):
            peers.agreed("read it", lambda error=error: fail(error))
    messages.append(peers.agreed("go on", lambda: "still in step"))
    return messages


@pytest.mark.parametrize("rank", [0, 2])
def test_a_failure_of_one_rank_is_an_error_on_all(rank: int) -> None:
    for number, (ours, foreign, after) in enumerate(run_ranks(failing, 3, args=(rank,))):
        if number == rank:
            assert ours[:2] == ("ConfigError", "too wide")
            assert foreign[0] == "KeyError"
        else:
            assert ours[:2] == ("ConfigError", f"rank {rank} failed to read it: too wide")
            assert foreign[0] == RemoteError.__name__
            assert f"rank {rank} failed to read it: KeyError: 'weight'" in foreign[1]
        assert after == "still in step"


def test_one_process_just_runs_the_step() -> None:
    assert Peers().agreed("add", lambda: 1 + 1) == 2
