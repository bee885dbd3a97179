import pytest
import torch
from jsonargparse import Namespace
from torch import nn

from leyden.core.errors import ConfigError
from leyden.trainer import LightningModule
from leyden.trainer.cli.automatic import automatic, check_at_most_one, init_of, take_over
from leyden.trainer.cli.lightning_cli import LightningCLI
from tests.support.command_line import SmallNet, SmallNetWithoutOptimizer

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}
STEP = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}}
PLATEAU = {"class_path": "leyden.trainer.cli.ReduceLROnPlateau", "init_args": {"monitor": "val/loss"}}


def configured(module, scheduler=None):
    take_over(module, LightningCLI.configure_optimizers, SGD, scheduler, "LightningCLI")
    return module.configure_optimizers()


def test_an_optimizer_alone_is_returned_as_it_is():
    optimizer = configured(SmallNetWithoutOptimizer())
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.5


def test_a_scheduler_stands_beside_its_optimizer():
    (optimizer,), (scheduler,) = configured(SmallNetWithoutOptimizer(), STEP)
    assert scheduler.optimizer is optimizer


def test_a_plateau_scheduler_brings_its_metric():
    found = configured(SmallNetWithoutOptimizer(), PLATEAU)
    assert found["lr_scheduler"]["monitor"] == "val/loss"


def test_a_method_that_is_overridden_is_named_in_a_warning():
    with pytest.warns(UserWarning, match=r"`SmallNet.configure_optimizers` will be overridden by `LightningCLI.configure_optimizers`"):
        configured(SmallNet())


def test_parameters_may_come_after_the_configuration():
    class Late(LightningModule):
        def configure_model(self):
            self.layer = nn.Linear(2, 2)

    module = Late()
    take_over(module, LightningCLI.configure_optimizers, SGD, None, "LightningCLI")
    module.configure_model()
    assert len(module.configure_optimizers().param_groups[0]["params"]) == 2


def test_two_automatic_optimizers_are_refused():
    makers = {"a": (torch.optim.SGD, "AUTOMATIC"), "b": (torch.optim.Adam, "AUTOMATIC"), "c": (torch.optim.Adam, "model.c")}
    assert automatic(makers) == ["a", "b"]
    with pytest.raises(ConfigError, match="at most one optimizer and one lr_scheduler"):
        check_at_most_one(automatic(makers), [])


def test_what_was_not_chosen_builds_nothing():
    assert init_of((torch.optim.Optimizer,), None) is None
    assert init_of((torch.optim.Optimizer,), Namespace(class_path="torch.optim.SGD"))["class_path"] == "torch.optim.SGD"
    assert init_of(torch.optim.SGD, Namespace(lr=0.5)) == {"class_path": "torch.optim.sgd.SGD", "init_args": {"lr": 0.5}}
