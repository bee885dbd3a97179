import math
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

from leyden.fabric import collectives
from leyden.fabric.spike import SpikeDetection, TrainingSpikeException
from tests.support.ranks import run_ranks


def two_ranks_one_spike(root: str) -> tuple[int, list[float]]:
    class Strategy:
        root_device = torch.device("cpu")
        is_global_zero = dist.get_rank() == 0

        def all_reduce(self, tensor: torch.Tensor, reduce_op: str = "mean") -> torch.Tensor:
            return collectives.all_reduce(tensor, group=None, reduce_op=reduce_op, device=self.root_device)

        def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
            votes = torch.tensor(int(decision))
            dist.all_reduce(votes)
            return int(votes) == dist.get_world_size() if all else int(votes) > 0

    detection = SpikeDetection(exclude_batches_path=root, finite_only=False)
    losses = [1.0, 1.0, math.nan if dist.get_rank() == 0 else 1.0, 1.0 if dist.get_rank() == 0 else 9.0]
    for index, loss in enumerate(losses):
        try:
            detection.on_train_batch_end(SimpleNamespace(strategy=Strategy()), torch.tensor(loss), None, index)
        except TrainingSpikeException as spike:
            return spike.batch_idx, detection.state_dict()["values"]
    return -1, []


def test_a_spike_on_one_rank_ends_all_and_means_stay_equal(tmp_path: Path) -> None:
    assert run_ranks(two_ranks_one_spike, 2, args=[str(tmp_path)]) == [(3, [1.0, 1.0]), (3, [1.0, 1.0])]
