"""ModelParallel's arguments and what the user's function may return, on one rank. Two and four: tests/conformance."""

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, UnavailableError
from leyden.fabric import Fabric, MeshSpec
from leyden.fabric.plugins import MixedPrecision
from leyden.fabric.strategies import ModelParallelStrategy
from tests.support.lone_rank import lone_rank


def keep(module, mesh):
    return module


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1)


def test_the_bare_name_shows_the_constructor():
    with pytest.raises(ConfigError, match=r"strategy=ModelParallelStrategy\(parallelize_fn=my_function\)"):
        Fabric(accelerator="cpu", devices=2, strategy="model_parallel")


def test_the_function_must_be_one():
    with pytest.raises(ConfigTypeError, match=r"expected a function \(module, device_mesh\) -> module"):
        ModelParallelStrategy("tensor")


def test_sizes_and_a_mesh_are_one_too_many():
    with pytest.raises(ConfigError, match="both divide the ranks; pass one of them"):
        ModelParallelStrategy(keep, tensor_parallel_size=2, mesh=MeshSpec(tp=2))


@pytest.mark.parametrize("precision", ["64-true", "16-mixed", "transformer-engine"])
def test_precisions_that_do_not_go_with_it_are_refused(precision):
    with pytest.raises(ConfigError, match="does not go with the model_parallel strategy"):
        Fabric(accelerator="cpu", devices=2, strategy=ModelParallelStrategy(keep), precision=precision)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(ConfigError, match="does not go with the model_parallel strategy"):
        Fabric(accelerator="cpu", devices=2, strategy=ModelParallelStrategy(keep), plugins=plugin)


def test_the_mesh_exists_after_launch():
    with pytest.raises(StateError, match="Accessing the device mesh before processes have initialized is not allowed"):
        ModelParallelStrategy(keep).device_mesh  # noqa: B018 - the access is the test


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            lambda: ModelParallelStrategy(keep, data_parallel_size=2, tensor_parallel_size=3),
            r"data_parallel_size=2 and tensor_parallel_size=3",
        ),
        (lambda: ModelParallelStrategy(keep, mesh=MeshSpec(tp=2)), "multiple of 2 ranks, but this run has 1"),
    ],
    ids=["sizes", "mesh"],
)
def test_sizes_that_do_not_make_the_world_are_unavailable(strategy, message):
    with lone_rank(strategy=strategy()) as fabric, pytest.raises(UnavailableError, match=message):
        fabric.setup_module(nn.Linear(2, 2))


def test_the_function_gets_both_documented_axes_once():
    seen = []

    def parallelize(module, mesh):
        seen.append((mesh.mesh_dim_names, mesh["data_parallel"].size(), mesh["tensor_parallel"].size()))
        return parallelize_module(module, mesh["tensor_parallel"], {"0": ColwiseParallel()})

    with lone_rank(strategy=ModelParallelStrategy(parallelize)) as fabric:
        module = nn.Sequential(nn.Linear(2, 2))
        model, optimizer = fabric.setup(module, sgd(module))
        before = module[0].weight.full_tensor().clone()
        fabric.backward(model(torch.ones(1, 2)).sum())
        optimizer.step()
        assert not torch.equal(before, module[0].weight.full_tensor()), "the optimizer does not point at the new parameters"
        assert fabric.mesh.size("tp") == fabric.mesh.size("dp") == 1
    assert seen == [(("data_parallel", "tensor_parallel"), 1, 1)]


def test_with_a_mesh_spec_the_function_gets_its_axes():
    seen = []

    def parallelize(module, mesh):
        seen.append([mesh[name].size() for name in ("tp", "dp_shard", "cp")])
        fully_shard(module, mesh=mesh["dp_shard"])
        return module

    with lone_rank(strategy=ModelParallelStrategy(parallelize, mesh=MeshSpec())) as fabric:
        model, _ = fabric.setup(module := nn.Linear(2, 2), sgd(module))
        with fabric.no_backward_sync(model):
            fabric.backward(model(torch.ones(1, 2)).sum())
        assert fabric.clip_gradients(model, fabric.setup_optimizers(sgd(model)), max_norm=0.1).shape == ()
    assert seen == [[1, 1, 1]]


def test_the_function_must_return_a_module():
    message = r"must return a `nn.Module` instance, but it returned NoneType"
    with lone_rank(strategy=ModelParallelStrategy(lambda module, mesh: None)) as fabric, pytest.raises(ConfigTypeError, match=message):
        fabric.setup_module(nn.Linear(2, 2))


def test_an_empty_module_is_built_on_meta_and_gets_values():
    with lone_rank(strategy=ModelParallelStrategy(keep)) as fabric:
        with fabric.init_module(empty_init=True):
            module = nn.Linear(2, 2)
        assert module.weight.is_meta
        assert torch.isfinite(fabric.setup_module(module)(torch.ones(1, 2))).all()


def test_saving_is_a_directory_unless_it_is_turned_off(tmp_path):
    for distributed in (True, False):
        with lone_rank(strategy=ModelParallelStrategy(keep, save_distributed_checkpoint=distributed)) as fabric:
            path = tmp_path / str(distributed)
            fabric.save(path, {"model": fabric.setup_module(nn.Linear(2, 2))})
            assert path.is_dir() is distributed
