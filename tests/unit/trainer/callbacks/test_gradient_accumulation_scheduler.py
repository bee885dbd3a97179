from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError
from leyden.fabric.strategies.single import SingleDeviceStrategy
from leyden.trainer.callbacks import GradientAccumulationScheduler
from tests.support.module_trainer import FakeModule, ModuleTrainer


def test_the_factor_of_the_latest_entry_holds() -> None:
    scheduler = GradientAccumulationScheduler({4: 2, 1: 3})
    assert [scheduler.get_accumulate_grad_batches(epoch) for epoch in range(6)] == [1, 3, 3, 3, 2, 2]


@pytest.mark.parametrize(("scheduling", "accumulates"), [({0: 1, 3: 1}, False), ({5: 2}, True)], ids=str)
def test_it_tells_whether_it_accumulates_at_all(scheduling: dict[int, int], accumulates: bool) -> None:
    assert GradientAccumulationScheduler(scheduling).going_to_accumulate_grad_batches() is accumulates


@pytest.mark.parametrize("scheduling", [{}, None, [1]], ids=str)
def test_what_is_no_schedule_is_refused(scheduling: Any) -> None:
    with pytest.raises(ConfigTypeError, match="expected a dictionary"):
        GradientAccumulationScheduler(scheduling)


@pytest.mark.parametrize("epoch", [-1, 1.5, "2", True], ids=str)
def test_an_epoch_that_is_no_count_is_refused(epoch: Any) -> None:
    with pytest.raises(ConfigError, match="Epoch should be an int"):
        GradientAccumulationScheduler({epoch: 2})


@pytest.mark.parametrize("factor", [0, 2.0, None], ids=str)
def test_a_factor_that_is_no_count_is_refused(factor: Any) -> None:
    with pytest.raises(ConfigError, match="Accumulation factor should be an int"):
        GradientAccumulationScheduler({0: factor})


def started(scheduler: GradientAccumulationScheduler, **options: Any) -> ModuleTrainer:
    trainer = ModuleTrainer(callbacks=[scheduler], **options)
    trainer.start(FakeModule())
    return trainer


def test_each_epoch_gets_its_factor() -> None:
    trainer = started(GradientAccumulationScheduler({1: 2, 2: 4}))
    steps = []
    for _ in range(3):
        before = trainer.global_step
        trainer.epoch(trainer.lightning_module, [torch.ones(1, 4)] * 4)
        steps.append(trainer.global_step - before)
    assert steps == [4, 2, 1]


def test_a_run_resumed_within_an_epoch_has_its_factor_from_the_start() -> None:
    trainer = ModuleTrainer(callbacks=[GradientAccumulationScheduler({0: 1, 2: 4})])
    trainer.run.clock.epoch = 2
    trainer.start(FakeModule())
    assert trainer.accumulate_grad_batches == 4


def test_a_second_fit_with_the_same_trainer_is_no_conflict() -> None:
    trainer = started(GradientAccumulationScheduler({0: 8}))
    trainer.start(FakeModule())
    assert trainer.accumulate_grad_batches == 8


def test_another_factor_of_the_trainer_is_refused() -> None:
    with pytest.raises(ConfigError, match="You have set `accumulate_grad_batches`=3"):
        started(GradientAccumulationScheduler({0: 8}), accumulate_grad_batches=3)


def test_manual_optimisation_is_refused() -> None:
    with pytest.raises(ConfigError, match="not supported for manual optimization"):
        ModuleTrainer(callbacks=[GradientAccumulationScheduler({0: 2})]).start(FakeModule(automatic_optimization=False))


def test_a_strategy_that_owns_the_backward_is_refused() -> None:
    class Engine(SingleDeviceStrategy):
        owns_backward = True

    with pytest.raises(UnsupportedError, match="Engine does not support `accumulate_grad_batches` changing"):
        started(GradientAccumulationScheduler({0: 2}), strategy=Engine("cpu"))
