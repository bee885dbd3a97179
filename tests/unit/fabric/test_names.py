"""What a module's class is called in errors."""

import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.names import class_name
from tests.support.lone_rank import lone_rank


class Net(nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class FSDPLike(Net):
    """A user's own name and base."""


class Mixed(FSDPLike, nn.Sequential):
    """A user's own class of two bases."""


def test_a_class_of_the_users_keeps_its_name() -> None:
    assert [class_name(module) for module in (Net(), FSDPLike(), Mixed(), nn.ReLU())] == ["Net", "FSDPLike", "Mixed", "ReLU"]


def test_a_compiled_module_is_called_what_it_was() -> None:
    assert class_name(torch.compile(Net(), backend="eager")) == "Net"


def test_errors_under_fsdp_name_the_users_class(tmp_path: object) -> None:
    with lone_rank(strategy="fsdp") as fabric:
        model = fabric.setup_module(Net())
        assert type(model.module).__name__ == "FSDPNet"
        assert class_name(model.module) == "Net"
        with pytest.raises(StateError, match=r"the method `Net\.score\(\)`"):
            model.score(torch.ones(1, 2))
        with pytest.raises(AttributeError, match=r"but Net\.sum does not exist"):
            model.mark_forward_method("sum")
        fabric.save(f"{tmp_path}/saved", {"model": model})
        with pytest.raises(ConfigError, match=r"^Net \(state\['model'\]\) does not fit"):
            fabric.load(f"{tmp_path}/saved", {"model": fabric.setup_module(Net(width=3))})
