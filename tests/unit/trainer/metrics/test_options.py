import statistics
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.trainer.engine.hookspec import HOOKS, log_rule
from leyden.trainer.metrics.options import Given, reduction, resolve

STEP = (
    "training_step on_train_batch_start on_train_batch_end on_before_zero_grad optimizer_zero_grad on_before_backward backward "
    "on_after_backward on_before_optimizer_step optimizer_step configure_gradient_clipping clip_gradients"
)
EPOCH = (
    "validation_step test_step on_validation_batch_start on_validation_batch_end on_test_batch_start on_test_batch_end "
    "on_train_start on_validation_start on_test_start on_train_epoch_start on_train_epoch_end on_validation_epoch_start "
    "on_validation_epoch_end on_test_epoch_start on_test_epoch_end"
)
ONLY_EPOCH = [hook for hook in EPOCH.split() if hook.endswith(("_start", "_end")) and "batch" not in hook]


def given(on_step: bool | None = None, on_epoch: bool | None = None, reduce_fx: Any = "mean", logger: bool | None = None) -> Given:
    return (False, logger, on_step, on_epoch, reduce_fx, False, False, None, True, None, False)


def resolved(hook: str, name: str = "a", **options: Any) -> Any:
    return resolve(given(**options), name=name, hook=hook, rule=log_rule(hook))


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_its_documented_defaults(hook: str) -> None:
    if hook in STEP.split():
        assert (resolved(hook).on_step, resolved(hook).on_epoch) == (True, False)
    elif hook in EPOCH.split():
        assert (resolved(hook).on_step, resolved(hook).on_epoch) == (False, True)
    else:
        with pytest.raises(ConfigError, match=r"You can't `self\.log\(\)` inside `" + hook):
            resolved(hook)


@pytest.mark.parametrize("hook", ONLY_EPOCH)
def test_a_hook_of_an_epoch_has_no_steps(hook: str) -> None:
    with pytest.raises(ConfigError, match=r"You can't `self\.log\(on_step=True\)` inside"):
        resolved(hook, on_step=True)
    with pytest.raises(ConfigError, match=r"You can't `self\.log\(on_epoch=False\)` inside"):
        resolved(hook, on_epoch=False)
    assert resolved(hook, on_step=False, on_epoch=True).on_epoch


@pytest.mark.parametrize(("hook", "options"), [("training_step", {"on_step": False}), ("validation_step", {"on_epoch": False})])
def test_keeping_nothing_is_refused(hook: str, options: dict[str, bool]) -> None:
    with pytest.raises(ConfigError, match="is not useful"):
        resolved(hook, **options)


def test_the_number_of_a_loader_is_not_part_of_a_name() -> None:
    with pytest.raises(ConfigError, match="/dataloader_idx_"):
        resolved("validation_step", name="a/dataloader_idx_0")


def test_loggers_get_everything_by_default() -> None:
    assert resolved("training_step").logger
    assert not resolved("training_step", logger=False).logger


@pytest.mark.parametrize(
    ("reduce", "forms"),
    [
        ("mean", ["mean", "avg", torch.mean]),
        ("sum", ["sum", sum, torch.sum]),
        ("max", ["max", max, torch.max]),
        ("min", ["min", min, torch.min]),
    ],
)
def test_reductions_are_known_by_name_and_by_function(reduce: str, forms: list[Any]) -> None:
    assert {reduction(form, "a") for form in forms} == {reduce}


@pytest.mark.parametrize("reduce_fx", ["median", torch.std, statistics.mean, None])
def test_another_reduction_is_refused(reduce_fx: Any) -> None:
    with pytest.raises(ConfigError, match="are supported"):
        reduction(reduce_fx, "a")
