import argparse
import functools
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn

from leyden.core.errors import ConfigError
from leyden.fabric.attribute_dict import AttributeDict
from leyden.trainer.core.hparams import giving
from leyden.trainer.core.mixins import HyperparametersMixin


class Parent(HyperparametersMixin):
    def __init__(self, width: int = 8, *sizes: int, depth: int = 2, **extras: Any) -> None:
        self.save_hyperparameters()


class Child(Parent):
    def __init__(self, lr: float, width: int = 4) -> None:
        super().__init__(width * 2, note="x")


def test_all_arguments_are_kept_with_keywords_flattened() -> None:
    assert Parent(16, 1, 2, depth=3, note="y").hparams == {"width": 16, "depth": 3, "note": "y"}


def test_the_outermost_subclass_overrides_what_it_passed_on() -> None:
    assert Child(0.1, width=5).hparams == {"width": 5, "depth": 2, "note": "x", "lr": 0.1}


def test_a_subclass_may_save_too() -> None:
    class Both(Child):
        def __init__(self, extra: int = 1) -> None:
            super().__init__(0.5)
            self.save_hyperparameters()

    assert Both().hparams == {"width": 4, "depth": 2, "note": "x", "lr": 0.5, "extra": 1}


def test_other_objects_frames_do_not_count() -> None:
    class Inner(HyperparametersMixin):
        def __init__(self, a: int) -> None:
            self.save_hyperparameters()

    class Outer(HyperparametersMixin):
        def __init__(self, b: int) -> None:
            self.inner = Inner(b + 1)
            self.save_hyperparameters()

    outer = Outer(1)
    assert (outer.hparams, outer.inner.hparams) == ({"b": 1}, {"a": 2})


def test_wrapped_constructors_and_helpers_are_looked_through() -> None:
    def wrapped(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return call

    class Helped(HyperparametersMixin):
        @wrapped
        def __init__(self, a: int, /, b: int = 2) -> None:
            self.keep()

        def keep(self) -> None:
            self.save_hyperparameters()

    class Below(Helped):
        @wrapped
        def __init__(self, c: int) -> None:
            super().__init__(c)

    assert Below(7).hparams == {"a": 7, "b": 2, "c": 7}


def test_arguments_captured_by_a_closure_are_found() -> None:
    class Closing(HyperparametersMixin):
        def __init__(self, a: int, **rest: Any) -> None:
            self.call = lambda: (self, a, rest)
            self.save_hyperparameters()

    assert Closing(1, b=2).hparams == {"a": 1, "b": 2}


def test_dataclasses_give_their_init_fields() -> None:
    @dataclass
    class Model(HyperparametersMixin):
        width: int
        lr: float = 0.1

        def __post_init__(self) -> None:
            self.save_hyperparameters()

    assert Model(3).hparams == {"width": 3, "lr": 0.1}


def test_names_choose_and_ignore_leaves_out() -> None:
    class Some(HyperparametersMixin):
        def __init__(self, a: int, b: int, c: int, *chosen: str, ignore: Any = None) -> None:
            self.save_hyperparameters(*chosen, ignore=ignore)

    assert Some(1, 2, 3, "a", "c").hparams == {"a": 1, "c": 3}
    assert Some(1, 2, 3, ignore=["b", "ignore"]).hparams == {"a": 1, "c": 3}
    assert Some(1, 2, 3, ignore="c").hparams == {"a": 1, "b": 2, "ignore": "c"}
    with pytest.raises(ConfigError, match=r"Some.__init__ has no argument 'd'"):
        Some(1, 2, 3, "d")


def test_one_object_is_kept_and_its_argument_remembered() -> None:
    @dataclass
    class Config:
        lr: float = 0.1

    class Model(HyperparametersMixin):
        def __init__(self, other: Any, config: Any) -> None:
            self.save_hyperparameters(config)

    for config in ({"lr": 0.1}, argparse.Namespace(lr=0.1), Config(), AttributeDict(lr=0.1)):
        model = Model(1, config)
        assert model.hparams == {"lr": 0.1}
        assert model._hparams_name == "config"


@pytest.mark.parametrize("value", [1, 0.5, True])
def test_primitives_are_refused(value: Any) -> None:
    class Model(HyperparametersMixin):
        def __init__(self, value: Any) -> None:
            self.save_hyperparameters(value)

    with pytest.raises(ConfigError, match="Primitives"):
        Model(value)


def test_other_objects_are_refused() -> None:
    class Model(HyperparametersMixin):
        def __init__(self, *values: Any) -> None:
            self.save_hyperparameters(*values)

    with pytest.raises(ConfigError, match="Unsupported config type of object"):
        Model(object())
    with pytest.raises(ConfigError, match="takes names of arguments, or one object"):
        Model({}, "a")


def test_the_first_values_are_kept_apart() -> None:
    model = Parent(note=[1])
    model.hparams.note.append(2)
    model.hparams.width = 99
    assert model.hparams.note == [1, 2]
    assert (model.hparams_initial.note, model.hparams_initial.width) == ([1], 8)
    model.hparams_initial["width"] = 1
    assert model.hparams_initial.width == 8


def test_what_cannot_be_copied_is_shared() -> None:
    lock = threading.Lock()
    assert Parent(lock=lock).hparams_initial.lock is lock


def test_modules_among_them_warn_and_are_not_copied() -> None:
    net = nn.Linear(1, 1)
    with pytest.warns(UserWarning, match="Attribute 'net' is an instance of `nn.Module` and is already saved"):
        model = Parent(net=net)
    assert model.hparams_initial.net is net


def test_calls_add_up_and_say_whether_to_log() -> None:
    class Twice(HyperparametersMixin):
        def __init__(self, a: int, b: int) -> None:
            self.save_hyperparameters("a", logger=False)
            assert not self._log_hyperparams
            self.save_hyperparameters({"c": 3})

    model = Twice(1, 2)
    assert model.hparams == {"a": 1, "c": 3}
    assert model._log_hyperparams


def test_without_a_call_there_are_none() -> None:
    class Plain(HyperparametersMixin):
        pass

    assert Plain().hparams == {}
    assert Plain().hparams_initial == {}
    assert isinstance(Plain().hparams, AttributeDict)


def test_a_module_may_save_before_its_own_constructor_ran() -> None:
    class Model(HyperparametersMixin, nn.Module):
        def __init__(self, a: int) -> None:
            self.save_hyperparameters()
            super().__init__()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Model(1).hparams.a == 1


def test_a_configuration_replaces_the_arguments() -> None:
    with giving({"class_path": "x"}):
        assert Parent(3).hparams == {"class_path": "x"}
