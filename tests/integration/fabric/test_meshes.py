"""Meshes on real ranks: loaders follow the user's own mesh, axes of one rank stay where somebody asks for them."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError
from leyden.fabric import Fabric
from leyden.fabric.strategies import FSDPStrategy, ModelParallelStrategy
from tests.support.ranks import run_ranks


def _hybrid(device_mesh: Any) -> Fabric:
    strategy = FSDPStrategy(sharding_strategy="HYBRID_SHARD", device_mesh=device_mesh)
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy)
    fabric.launch()
    return fabric


def own_mesh(names: tuple[str, str] | None) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    fabric = _hybrid(init_device_mesh("cpu", (1, 2), mesh_dim_names=names))
    try:
        loader = fabric.setup_dataloaders(DataLoader(range(8), batch_size=2))
    except ConfigError as error:
        return str(error)
    total = fabric.all_reduce(torch.tensor(1.0), group="dp", reduce_op="sum")
    return [batch.tolist() for batch in loader], fabric.mesh.size("dp_shard"), float(total)


def test_loaders_are_shared_out_over_a_mesh_of_the_users_whatever_its_axes_are_called():
    first, second = run_ranks(own_mesh, 2, args=[("outer", "inner")])
    assert first == ([[0, 2], [4, 6]], 2, 2.0)
    assert second == ([[1, 3], [5, 7]], 2, 2.0)


def test_a_mesh_without_names_is_refused_with_the_line_to_write():
    for message in run_ranks(own_mesh, 2, args=[None]):
        assert 'mesh_dim_names=("replicate", "shard")' in message


def replicated() -> Any:
    fabric = _hybrid((2, 1))
    net = nn.Linear(4, 4)
    net.register_buffer("codes", torch.tensor([fabric.global_rank], dtype=torch.int16))  # gloo has no int16
    model = fabric.setup(net)
    fabric.backward(model(torch.full((1, 4), float(fabric.global_rank))).sum())
    return str(model.weight.placements), model.weight.grad.full_tensor().mean().item(), model.codes.tolist(), fabric.mesh.describe()


def test_a_hybrid_mesh_of_one_shard_replicates():
    for placements, gradient, codes, described in run_ranks(replicated, 2):
        assert placements.startswith("(Replicate()")
        assert gradient == 0.5, "the mean over both ranks"
        assert codes == [0], "rank 0's, whatever the dtype"
        assert described == {"axes": ["dp_replicate"], "sizes": [2]}


def both_axes() -> list[str]:
    seen: list[str] = []

    def parallelize(module: nn.Module, mesh: Any) -> nn.Module:
        seen.extend(f"{name}={mesh[name].size()}" for name in ("data_parallel", "tensor_parallel"))
        return module

    fabric = Fabric(accelerator="cpu", devices=2, strategy=ModelParallelStrategy(parallelize))
    fabric.launch()
    fabric.all_reduce(torch.ones(1), group="tp")  # asks for the mesh before the module is set up
    fabric.setup(nn.Linear(2, 2))
    return seen


def test_the_function_gets_both_axes_whatever_used_the_mesh_before():
    assert run_ranks(both_axes, 2) == [["data_parallel=1", "tensor_parallel=2"]] * 2
