"""Calling any method of a module through the strategy, and noticing one that goes past it.

`Dispatch` makes one forward serve every method: DDP prepares its reducer in `forward`, so `training_step` under DDP is
`ddp("training_step", args, kwargs)`. Nothing is patched, so threads and recursion are safe.

`guard` watches an undeclared method of a wrapped module: gradients of a submodule it runs would never be reduced (DDP), or
its parameters are shards (FSDP), so the first submodule's forward is refused before it computes.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from leyden.core.errors import StateError
from leyden.fabric.names import class_name


class Dispatch(nn.Module):
    """A module whose forward calls a method of the inner module by name.

    Args:
        module: The user's module.
    """

    _target: nn.Module

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.__dict__["_target"] = module  # `self.module` goes through nn.Module.__getattr__: 1.1 of a call's 6.0 µs

    def forward(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `module.<name>(*args, **kwargs)`; `forward` goes through the module's hooks."""
        target = self._target if name == "forward" else getattr(self._target, name)
        return target(*args, **kwargs)


def guard(method: Callable[..., Any], module: nn.Module) -> Callable[..., Any]:
    """Return `method` such that running a submodule's forward inside it is refused.

    Raises:
        StateError: On the call, when `method` runs a submodule of `module`.
    """
    name = getattr(method, "__name__", repr(method))
    watched = {id(submodule) for submodule in module.modules()}

    @functools.wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        thread = threading.get_ident()

        def refuse(submodule: nn.Module, _inputs: Any) -> None:
            if id(submodule) in watched and threading.get_ident() == thread:
                raise StateError(
                    f"You are calling the method `{class_name(module)}.{name}()` from outside the model. It runs "
                    f"`{class_name(submodule)}.forward`, but this call does not go through the strategy: its gradients would be wrong. "
                    f'Declare it once after setup: model.mark_forward_method("{name}").'
                )

        handle = register_module_forward_pre_hook(refuse)
        try:
            return method(*args, **kwargs)
        finally:
            handle.remove()

    return guarded
