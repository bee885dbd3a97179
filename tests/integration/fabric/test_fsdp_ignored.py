"""What FSDP leaves whole, on real ranks: nobody averages its gradients, so trainable ones are worth a warning."""

import warnings

import torch
from torch import nn

from leyden.fabric import Fabric
from leyden.fabric.strategies import FSDPStrategy
from tests.support.ranks import run_ranks


def ignoring() -> list[list[str]]:
    told = []
    for is_trainable in (True, False):
        torch.manual_seed(torch.distributed.get_rank())
        net = nn.Sequential(nn.Linear(2, 2).requires_grad_(is_trainable), nn.Linear(2, 2))
        fabric = Fabric(accelerator="cpu", devices=2, strategy=FSDPStrategy(ignored_modules=[net[0]]))
        fabric.launch()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fabric.setup(net)
        told.append([str(warning.message) for warning in caught if "ignored_modules" in str(warning.message)])
        whole = fabric.all_gather(net[0].weight.detach())
        assert torch.equal(whole[0], whole[1]), "rank 0's values, like everybody's"
    return told


def test_trainable_parameters_that_nobody_averages_are_told_once():
    first, second = run_ranks(ignoring, 2)
    assert [len(messages) for messages in first] == [1, 0]
    assert "requires_grad_(False)" in first[0][0]
    assert second == [[], []]
