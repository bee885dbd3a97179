"""`ShardedRanks`: the gloo ranks of `run_ranks` as a strategy that keeps its state in parts, without a launcher or devices."""

import torch.distributed as dist

from leyden.fabric.strategies.single import SingleDeviceStrategy


class ShardedRanks(SingleDeviceStrategy):
    """What saves and loads ask of a sharded strategy; built on every rank, since it makes a group."""

    state_layout = "sharded"
    global_rank = property(lambda self: dist.get_rank())
    world_size = property(lambda self: dist.get_world_size())
    saving_group = property(lambda self: self._saving_group)

    def __init__(self) -> None:
        super().__init__("cpu")
        self._saving_group = dist.new_group(backend="gloo")
