"""FSDP's documented arguments: what each means for FSDP2, and what is refused before a process starts."""

import contextlib
import logging
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffload,
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecision,
    MixedPrecisionPolicy,
    OffloadPolicy,
    ShardingStrategy,
    fully_shard,
)
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.fabric import Fabric
from leyden.fabric.plugins import MixedPrecision as MixedPrecisionPlugin
from leyden.fabric.strategies import FSDPStrategy
from leyden.fabric.strategies.fsdp_options import mixed_precision_policy, offload_policy, sharding
from tests.support.lone_rank import lone_rank


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x)


def net():
    return nn.Sequential(Block(), Block(), nn.Linear(4, 2))


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1)


# -- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("FULL_SHARD", (True, False)),
        ("shard_grad_op", (False, False)),
        ("HYBRID_SHARD", (True, True)),
        ("_HYBRID_SHARD_ZERO2", (False, True)),
        (ShardingStrategy.SHARD_GRAD_OP, (False, False)),
    ],
    ids=str,
)
def test_sharding_words_say_whether_to_reshard_and_to_replicate(word, meaning):
    assert sharding(word) == meaning


def test_unknown_words_name_the_closest():
    with pytest.raises(ConfigError, match="Did you mean 'FULL_SHARD'"):
        FSDPStrategy(sharding_strategy="FULL_SHRAD")
    with pytest.raises(ConfigError, match="Did you mean 'sharded'"):
        FSDPStrategy(state_dict_type="shared")


@pytest.mark.parametrize(
    ("keywords", "meaning"),
    [
        ({}, None),
        ({"reshard_after_forward": True}, True),
        ({"reshard_after_forward": 2}, 2),
        ({"reshard_after_forward": False}, False),
        ({"sharding_strategy": "SHARD_GRAD_OP"}, False),
        ({"sharding_strategy": "_HYBRID_SHARD_ZERO2", "reshard_after_forward": False}, False),
    ],
    ids=str,
)
def test_the_root_stays_whole_until_backward_unless_the_user_asks(keywords, meaning):
    assert FSDPStrategy(**keywords).options.reshard_after_forward is meaning


def test_freeing_and_keeping_at_once_is_refused():
    with pytest.raises(ConfigError, match='Pass sharding_strategy="FULL_SHARD"'):
        FSDPStrategy(sharding_strategy="SHARD_GRAD_OP", reshard_after_forward=True)
    with pytest.raises(ConfigTypeError, match="the number of ranks to free down to"):
        FSDPStrategy(reshard_after_forward="yes")


def test_without_gradients_the_root_is_freed_when_the_call_ends():
    with lone_rank(strategy=FSDPStrategy()) as fabric:
        model = fabric.setup_module(net())
        sharded = [type(parameter) for parameter in model.parameters()]
        with torch.no_grad():
            before = model(torch.ones(1, 4))
            assert [type(parameter) for parameter in model.parameters()] == sharded
            for parameter in model.parameters():
                parameter.zero_()  # as a step or a load does
            assert not torch.equal(model(torch.ones(1, 4)), before)


@pytest.mark.parametrize("word", ["NO_SHARD", ShardingStrategy.NO_SHARD], ids=str)
def test_no_sharding_is_ddp(word):
    with pytest.raises(ConfigError, match='use strategy="ddp"'):
        FSDPStrategy(sharding_strategy=word)


def test_a_mesh_goes_with_hybrid_sharding_only():
    with pytest.raises(ConfigError, match='pass sharding_strategy="HYBRID_SHARD" with it'):
        FSDPStrategy(device_mesh=(1, 2))
    assert FSDPStrategy(device_mesh=(1, 2), sharding_strategy="HYBRID_SHARD").options.is_hybrid


def test_two_ways_to_checkpoint_activations_are_one_too_many():
    with pytest.raises(ConfigError, match="You cannot set both `activation_checkpointing` and `activation_checkpointing_policy`"):
        FSDPStrategy(activation_checkpointing=[Block], activation_checkpointing_policy={Block})


# -- the old FSDP's keywords ---------------------------------------------------------------------------------------


def test_an_unknown_keyword_names_the_closest():
    with pytest.raises(ConfigError, match=r"FSDPStrategy\(use_orig_param=…\): unknown keyword. Did you mean 'use_orig_params'"):
        FSDPStrategy(use_orig_param=True)


@pytest.mark.parametrize("name", ["use_orig_params", "limit_all_gathers", "sync_module_states"])
def test_what_fsdp2_always_does_cannot_be_turned_off(name):
    FSDPStrategy(**{name: True})
    with pytest.raises(ConfigError, match=rf"FSDP2 always works as with {name}=True"):
        FSDPStrategy(**{name: False})


@pytest.mark.parametrize("name", ["forward_prefetch", "backward_prefetch", "device_id"])
def test_what_has_no_effect_says_so(name, caplog):
    with caplog.at_level(logging.INFO, logger="leyden"):
        FSDPStrategy(**{name: None})
        assert caplog.text == ""
        FSDPStrategy(**{name: 1})
    assert f"FSDPStrategy({name}=1) has no effect" in caplog.text


def test_an_initialiser_must_be_a_function():
    with pytest.raises(ConfigTypeError, match="expected a function that initialises a module"):
        FSDPStrategy(param_init_fn="normal")


# -- policies ------------------------------------------------------------------------------------------------------


def test_offloading_takes_a_word_or_torchs_objects():
    assert type(offload_policy(None, pin_memory=False)) is OffloadPolicy
    assert type(offload_policy(False, pin_memory=False)) is OffloadPolicy
    for given in (True, CPUOffload(offload_params=True)):
        assert offload_policy(given, pin_memory=False) == CPUOffloadPolicy(pin_memory=False)
    assert type(offload_policy(CPUOffload(offload_params=False), pin_memory=False)) is OffloadPolicy
    policy = CPUOffloadPolicy(pin_memory=False)
    assert offload_policy(policy, pin_memory=True) is policy
    with pytest.raises(ConfigTypeError, match="expected None, True, False"):
        offload_policy("cpu", pin_memory=False)


def test_mixed_precision_takes_the_policy_or_the_old_dataclass():
    default, policy = MixedPrecisionPolicy(), MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    assert mixed_precision_policy(None, default) is default
    assert mixed_precision_policy(policy, default) is policy
    old = mixed_precision_policy(MixedPrecision(param_dtype=torch.float16, reduce_dtype=torch.float32, cast_forward_inputs=False), default)
    assert (old.param_dtype, old.reduce_dtype, old.cast_forward_inputs) == (torch.float16, torch.float32, False)
    with pytest.raises(ConfigTypeError, match="expected MixedPrecisionPolicy or MixedPrecision"):
        mixed_precision_policy("bf16", default)


@pytest.mark.parametrize("precision", ["64-true", "transformer-engine"])
def test_precisions_that_do_not_shard_are_refused(precision):
    with pytest.raises(ConfigError, match="does not go with the fsdp strategy"):
        Fabric(accelerator="cpu", devices=2, strategy="fsdp", precision=precision)


def test_a_precision_of_another_strategy_is_refused():
    with pytest.raises(ConfigError, match=r'pass precision="bf16-mixed"'):
        Fabric(accelerator="cpu", devices=2, strategy="fsdp", plugins=MixedPrecisionPlugin("bf16-mixed", "cpu"))


# -- on one rank ---------------------------------------------------------------------------------------------------


def sharded(module):
    return [name for name, child in module.named_modules() if isinstance(child, FSDPModule)]


@pytest.mark.parametrize(
    ("policy", "units"),
    [
        ("auto", ["", "0", "1"]),
        (None, [""]),
        ({nn.Linear}, ["", "0.layer", "1.layer", "2"]),
        (lambda module, recurse, num_params: recurse or isinstance(module, Block), ["", "0", "1"]),
        (partial(size_based_auto_wrap_policy, min_num_params=20), ["", "0.layer", "1.layer"]),
    ],
    ids=["auto", "none", "classes", "function", "torch"],
)
def test_the_policy_chooses_the_units(policy, units):
    with lone_rank(strategy=FSDPStrategy(auto_wrap_policy=policy)) as fabric:
        model, _ = fabric.setup(module := net(), sgd(module))
        assert sharded(model.module) == units


def test_a_module_the_user_sharded_is_kept():
    with lone_rank(strategy="fsdp") as fabric:
        module = net()
        fully_shard(module[0], mesh=init_device_mesh("cpu", (1,)))
        fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
        assert sharded(fabric.setup_module(module).module) == ["", "0"]


def test_the_old_fsdp_is_refused_by_its_name():
    class FullyShardedDataParallel(nn.Module): ...

    module = net()
    module.append(FullyShardedDataParallel())
    with lone_rank(strategy="fsdp") as fabric, pytest.raises(ConfigTypeError, match=r"^3 is wrapped in torch's old FullySharded"):
        fabric.setup_module(module)


def test_meta_parameters_need_a_way_to_get_values():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x * self.scale

    def make():
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(4, 4), Bare())

    message = r"^1 \(Bare\) has parameters on the meta device but no reset_parameters"
    with lone_rank(strategy="fsdp") as fabric, pytest.raises(ConfigError, match=message):
        fabric.setup_module(make())
    with lone_rank(strategy=FSDPStrategy(param_init_fn=lambda module: [nn.init.constant_(p, 2.0) for p in module.parameters()])) as fabric:
        assert fabric.setup_module(make()).module[1].scale.full_tensor().tolist() == [2.0] * 4
    with lone_rank(strategy="fsdp") as fabric:
        with fabric.init_module(empty_init=True):
            module = nn.Sequential(nn.Linear(4, 4), Bare())
        assert module[0].weight.is_meta
        fabric.setup_module(module)  # a load must fill it
        assert not module[1].scale.is_meta


def test_optimizers_point_at_the_shards_and_must_be_fresh():
    with lone_rank(strategy="fsdp") as fabric:
        module = net()
        optimizer = sgd(module)
        model, wrapped = fabric.setup(module, optimizer)
        assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in model.parameters()}
        before = module[2].weight.full_tensor().clone()
        fabric.backward(model(torch.ones(1, 4)).sum())
        wrapped.step()
        assert not torch.equal(before, module[2].weight.full_tensor())
        used = net()
        momentum = torch.optim.SGD(used.parameters(), lr=0.1, momentum=0.9)
        used(torch.ones(1, 4)).sum().backward()
        momentum.step()
        with pytest.raises(StateError, match=r"SGD has stepped before it was set up.*load the state with fabric.load"):
            fabric.setup(used, momentum)


def test_ignored_parameters_stay_whole():
    module = net()
    with lone_rank(strategy=FSDPStrategy(ignored_modules=[module[2]], ignored_states=[module[0].layer.bias])) as fabric:
        fabric.setup_module(module)
        assert [name for name, p in module.named_parameters() if not hasattr(p, "full_tensor")] == ["0.layer.bias", "2.weight", "2.bias"]


def test_gradient_sync_needs_a_sharded_module_and_comes_back():
    with lone_rank(strategy="fsdp") as fabric:
        model, _ = fabric.setup(module := net(), sgd(module))
        synchronised = []
        with contextlib.suppress(KeyError), fabric.no_backward_sync(model):
            synchronised.append(module._get_fsdp_state()._fsdp_param_group.reduce_grads)
            raise KeyError
        synchronised.append(module._get_fsdp_state()._fsdp_param_group.reduce_grads)
        assert synchronised == [False, True]
        with pytest.raises(ConfigTypeError, match="Blocking gradient synchronization is only possible"):
            fabric.strategy.no_backward_sync(net())


def test_recomputing_nothing_is_refused_with_the_classes_there_are():
    message = r"matches no submodule of Sequential. Its classes are: Block, Linear, Sequential"
    with lone_rank(strategy=FSDPStrategy(activation_checkpointing=[nn.Conv1d])) as fabric, pytest.raises(ConfigError, match=message):
        fabric.setup_module(net())


def test_recomputed_blocks_run_twice_and_keep_their_names():
    runs = []
    with lone_rank(strategy=FSDPStrategy(activation_checkpointing=[Block])) as fabric:
        module = net()
        names = list(module.state_dict())
        module[0].layer.register_forward_pre_hook(lambda *arguments: runs.append("forward"))
        model, _ = fabric.setup(module, sgd(module))
        fabric.backward(model(torch.ones(1, 4)).sum())
        assert runs == ["forward", "forward"]
        assert list(model.state_dict()) == names


def test_the_full_state_dict_type_saves_a_file(tmp_path):
    for kind, is_file in (("full", True), ("sharded", False)):
        with lone_rank(strategy=FSDPStrategy(state_dict_type=kind)) as fabric:
            fabric.save(tmp_path / kind, {"model": fabric.setup_module(net())})
            assert (tmp_path / kind).is_file() is is_file


def test_a_mesh_of_other_size_names_both_numbers():
    strategy = FSDPStrategy(device_mesh=(1, 2), sharding_strategy="HYBRID_SHARD")
    with (
        lone_rank(strategy=strategy) as fabric,
        pytest.raises(ConfigError, match=r"device_mesh=\(1, 2\) covers 2 ranks, but this run has 1"),
    ):
        fabric.mesh  # noqa: B018 - the access is the test
