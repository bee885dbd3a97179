"""The two-rank runner itself: results in order, every traceback in one error, nothing outlives the deadline."""

from dataclasses import dataclass

import pytest
import torch
from torch import distributed as dist

from tests.support.ranks import RanksError, run_ranks


@dataclass
class Box:
    value: int


def _sum(box: Box) -> Box:
    tensor = torch.tensor([dist.get_rank() + box.value])
    dist.all_reduce(tensor)
    return Box(int(tensor))


def _one_raises() -> None:
    if dist.get_rank() == 1:
        raise ValueError("rank one does not like this")
    dist.barrier()


_ONE_HANGS = """
import os, threading

def main():
    if os.environ["RANK"] == "1":
        threading.Event().wait()
"""


def test_results_come_in_rank_order_with_classes_of_the_test_file() -> None:
    assert run_ranks(_sum, 2, args=(Box(3),)) == [Box(7), Box(7)]


def test_source_is_run_too() -> None:
    source = "import os\ndef main(word):\n    return word + os.environ['RANK']\n"

    assert run_ranks(source, 2, args=("rank ",), join=False) == ["rank 0", "rank 1"]


def test_the_error_holds_the_traceback_of_every_rank() -> None:
    with pytest.raises(RanksError, match=r"(?s)rank 0.*Traceback.*rank 1.*ValueError: rank one does not like this"):
        run_ranks(_one_raises, 2)


def test_a_hanging_rank_is_dumped_and_killed_at_the_timeout() -> None:
    with pytest.raises(RanksError, match=r"(?s)rank 0, exit code 0: returned.*rank 1.*left no result.*in main"):
        run_ranks(_ONE_HANGS, 2, timeout=2, join=False)
