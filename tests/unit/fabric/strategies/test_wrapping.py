import functools

import pytest
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.strategies.activation_checkpointing import checkpoint_activations
from leyden.fabric.strategies.sharding import merge_units, own_modules
from leyden.fabric.strategies.wrapping import units


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.two(self.one(x))


def model():
    return nn.ModuleDict({"embed": nn.Embedding(4, 4), "blocks": nn.Sequential(Block(), Block()), "head": nn.Linear(4, 4)})


def test_auto_takes_repeated_blocks():
    net = model()
    assert units(net, "auto") == list(net["blocks"])


def test_none_takes_the_root_alone():
    assert units(model(), None) == []


def test_classes_are_found_at_any_depth_innermost_first():
    net = model()
    assert [type(unit).__name__ for unit in units(net, {Block, nn.Linear})] == [
        "Linear",
        "Linear",
        "Block",
        "Linear",
        "Linear",
        "Block",
        "Linear",
    ]


def test_a_function_is_asked_bottom_up_with_what_is_not_wrapped_yet():
    net = model()
    seen = []

    def policy(module, recurse, num_params):
        if not recurse:
            seen.append((type(module).__name__, num_params))
        return recurse or isinstance(module, Block)

    assert units(net, policy) == list(net["blocks"])
    assert ("Block", 40) in seen
    assert ("Sequential", 0) in seen


def test_a_torch_policy_is_taken():
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy, size_based_auto_wrap_policy

    net = model()
    assert units(net, ModuleWrapPolicy({Block})) == list(net["blocks"])
    assert units(net, functools.partial(size_based_auto_wrap_policy, min_num_params=30))


def test_another_policy_is_refused():
    with pytest.raises(ConfigTypeError, match="a set of module classes"):
        units(model(), 3)


def test_units_that_share_a_parameter_dissolve_into_the_root():
    net = model()
    net["blocks"][0].one.weight = net["head"].weight
    assert merge_units(net, list(net["blocks"])) == [net["blocks"][1]]


def test_a_unit_owns_what_no_inner_unit_owns():
    net = model()
    names = [name for name, _ in own_modules(net, list(net["blocks"]))]
    assert names == ["", "embed", "blocks", "head"]


def test_checkpointed_blocks_keep_names_and_gradients():
    import torch

    net = model()["blocks"]
    names, x = list(net.state_dict()), torch.ones(1, 4)
    net(x).sum().backward()
    before = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    checkpoint_activations(net, {Block})
    net(x).sum().backward()
    assert list(net.state_dict()) == names
    assert all(torch.equal(a, b.grad) for a, b in zip(before, net.parameters(), strict=True))


def test_a_policy_that_matches_nothing_lists_the_classes():
    with pytest.raises(ConfigError, match=r"Its classes are: Block, Linear, Sequential"):
        checkpoint_activations(model()["blocks"], {nn.Conv2d})
