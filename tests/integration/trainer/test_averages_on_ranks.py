"""Averages of sharded weights, on real gloo ranks: bit for bit those of whole ones, also across a checkpoint."""

import os
from typing import Any

import pytest
import torch
from torch import nn

from leyden.fabric import Fabric
from leyden.trainer.callbacks import EMAWeightAveraging
from leyden.trainer.callbacks.averaged_tensors import load_live
from tests.support.module_trainer import FakeModule, ModuleTrainer
from tests.support.ranks import run_ranks
from tests.support.training_state import assert_same_tree


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1, bias=False))  # of two ranks, one has no part of the last


def batches(count: int, first: int = 0) -> list[torch.Tensor]:
    """The same ones on all ranks, so that sharded and whole training agree."""
    return [torch.randn(8, 4, generator=torch.Generator().manual_seed(first + number)) for number in range(count)]


def begun(strategy: Any, *, device: str | None = None, start: bool = True) -> tuple[ModuleTrainer, FakeModule]:
    module = FakeModule(layers())
    if strategy is None:
        trainer = ModuleTrainer(callbacks=[EMAWeightAveraging(decay=0.8, device=device)])
    else:
        fabric = Fabric(accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy=strategy)
        fabric.launch()
        fabric.strategy.setup_module(module)
        trainer = ModuleTrainer(callbacks=[EMAWeightAveraging(decay=0.8, device=device)], strategy=fabric.strategy)
    trainer.optimizers = [torch.optim.SGD(module.parameters(), lr=0.125)]
    if start:
        trainer.start(module)
    return trainer, module


def whole(tree: Any) -> dict[str, torch.Tensor]:
    """Return whole copies of a state dict, or of what a module holds whose state goes into a checkpoint in shards."""
    tree = tree.state_dict() if isinstance(tree, torch.nn.Module) else tree
    return {name: (value.full_tensor() if hasattr(value, "full_tensor") else value).clone() for name, value in tree.items()}


def sharded_run(device: str | None) -> list[dict[str, torch.Tensor]]:
    return run(*begun("fsdp", device=device))


def run(trainer: ModuleTrainer, module: FakeModule) -> list[dict[str, torch.Tensor]]:
    """Train, validate, save, train, end; return the module's values at each of these moments."""
    seen = []
    trainer.epoch(module, batches(4))
    trainer.fire("on_validation_epoch_start", module)
    seen.append(whole(module.state_dict()))
    with torch.no_grad():
        module.eval()(batches(1)[0])  # a forward without a backward: the root keeps its parameters whole
        module.train()
    trainer.fire("on_validation_epoch_end", module)
    seen.append(whole(module.state_dict()))
    trainer.epoch(module, batches(3, first=4))
    checkpoint = {"state_dict": module.state_dict()}
    trainer.fire("on_save_checkpoint", module, checkpoint)
    seen += [whole(checkpoint["state_dict"]), whole(checkpoint["current_model_state"])]
    trainer.end(module)
    return [*seen, whole(module.state_dict())]


@pytest.mark.parametrize("device", [None, "cpu"])
def test_sharded_averages_are_those_of_whole_weights(device: str | None) -> None:
    expected = run(*begun(None))
    for rank in run_ranks(sharded_run, 2, args=[device]):
        for mine, other in zip(rank, expected, strict=True):
            for name, value in other.items():
                torch.testing.assert_close(mine[name], value, msg=name)
    assert not torch.equal(expected[0]["net.0.weight"], expected[1]["net.0.weight"])


def resumed() -> None:
    trainer, module = begun("fsdp")
    trainer.epoch(module, batches(4))
    checkpoint = {"state_dict": module.state_dict()}
    trainer.fire("on_save_checkpoint", module, checkpoint)
    stored = {key: whole(checkpoint[key]) for key in ("state_dict", "current_model_state")}
    stored["averaging_state"] = checkpoint["averaging_state"]
    state = trainer.callbacks[0].state_dict()
    trainer.epoch(module, batches(3, first=4))
    trainer.end(module)

    other_trainer, other = begun("fsdp", start=False)
    (ema,) = other_trainer.callbacks
    other_trainer.fire("setup", other, "fit")
    load_live(other, other.state_dict(), stored["state_dict"])  # as the trainer does it
    ema.on_load_checkpoint(other_trainer, other, stored)
    ema.load_state_dict(state)
    other_trainer.run.clock.step, other_trainer.run.clock.epoch = 4, 1
    other_trainer.fire("on_fit_start", other)
    other_trainer.fire("on_train_start", other)
    assert_same_tree(whole(other.state_dict()), stored["current_model_state"])
    other_trainer.epoch(other, batches(3, first=4))
    other_trainer.end(other)
    assert_same_tree(whole(other.state_dict()), whole(module.state_dict()))


def test_a_sharded_run_resumes_exactly_from_whole_tensors() -> None:
    run_ranks(resumed, 2)
