"""Parameters that join in later, on real gloo ranks: their gradients are averaged like everybody's."""

import os
from typing import Any

import pytest
import torch
from torch import nn

from leyden.fabric import Fabric
from leyden.fabric.wrappers import FabricModule
from leyden.trainer.callbacks import BackboneFinetuning
from tests.support.module_trainer import FakeModule, ModuleTrainer
from tests.support.ranks import run_ranks


class Net(FakeModule):
    def __init__(self) -> None:
        super().__init__(nn.Identity())
        torch.manual_seed(0)
        self.backbone, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.backbone(x))


def data(rank: int) -> list[torch.Tensor]:
    return [torch.randn(8, 4, generator=torch.Generator().manual_seed(10 * rank + number)) for number in range(3)]


def unfrozen(strategy: str, accumulate: int) -> dict[str, torch.Tensor]:
    fabric = Fabric(accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy=strategy)
    fabric.launch()
    module = Net()
    trainer = ModuleTrainer(callbacks=[BackboneFinetuning(1)], strategy=fabric.strategy, accumulate_grad_batches=accumulate)
    trainer.fire("setup", module, "fit")
    model = FabricModule(fabric.strategy.setup_module(module), fabric.strategy, original_module=module)
    trainer.optimizers = [torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)]
    trainer.fire("on_fit_start", module)
    for _ in range(3):
        trainer.epoch(module, data(fabric.global_rank), lambda _, batch: model(batch).square().mean() / accumulate)
    return {name: (value.full_tensor() if hasattr(value, "full_tensor") else value).clone() for name, value in module.state_dict().items()}


def alone(accumulate: int) -> dict[str, torch.Tensor]:
    """What one process does with the batches of both."""
    module = Net()
    trainer = ModuleTrainer(callbacks=[BackboneFinetuning(1)], accumulate_grad_batches=accumulate)
    trainer.fire("setup", module, "fit")
    trainer.optimizers = [torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)]
    trainer.fire("on_fit_start", module)
    both = [torch.cat(pair) for pair in zip(data(0), data(1), strict=True)]
    for _ in range(3):
        trainer.epoch(module, both, lambda module, batch: module(batch).square().mean() / accumulate)
    return module.state_dict()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_unfreeze_to_the_same_weights_as_one_process(strategy: str, accumulate: int) -> None:
    expected = alone(accumulate)
    assert not torch.equal(expected["backbone.weight"], Net().backbone.weight)
    for rank in run_ranks(unfrozen, 2, args=[strategy, accumulate]):
        for name, value in expected.items():
            torch.testing.assert_close(rank[name], value, msg=lambda text, name=name: f"{name}: {text}")
