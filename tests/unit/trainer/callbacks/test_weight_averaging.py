from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError
from leyden.fabric.strategies.single import SingleDeviceStrategy
from leyden.trainer.callbacks import EMAWeightAveraging, WeightAveraging
from tests.support.module_trainer import FakeModule, ModuleTrainer
from tests.support.training_state import assert_same_tree


class AtEpochs(WeightAveraging):
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= 1


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def fitted(callback: WeightAveraging, *, start: bool = True, seed: int = 0, **options: Any) -> tuple[ModuleTrainer, FakeModule]:
    torch.manual_seed(seed)
    module = FakeModule(layers())
    trainer = ModuleTrainer(callbacks=[callback], optimizers=[torch.optim.Adam(module.parameters(), lr=0.1)], **options)
    if start:
        trainer.start(module)
    return trainer, module


def train(trainer: ModuleTrainer, module: FakeModule, batches: int = 3) -> None:
    generator = torch.Generator().manual_seed(trainer.run.clock.batches)
    trainer.epoch(module, [torch.randn(8, 4, generator=generator) for _ in range(batches)])


def copied(module: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_equal_averages_are_torchs() -> None:
    trainer, module = fitted(WeightAveraging())
    theirs = AveragedModel(module, use_buffers=True)
    for _ in range(5):
        train(trainer, module, 1)
        theirs.update_parameters(module)
    trainer.end(module)
    for (name, mine), other in zip(module.state_dict().items(), theirs.module.state_dict().values(), strict=True):
        if mine.is_floating_point():
            torch.testing.assert_close(mine, other, msg=name)


def test_exponential_averages_are_torchs_and_counters_are_copied() -> None:
    trainer, module = fitted(EMAWeightAveraging(decay=0.7))
    theirs = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.7), use_buffers=False)
    for _ in range(5):
        train(trainer, module, 1)
        theirs.update_parameters(module)
    trainer.end(module)
    for mine, other in zip(module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    assert int(module.net[1].num_batches_tracked) == 5


@pytest.mark.parametrize("name", ["avg_fn", "multi_avg_fn"])
def test_a_function_of_ones_own_is_used(name: str) -> None:
    def latest(average: Any, value: Any, count: Any) -> Any:
        if isinstance(average, list):
            return torch._foreach_copy_(average, value)
        assert int(count) > 0
        return value

    trainer, module = fitted(WeightAveraging(**{name: latest}))
    train(trainer, module)
    live = copied(module)
    trainer.end(module)
    assert_same_tree(copied(module), live)


def test_validation_sees_the_average_and_training_goes_on_with_its_own_weights() -> None:
    trainer, module = fitted(WeightAveraging())
    train(trainer, module)
    live = copied(module)
    trainer.fire("on_validation_epoch_start", module)
    assert not torch.equal(module.net[0].weight, live["net.0.weight"])
    trainer.fire("on_validation_epoch_end", module)
    assert_same_tree(copied(module), live)


def test_before_the_first_update_validation_sees_the_weights_that_train() -> None:
    trainer, module = fitted(EMAWeightAveraging(update_starting_at_step=100))
    train(trainer, module)
    live = copied(module)
    trainer.fire("on_validation_epoch_start", module)
    assert_same_tree(copied(module), live)
    trainer.fire("on_validation_epoch_end", module)
    trainer.end(module)
    assert_same_tree(copied(module), live)


def test_other_entry_points_see_the_module_as_it_is() -> None:
    trainer, module = fitted(WeightAveraging())
    train(trainer, module)
    trainer.end(module)
    after = copied(module)
    trainer.state.fn = "validate"
    trainer.fire("setup", module, "validate")
    trainer.validation(module)
    assert_same_tree(copied(module), after)


def test_accumulating_batches_do_not_update() -> None:
    counted = []

    class Counting(WeightAveraging):
        def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
            counted.append((step_idx, epoch_idx))
            return True

    trainer, module = fitted(Counting(), accumulate_grad_batches=2)
    train(trainer, module, 4)
    assert counted == [(0, None), (1, None), (None, 0)]


def test_the_exponential_schedule_counts_steps_and_epochs() -> None:
    ema = EMAWeightAveraging(update_every_n_steps=3, update_starting_at_step=4, update_starting_at_epoch=2)
    assert [step for step in range(12) if ema.should_update(step_idx=step)] == [6, 9]
    assert [epoch for epoch in range(4) if ema.should_update(epoch_idx=epoch)] == [2, 3]
    assert not EMAWeightAveraging().should_update(epoch_idx=5)


def test_buffers_are_left_alone_where_asked() -> None:
    trainer, module = fitted(WeightAveraging(use_buffers=False))
    train(trainer, module)
    live = copied(module)
    trainer.end(module)
    assert torch.equal(module.net[1].running_mean, live["net.1.running_mean"])
    assert not torch.equal(module.net[1].weight, live["net.1.weight"])


def test_a_checkpoint_holds_the_average_as_the_model_and_the_live_weights_beside_it() -> None:
    trainer, module = fitted(WeightAveraging())
    train(trainer, module)
    live = copied(module)
    checkpoint = trainer.checkpoint(module)
    assert_same_tree(dict(checkpoint["current_model_state"]), live)
    assert int(checkpoint["averaging_state"]["n_averaged"]) == 3
    trainer.end(module)
    assert_same_tree(dict(checkpoint["state_dict"]), copied(module))


@pytest.mark.parametrize("moment", ["between", "validation", "end"])
def test_what_is_live_and_what_is_average_is_told_apart_at_any_moment(moment: str) -> None:
    trainer, module = fitted(WeightAveraging())
    train(trainer, module)
    expected = trainer.checkpoint(module)
    if moment == "validation":
        trainer.fire("on_validation_epoch_start", module)
    elif moment == "end":
        trainer.fire("on_train_end", module)
    checkpoint = trainer.checkpoint(module)
    for key in ("state_dict", "current_model_state"):
        assert_same_tree(dict(checkpoint[key]), dict(expected[key]))


@pytest.mark.parametrize("moment", ["between", "validation", "end"])
@pytest.mark.parametrize("callback", [AtEpochs, WeightAveraging, lambda: EMAWeightAveraging(decay=0.9)])
def test_a_resumed_run_ends_where_the_unbroken_one_does(moment: str, callback: Any) -> None:
    def rest(trainer: ModuleTrainer, module: FakeModule) -> None:
        if moment == "validation":
            trainer.fire("on_validation_epoch_end", module)
        if moment != "end":
            train(trainer, module)
            trainer.fire("on_train_end", module)
        trainer.fire("on_fit_end", module)

    whole_trainer, whole = fitted(callback())
    train(whole_trainer, whole)
    train(whole_trainer, whole)
    if moment == "validation":
        whole_trainer.fire("on_validation_epoch_start", whole)
    elif moment == "end":
        whole_trainer.fire("on_train_end", whole)
    checkpoint = whole_trainer.checkpoint(whole)
    rest(whole_trainer, whole)

    trainer, module = fitted(callback(), start=False, seed=1)
    trainer.resume(module, checkpoint)
    if moment == "validation":
        assert_same_tree(copied(module), dict(checkpoint["state_dict"]))
    rest(trainer, module)
    assert_same_tree(copied(module), copied(whole))
    assert_same_tree(trainer.checkpoint(module)["current_model_state"], whole_trainer.checkpoint(whole)["current_model_state"])


def test_tied_weights_are_averaged_once_and_stored_under_both_names() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Any) -> Any:
            return self.two(self.one(x))

    module = FakeModule(Tied())
    trainer = ModuleTrainer(callbacks=[WeightAveraging()], optimizers=[torch.optim.SGD(module.parameters(), lr=0.1)])
    trainer.start(module)
    train(trainer, module)
    stored = trainer.checkpoint(module)["state_dict"]
    assert torch.equal(stored["net.one.weight"], stored["net.two.weight"])
    assert not torch.equal(stored["net.one.weight"], module.net.one.weight)


def test_a_run_that_broke_off_in_validation_goes_on_with_its_own_weights() -> None:
    trainer, module = fitted(WeightAveraging())
    train(trainer, module)
    live = copied(module)
    trainer.fire("on_validation_epoch_start", module)
    trainer.fire("setup", module, "fit")
    assert_same_tree(copied(module), live)


def test_a_checkpoint_without_an_average_starts_one() -> None:
    _, plain = fitted(WeightAveraging())
    checkpoint = {"state_dict": copied(plain), "callbacks": {}, "optimizer_states": [], "clock": {"step": 7}}
    trainer, module = fitted(WeightAveraging(), start=False, seed=1)
    trainer.optimizers = []
    trainer.resume(module, checkpoint)
    assert_same_tree(copied(module), copied(plain))
    assert int(trainer.checkpoint(module)["averaging_state"]["n_averaged"]) == 0


def test_evaluation_of_a_checkpoint_sees_the_average() -> None:
    trainer, module = fitted(WeightAveraging())
    train(trainer, module)
    checkpoint = trainer.checkpoint(module)
    other = ModuleTrainer(callbacks=[WeightAveraging()])
    other.state.fn = "test"
    other.callbacks[0].setup(other, module, "test")
    other.callbacks[0].on_load_checkpoint(other, module, checkpoint)
    assert other.callbacks[0]._resume_from is None
    assert "state_dict" in checkpoint


def test_an_engine_that_hides_its_weights_is_refused() -> None:
    class Engine(SingleDeviceStrategy):
        state_layout = "foreign"

    with pytest.raises(UnsupportedError, match="does not go with Engine"):
        fitted(WeightAveraging(), strategy=Engine("cpu"))


@pytest.mark.parametrize("options", [{"decay": 1.1}, {"update_every_n_steps": 0}], ids=str)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        EMAWeightAveraging(**options)


def test_unknown_arguments_are_refused_with_the_closest() -> None:
    with pytest.raises(ConfigTypeError, match="Did you mean 'avg_fn'"):
        WeightAveraging(avg_func=max)


def test_two_functions_are_refused() -> None:
    with pytest.raises(ConfigTypeError, match="Both avg_fn and multi_avg_fn"):
        WeightAveraging(avg_fn=max, multi_avg_fn=max)
