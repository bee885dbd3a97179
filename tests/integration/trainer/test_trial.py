"""A trial runs the loops beside the run and leaves no trace, however it ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError, StateError
from leyden.fabric import rng
from leyden.trainer import Callback
from leyden.trainer.core.callback import Callback as Base
from leyden.trainer.loops.trial import TrialResult, trial
from tests.support.training_state import assert_same_tree
from tests.support.tunable import Tunable, TunableData, dataset, fresh, trainer_for

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Tries(Callback):
    """Makes a trial in a hook.

    Args:
        hook: The hook.
        options: What the trial is told.
    """

    def __init__(self, hook: str = "on_fit_start", **options: Any) -> None:
        self.options: dict[str, Any] = {"max_steps": 5, **options}
        self.results: list[TrialResult] = []
        setattr(self, hook, self.attempt)

    def attempt(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.results.append(trial(trainer, **self.options))


class Batches:
    """An iterable that is no loader."""

    def __iter__(self) -> Iterator[Any]:
        return iter([dataset(8)[:]] * 4)

    def __len__(self) -> int:
        return 4


class Watch(Base):
    """Writes down what a trial's trainer says."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert pl_module.trainer is trainer
        self.seen.append((trainer.global_step, pl_module.global_step, trainer.current_epoch, trainer.max_steps))


def everything(module: Tunable, trainer: Any) -> dict[str, Any]:
    """Return all that a fit leaves behind."""
    return {
        "weights": dict(module.state_dict()),
        "seen": module.seen,
        "optimizer": trainer.optimizers[0].state_dict(),
        "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "metrics": dict(trainer.callback_metrics),
        "random": rng.capture(),
        "step": trainer.global_step,
    }


def fitted(root: Path, *callbacks: Any, data: Any = None, **options: Any) -> dict[str, Any]:
    module = fresh()
    trainer = trainer_for(root, *callbacks, **options)
    trainer.fit(module, *(data or ()))
    return everything(module, trainer)


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_start", "on_train_epoch_start"])
def test_a_fit_with_trials_is_the_fit_without_them_bit_for_bit(tmp_path: Path, hook: str) -> None:
    tries = Tries(hook)
    assert_same_tree(fitted(tmp_path, tries), fitted(tmp_path))
    assert [result.steps for result in tries.results] == [5] * (2 if hook == "on_train_epoch_start" else 1)


def test_a_fit_in_which_every_trial_runs_out_of_memory_is_the_same_too(tmp_path: Path) -> None:
    class Fails(Base):
        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            if trainer.global_step == 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")

    class Survives(Tries):
        def attempt(self, *args: Any) -> None:
            with pytest.raises(torch.OutOfMemoryError):
                super().attempt(*args)

    assert_same_tree(fitted(tmp_path, Survives(callbacks=[Fails()])), fitted(tmp_path))


@pytest.mark.parametrize("kind", ["given", "generator", "batches", "accumulated"])
def test_loaders_stand_where_they_stood(tmp_path: Path, kind: str) -> None:
    def data() -> tuple[Any, ...]:
        if kind == "batches":
            return (Batches(),)
        generator = torch.Generator().manual_seed(9) if kind == "generator" else None
        return (DataLoader(dataset(), batch_size=8, shuffle=True, generator=generator),)

    options = {"accumulate_grad_batches": 3} if kind == "accumulated" else {}
    assert_same_tree(fitted(tmp_path, Tries(), data=data(), **options), fitted(tmp_path, data=data(), **options))


def test_an_iterator_that_can_be_read_once_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="read only once"):
        fitted(tmp_path, Tries(), data=(iter(Batches()),), max_steps=1)


def test_a_trial_has_a_position_and_limits_of_its_own(tmp_path: Path) -> None:
    watch = Watch()
    tries = Tries(max_steps=11, callbacks=[watch], limits={"train": 4, "val": 0})
    module, trainer = fresh(), trainer_for(tmp_path, tries, max_steps=1)
    trainer.fit(module)
    assert watch.seen == [(step, step, (step - 1) // 4, 11) for step in range(1, 12)]
    assert tries.results[0].steps == tries.results[0].batches == 11
    assert tries.results[0].num_samples == 64
    assert "val" not in tries.results[0].metrics
    assert trainer.global_step == 1
    assert module.trainer is trainer


def test_the_callbacks_and_loggers_of_the_run_hear_nothing(tmp_path: Path) -> None:
    class Heard(Base):
        steps = 0

        def on_train_batch_end(self, *args: Any) -> None:
            self.steps += 1

    heard = Heard()
    module, trainer = fresh(), trainer_for(tmp_path, Tries(max_steps=20), heard, max_steps=2, logger=None, log_every_n_steps=1)
    trainer.fit(module)
    assert heard.steps == 2
    assert trainer.log_dir is not None


def test_a_module_that_never_steps_is_tried_for_as_many_batches(tmp_path: Path) -> None:
    class Idle(Tunable):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.sizes.append(len(batch[0]))

    module, tries = Idle(), Tries(max_steps=10)
    trainer_for(tmp_path, tries, max_epochs=1, limit_val_batches=0).fit(module)
    assert (tries.results[0].steps, tries.results[0].batches) == (0, 10)
    assert len(module.sizes) == 10 + 8


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_module_that_skips_its_epochs_ends_a_trial(tmp_path: Path) -> None:
    class Skips(Tunable):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int:
            return -1

    tries = Tries(max_steps=3)
    trainer_for(tmp_path, tries, max_epochs=1).fit(Skips())
    assert tries.results[0].batches == 0


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_start", "on_before_backward"])
def test_a_trial_inside_a_batch_is_refused(tmp_path: Path, hook: str) -> None:
    with pytest.raises(StateError, match=rf"cannot run in {hook}.*on_train_epoch_start"):
        trainer_for(tmp_path, Tries(hook)).fit(fresh())


@pytest.mark.parametrize("fn", ["validate", "test", "predict"])
def test_evaluations_are_tried_too(tmp_path: Path, fn: str) -> None:
    hook = {"validate": "on_validation_start"}.get(fn, f"on_{fn}_start")
    stage = {"validate": "val"}.get(fn, fn)
    module, tries = fresh(), Tries(hook, limits={stage: 2})
    plain = getattr(trainer_for(tmp_path), fn)(module)
    before = dict(module.state_dict())
    module.sizes.clear()
    tried = getattr(trainer_for(tmp_path, tries), fn)(module)
    assert len(module.sizes) == 2 + 8
    assert_same_tree(tried, plain)
    assert_same_tree(dict(module.state_dict()), before)
    assert module.training


def test_gradients_of_before_are_there_afterwards(tmp_path: Path) -> None:
    class Keeps(Tries):
        def attempt(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            pl_module.net[0].bias.grad = gradient = torch.ones(16)
            super().attempt(trainer, pl_module)
            assert pl_module.net[0].bias.grad is gradient
            assert pl_module.net[0].weight.grad is None

    trainer_for(tmp_path, Keeps(), max_steps=1).fit(fresh())


def test_the_data_module_sees_the_trial_and_gets_its_state_back(tmp_path: Path) -> None:
    class Counts(TunableData):
        served = 0

        def train_dataloader(self) -> Any:
            self.served += 1
            return super().train_dataloader()

        def state_dict(self) -> dict[str, Any]:
            return {"served": self.served}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.served = state_dict["served"]

    data = Counts()
    trainer = trainer_for(tmp_path, Tries(), max_steps=1)
    trainer.fit(fresh(), datamodule=data)
    assert data.served == 1
    assert data.trainer is trainer
