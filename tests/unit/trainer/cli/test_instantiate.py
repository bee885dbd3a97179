import pytest
import torch
from torch import nn

from leyden.core.errors import ConfigError
from leyden.trainer import LightningModule
from leyden.trainer.cli import instantiate_class, instantiate_module
from leyden.trainer.cli.instantiate import INSTANTIATE_MODULE, keeping
from tests.support.command_line import SmallNet

PATH = f"{SmallNet.__module__}.SmallNet"


def test_an_optimizer_is_built_of_its_configuration():
    layer = nn.Linear(2, 2)
    optimizer = instantiate_class(layer.parameters(), {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}})
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.5


def test_several_positional_arguments_come_as_a_tuple():
    assert instantiate_class((2, 3), {"class_path": "torch.nn.Linear"}).weight.shape == (3, 2)


@pytest.mark.parametrize("path", ["torch.optim.NoSuch", "no_such_package.Class", "SGD"])
def test_an_unknown_class_is_refused(path):
    with pytest.raises(ConfigError, match="names no class"):
        instantiate_class((), {"class_path": path})


def test_a_configuration_without_a_class_is_refused():
    with pytest.raises(ConfigError, match='has the keys "class_path"'):
        instantiate_class((), {"lr": 0.5})


@pytest.mark.parametrize(
    "kept",
    [
        {"width": 6, "act": {"class_path": "torch.nn.Tanh"}},
        {"_class_path": PATH, "width": 6, "act": {"class_path": "torch.nn.Tanh"}},
        {"class_path": PATH, "init_args": {"width": 6, "act": {"class_path": "torch.nn.Tanh"}}},
    ],
    ids=["arguments", "with a class", "as a configuration"],
)
def test_a_module_is_built_of_what_a_checkpoint_keeps(kept):
    module = instantiate_module(
        SmallNet if "width" in kept and "_class_path" not in kept else LightningModule, {"_instantiator": "x", **kept}
    )
    assert type(module) is SmallNet
    assert module.width == 6
    assert isinstance(module.act, nn.Tanh)
    assert module.hparams["act"]["class_path"] == "torch.nn.Tanh"
    assert module.hparams["_instantiator"] == INSTANTIATE_MODULE


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="do not fit SmallNet"):
        instantiate_module(SmallNet, {"depth": 3})


def test_what_a_module_builds_itself_keeps_its_own_arguments():
    class Outer(LightningModule):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.inner = SmallNet(width=2)

    outer = keeping({"depth": 3}, Outer)(Outer, depth=3, applied_instantiation_links={})
    assert outer.hparams["_instantiator"] == INSTANTIATE_MODULE
    assert outer.inner.hparams["width"] == 2
    assert "_instantiator" not in outer.inner.hparams
