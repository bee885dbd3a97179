import pytest

from leyden.core.errors import ConfigTypeError
from leyden.trainer.callbacks import LambdaCallback
from leyden.trainer.core.callback import Callback
from leyden.trainer.engine.hookspec import HOOKS
from leyden.trainer.engine.plan import is_overridden
from tests.support.module_trainer import FakeModule, ModuleTrainer


def test_given_functions_are_called_with_the_hooks_arguments() -> None:
    called = []
    callback = LambdaCallback(on_train_batch_end=lambda *args: called.append(args), setup=lambda *args: called.append(args))
    trainer, module = ModuleTrainer(), FakeModule()
    callback.setup(trainer, module, "fit")
    callback.on_train_batch_end(trainer, module, {"loss": 1}, "batch", 3)
    assert called == [(trainer, module, "fit"), (trainer, module, {"loss": 1}, "batch", 3)]


def test_only_given_hooks_count_as_overridden() -> None:
    callback = LambdaCallback(on_fit_end=lambda *args: None, on_fit_start=None)
    names = [hook.name for hook in HOOKS.values() if hook.callback]
    assert [name for name in names if is_overridden(callback, name, Callback)] == ["on_fit_end"]


def test_every_hook_of_callbacks_is_accepted() -> None:
    LambdaCallback(**{hook.name: print for hook in HOOKS.values() if hook.callback})


def test_an_unknown_hook_is_refused_with_the_closest() -> None:
    with pytest.raises(ConfigTypeError, match="Did you mean 'on_fit_start'"):
        LambdaCallback(on_fit_strat=print)


def test_hooks_of_modules_alone_are_refused() -> None:
    with pytest.raises(ConfigTypeError, match="training_step"):
        LambdaCallback(training_step=print)


def test_a_value_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigTypeError, match="expected a function"):
        LambdaCallback(on_fit_end=3)  # type: ignore[arg-type]
