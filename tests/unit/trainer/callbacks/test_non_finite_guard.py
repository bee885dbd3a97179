import math
from typing import Any

import pytest
import torch
from torch import Tensor

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.trainer.callbacks import NonFiniteGuard
from leyden.trainer.callbacks.non_finite_guard import NonFiniteError
from tests.support.module_trainer import FakeModule, ModuleTrainer


def trainer_with(guard: NonFiniteGuard, **options: Any) -> ModuleTrainer:
    module = FakeModule()
    trainer = ModuleTrainer(callbacks=[guard], optimizers=[torch.optim.SGD(module.parameters(), lr=0.0)], **options)
    trainer.start(module)
    return trainer


def losses(module: Any, value: float) -> Tensor:
    return module(torch.ones(1, 4)).sum() * 0 + value


def steep_losses(module: Any, slope: float) -> Tensor:
    return module(torch.ones(1, 4)).sum() * slope


def test_a_bad_loss_raises_with_the_next_row_and_names_its_batch() -> None:
    trainer = trainer_with(NonFiniteGuard(), log_every_n_steps=4)
    trainer.epoch(trainer.lightning_module, [1.0] * 4, losses)
    with pytest.raises(NonFiniteError, match=r"the loss was NaN or infinite in 2 of the last 4 times, first in training batch 5 "):
        trainer.epoch(trainer.lightning_module, [1.0, math.inf, math.nan, 1.0], losses)
    assert trainer.run.clock.batches == 7  # in the last hook of that batch, not before


def test_without_rows_the_end_of_the_epoch_raises() -> None:
    trainer = trainer_with(NonFiniteGuard(), log_every_n_steps=0)
    with pytest.raises(NonFiniteError, match="first in training batch 0"):
        trainer.epoch(trainer.lightning_module, [math.nan, 1.0], losses)
    assert trainer.run.clock.batches == 2


def test_finite_losses_pass() -> None:
    trainer = trainer_with(NonFiniteGuard(), log_every_n_steps=2)
    trainer.epoch(trainer.lightning_module, [1.0] * 5, losses)


def test_gradients_are_looked_at_before_the_step() -> None:
    trainer = trainer_with(NonFiniteGuard(check="grads"), log_every_n_steps=1)
    trainer.epoch(trainer.lightning_module, [1.0], steep_losses)
    with pytest.raises(NonFiniteError, match="the norm of the gradients"):
        trainer.epoch(trainer.lightning_module, [math.inf], steep_losses)


def test_what_is_not_yet_reported_travels_with_the_checkpoint() -> None:
    guard, other = NonFiniteGuard(), NonFiniteGuard()
    trainer = trainer_with(guard)
    guard.on_before_backward(trainer, None, torch.tensor(1.0))
    guard.on_before_backward(trainer, None, torch.tensor(math.nan))
    other.load_state_dict(guard.state_dict())
    with pytest.raises(NonFiniteError, match="in 1 of the last 2 times, first in training batch 0"):
        other.on_train_epoch_end(trainer, None)


def test_a_good_run_has_no_state() -> None:
    guard = NonFiniteGuard()
    guard.on_before_backward(trainer_with(guard), None, torch.tensor(1.0))
    assert guard.state_dict() == {}


def test_gradients_under_a_scaler_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="its scaler"):
        trainer_with(NonFiniteGuard(check="grads"), scaler=object(), precision="16-mixed")


@pytest.mark.parametrize("options", [{"action": "stop"}, {"check": "weights"}], ids=str)
def test_unknown_words_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="accepted is"):
        NonFiniteGuard(**options)
