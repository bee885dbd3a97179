import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.compilation import CompilePolicy, as_policy, repeated_blocks, take_apart


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


def stack(depth=3):
    return nn.Sequential(nn.Linear(2, 2), *[Block() for _ in range(depth)], nn.ReLU())


def test_blocks_are_the_outermost_repeated_children():
    model = stack()
    assert [type(block) for block in repeated_blocks(model)] == [Block] * 3


def test_a_lone_child_is_no_block():
    assert repeated_blocks(nn.Sequential(Block(), nn.ReLU(), nn.ReLU())) != []  # the two layers inside it
    assert repeated_blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU())) == []


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at it itself
def test_compiling_blocks_keeps_every_name():
    model = stack()
    names = list(model.state_dict())
    CompilePolicy("blocks", backend="eager").compile_blocks(model)
    assert list(model.state_dict()) == names
    assert model(torch.ones(1, 2)).shape == (1, 2)


def test_compiling_blocks_without_blocks_is_refused():
    with pytest.raises(ConfigError, match="has no repeated block"):
        CompilePolicy("blocks").compile_blocks(nn.Linear(2, 2))


def test_an_unknown_scope_names_the_closest():
    with pytest.raises(ConfigError, match="Did you mean 'blocks'"):
        as_policy("block")
    with pytest.raises(ConfigTypeError, match="accepted are None"):
        as_policy(True)


def test_a_compiled_module_is_taken_apart_and_put_together_the_same_way():
    model = nn.Linear(2, 2)
    compiled = torch.compile(model, backend="eager")
    inner, again = take_apart(compiled)
    assert inner is model
    other = again(nn.Linear(2, 2))
    assert type(other) is type(compiled)
    assert take_apart(model) == (model, None)
