"""What goes from rank 0 to the others before a module is cut: few collectives, every dtype, ties kept."""

import torch
from torch import distributed as dist
from torch import nn

from leyden.fabric.strategies.sharding import broadcast_from_rank_zero
from tests.support.ranks import run_ranks


class Net(nn.Module):
    """Many small tensors of several dtypes, a tied weight, and a buffer that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(20)])
        self.narrow = nn.Linear(5, 5).bfloat16()
        self.layers[1].weight = self.layers[0].weight
        self.register_buffer("seen", torch.full((), dist.get_rank()))
        self.register_buffer("mask", torch.full((4,), dist.get_rank() == 0))
        self.narrow.register_buffer("mask", self.mask)
        self.register_buffer("nothing", None)


def broadcast() -> tuple[int, bool, list[torch.Tensor]]:
    torch.manual_seed(dist.get_rank())
    net = Net()
    group = dist.distributed_c10d._get_default_group()
    before = group._get_sequence_number_for_group()
    broadcast_from_rank_zero(net.named_modules(), device=torch.device("cpu"))
    cost = group._get_sequence_number_for_group() - before
    is_tied = net.layers[1].weight is net.layers[0].weight and net.mask is net.narrow.mask
    return cost, is_tied, [tensor.detach() for tensor in (*net.parameters(), *net.buffers())]


def test_a_unit_goes_to_all_ranks_in_one_collective() -> None:
    (cost, is_tied, first), (_, _, second) = run_ranks(broadcast, 2)
    assert cost == 1
    assert is_tied
    assert len(first) == 39 + 2 + 2
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    assert second[-2].item() == 0
    assert second[-1].tolist() == [True] * 4
