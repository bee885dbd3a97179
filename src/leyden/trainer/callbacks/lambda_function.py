"""`LambdaCallback`: a callback made of functions, for what is too short for a class."""

from collections.abc import Callable
from typing import Any

from leyden.core.errors import ConfigTypeError, closest
from leyden.trainer.core.callback import Callback
from leyden.trainer.engine.hookspec import HOOKS


class LambdaCallback(Callback):
    """A callback whose hooks are the functions it is given.

    Args:
        **hooks: Hook → function with that hook's arguments; `None` leaves the hook empty.

    Raises:
        ConfigTypeError: No hook of callbacks has that name, or the value cannot be called.

    Example:
        >>> callback = LambdaCallback(on_train_end=lambda trainer, pl_module: print("done"))
        >>> callback.on_train_end(None, None)
        done
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        names = [hook.name for hook in HOOKS.values() if hook.callback]
        for name, function in hooks.items():
            if name not in names:
                raise ConfigTypeError(f"LambdaCallback({name}=…): callbacks have no such hook.{closest(name, names)}")
            if function is None:
                continue
            if not callable(function):
                raise ConfigTypeError(f"LambdaCallback({name}={function!r}): expected a function with the arguments of Callback.{name}.")
            self.__dict__[name] = function  # an attribute of the instance: only hooks that are given count as overridden
