import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from leyden.core.errors import ConfigError, StateError
from leyden.trainer.callbacks import BackboneFinetuning, BaseFinetuning
from tests.support.module_trainer import FakeModule, ModuleTrainer
from tests.support.training_state import assert_same_tree


class Net(FakeModule):
    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.backbone(x))


def fitted(callback: BaseFinetuning, *, make: Any = lambda p: SGD(p, lr=0.4), seed: int = 0) -> tuple[ModuleTrainer, Net]:
    """Return a trainer and a module whose optimizer was made after the callback's setup, as the trainer does."""
    torch.manual_seed(seed)
    module, trainer = Net(), ModuleTrainer(callbacks=[callback])
    callback.setup(trainer, module, "fit")
    trainer.optimizers = [make([p for p in module.parameters() if p.requires_grad])]
    return trainer, module


def train(trainer: ModuleTrainer, module: Net, epochs: int) -> None:
    for _ in range(epochs):
        generator = torch.Generator().manual_seed(trainer.current_epoch)
        trainer.epoch(module, [torch.randn(8, 4, generator=generator) for _ in range(3)])


def begun(trainer: ModuleTrainer, module: Net) -> None:
    trainer.fire("on_fit_start", module)
    trainer.fire("on_train_start", module)


# -- the tools -----------------------------------------------------------------------------------------------------


def test_freezing_leaves_batch_norms_training_where_asked() -> None:
    net = Net()
    BaseFinetuning.freeze(net.backbone, train_bn=True)
    assert [p.requires_grad for p in net.backbone.parameters()] == [False, False, True, True]
    BaseFinetuning.freeze(net.backbone, train_bn=False)
    assert not any(p.requires_grad for p in net.backbone.parameters())
    assert net.backbone[1].track_running_stats is False


def test_making_trainable_undoes_it() -> None:
    net = Net()
    BaseFinetuning.freeze(net, train_bn=False)
    BaseFinetuning.make_trainable([net.backbone, [net.head]])
    assert all(p.requires_grad for p in net.parameters())
    assert net.backbone[1].track_running_stats is True


def test_parameters_of_parents_are_found_once() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.inner = nn.Linear(2, 2)

    scaled = Scaled()
    assert BaseFinetuning.flatten_modules([scaled, scaled.inner]) == [scaled, scaled.inner]
    assert len(list(BaseFinetuning.filter_params([scaled, scaled.inner]))) == 3


def test_filtering_by_what_trains_and_by_batch_norm() -> None:
    net = Net()
    BaseFinetuning.freeze(net.backbone[0])
    count = lambda **options: len(list(BaseFinetuning.filter_params(net.backbone, **options)))  # noqa: E731 - said once, used in each line below
    assert (count(), count(train_bn=False), count(requires_grad=False), count(train_bn=False, requires_grad=False)) == (2, 0, 2, 2)


def test_parameters_that_the_optimizer_has_are_left_there_with_a_warning() -> None:
    net = Net()
    optimizer = SGD(net.head.parameters(), lr=0.1)
    BaseFinetuning.freeze(net)
    with pytest.warns(UserWarning, match="2 of the parameters to add are in a group of this SGD already"):
        BaseFinetuning.unfreeze_and_add_param_group(net, optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 4]


def test_parameters_that_never_stopped_training_are_nothing_to_warn_of() -> None:
    net = Net()
    BaseFinetuning.freeze(net.backbone, train_bn=True)
    optimizer = SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    BaseFinetuning.unfreeze_and_add_param_group(net, optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 2]


@pytest.mark.parametrize(("lr", "expected"), [(None, 0.04), (0.3, 0.3)])
def test_a_new_group_gets_a_tenth_of_the_first_ones_rate_or_the_given_one(lr: float | None, expected: float) -> None:
    net = Net()
    optimizer = SGD(net.head.parameters(), lr=0.4)
    BaseFinetuning.unfreeze_and_add_param_group(net.backbone, optimizer, lr=lr, train_bn=False)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(expected)
    assert len(optimizer.param_groups[1]["params"]) == 2


# -- the callbacks -------------------------------------------------------------------------------------------------


def test_the_backbone_trains_from_its_epoch_on_with_a_growing_rate() -> None:
    trainer, module = fitted(BackboneFinetuning(unfreeze_backbone_at_epoch=2, lambda_func=lambda epoch: 3.0, train_bn=False))
    begun(trainer, module)
    rates, changed = [], []
    for _ in range(6):
        before = module.backbone[0].weight.clone()
        train(trainer, module, 1)
        rates.append([round(group["lr"], 6) for group in trainer.optimizers[0].param_groups])
        changed.append(not torch.equal(before, module.backbone[0].weight))
    assert changed == [False, False, True, True, True, True]
    assert rates == [[0.4], [0.4], [0.4, 0.04], [0.4, 0.12], [0.4, 0.36], [0.4, 0.4]]


def test_without_alignment_the_rate_grows_on() -> None:
    trainer, module = fitted(BackboneFinetuning(0, backbone_initial_lr=0.3, should_align=False))
    begun(trainer, module)
    train(trainer, module, 3)
    assert trainer.optimizers[0].param_groups[-1]["lr"] == pytest.approx(1.2)


def test_verbose_tells_both_rates(caplog: pytest.LogCaptureFixture) -> None:
    trainer, module = fitted(BackboneFinetuning(0, verbose=True, rounding=3))
    begun(trainer, module)
    with caplog.at_level(logging.INFO, "leyden.trainer.callbacks.finetuning"):
        train(trainer, module, 1)
    assert "epoch 0: 0.4, backbone 0.04" in caplog.text


def test_a_module_without_a_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"should have a nn.Module `backbone` attribute"):
        BackboneFinetuning().setup(ModuleTrainer(), FakeModule(), "fit")


def test_nothing_is_frozen_for_other_stages() -> None:
    module = Net()
    BackboneFinetuning().setup(ModuleTrainer(), module, "test")
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_resumed_run_ends_where_the_unbroken_one_does(cut: int) -> None:
    def callback() -> BackboneFinetuning:
        return BackboneFinetuning(unfreeze_backbone_at_epoch=2, train_bn=False)

    adam = lambda params: Adam(params, lr=0.01)  # noqa: E731 - said once, used in each line below
    whole_trainer, whole = fitted(callback(), make=adam)
    begun(whole_trainer, whole)
    train(whole_trainer, whole, cut)
    checkpoint = whole_trainer.checkpoint(whole)
    train(whole_trainer, whole, 5 - cut)

    trainer, module = fitted(callback(), make=adam, seed=1)
    trainer.resume(module, checkpoint)
    train(trainer, module, 5 - cut)
    assert_same_tree(module.state_dict(), whole.state_dict())
    assert_same_tree(trainer.optimizers[0].state_dict(), whole_trainer.optimizers[0].state_dict())
    assert [p.requires_grad for p in module.parameters()] == [p.requires_grad for p in whole.parameters()]
    assert module.backbone[1].track_running_stats == whole.backbone[1].track_running_stats


def test_a_run_resumed_from_a_file_without_the_callback_unfreezes_late() -> None:
    trainer, module = fitted(BackboneFinetuning(unfreeze_backbone_at_epoch=2))
    trainer.run.clock.epoch = 3
    begun(trainer, module)
    train(trainer, module, 1)
    assert all(p.requires_grad for p in module.parameters())


def test_a_checkpoint_of_another_module_is_refused() -> None:
    trainer, module = fitted(BackboneFinetuning(0))
    begun(trainer, module)
    train(trainer, module, 1)
    state = trainer.callbacks[0].state_dict()
    state["internal_optimizer_metadata"][0][0]["params"][0] = "gone.weight"
    other_trainer, other = fitted(BackboneFinetuning(0))
    other_trainer.callbacks[0].load_state_dict(state)
    with pytest.raises(StateError, match=r"hold 'gone.weight', which Net does not have"):
        other_trainer.fire("on_fit_start", other)


@pytest.mark.parametrize("hook", ["freeze_before_training", "finetune_function"])
def test_what_is_not_defined_says_so(hook: str) -> None:
    arguments = (None,) if hook == "freeze_before_training" else (None, 0, None)
    with pytest.raises(StateError, match=f"lacks {hook}"):
        getattr(BaseFinetuning(), hook)(*arguments)
