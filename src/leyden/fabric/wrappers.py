"""What `setup` hands back: the user's module and optimizer, called through the strategy and the precision.

A wrapper looks like what it wraps: names of parameters, state dicts, attributes and `isinstance` of optimizers are the
user's. The hot path is one bound reference: under a plain precision `FabricModule.forward` *is* the strategy's module, so a
step costs two extra calls (`nn.Module.__getattr__` is slow, so hot references live in `__dict__`).
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.fabric.compilation import take_apart
from leyden.fabric.dispatch import guard
from leyden.fabric.loading.loader import FabricDataLoader
from leyden.fabric.names import class_name
from leyden.fabric.strategies.strategy import Strategy
from leyden.fabric.trees import map_tensors

STEP_METHODS = ("training_step", "validation_step", "test_step", "predict_step")
# Methods of nn.Module that must act on the user's module, with its names and its overrides.
DELEGATED = (
    "parameters", "named_parameters", "buffers", "named_buffers", "children", "named_children", "modules", "named_modules", "apply",
    "requires_grad_", "zero_grad", "to", "to_empty", "cpu", "cuda", "half", "float", "double", "bfloat16", "type", "share_memory", "_apply",
    "extra_repr", "get_parameter", "get_buffer", "get_submodule", "register_buffer", "register_parameter", "add_module", "register_module",
    "_load_from_state_dict",  # of a parent that holds the wrapper; with it come the module's own overrides and extra state
)  # fmt: skip
OWN = frozenset({"training", "_forward_module", "_original_module", "_strategy", "_forward_methods"})


class FabricModule(nn.Module):
    """A module set up for a strategy; calling it goes through precision and strategy.

    Args:
        forward_module: What the strategy made of the module (the module itself, DDP, …).
        strategy: The strategy that made it.
        original_module: The user's module; default: `forward_module`.
    """

    def __init__(self, forward_module: nn.Module, strategy: Strategy, original_module: nn.Module | None = None) -> None:
        super().__init__()
        original = original_module if original_module is not None else forward_module
        own = self.__dict__
        own.update(_forward_module=forward_module, _original_module=original, _strategy=strategy, _forward_methods={})
        # Shared, not copied: a parent that holds this wrapper as a child loads and saves under the user's names.
        own.update({name: original.__dict__[name] for name in ("_parameters", "_buffers", "_modules")})
        own["forward"] = self._bind("forward")
        for name in STEP_METHODS:
            if inspect.ismethod(getattr(original, name, None)):
                self.mark_forward_method(name)

    @property
    def module(self) -> nn.Module:
        """The user's module."""
        return self.__dict__["_original_module"]

    @property
    def training(self) -> bool:
        """Whether the user's module is in training mode."""
        original = self.__dict__.get("_original_module")
        return original.training if original is not None else True

    @training.setter
    def training(self, value: bool) -> None:
        if "_original_module" in self.__dict__:
            self.__dict__["_original_module"].training = value

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the strategy's module under the precision. (Each instance binds its own; this is the documented shape.)."""
        raise StateError("FabricModule.forward was not bound; build the wrapper with fabric.setup().")

    def mark_forward_method(self, method: Callable[..., Any] | str) -> None:
        """Let a method be called through the strategy, like `forward`.

        Args:
            method: The method or its name.

        Raises:
            ConfigTypeError: Neither a method nor a string.
            ConfigError: `forward`, which is marked already.
            AttributeError: The module has no such method.
        """
        if not isinstance(method, str) and not inspect.ismethod(method):
            raise ConfigTypeError(f"mark_forward_method({method!r}): expected a method or its name as a string.")
        name = method if isinstance(method, str) else method.__name__
        if name == "forward":
            raise ConfigError("You cannot mark the forward method itself as a forward method: it is one already.")
        original = self.__dict__["_original_module"]
        if not callable(getattr(original, name, None)):
            raise AttributeError(
                f"You marked {name!r} as a forward method, but {class_name(original)}.{name} does not exist or is not a method."
            )
        self.__dict__["_strategy"].mark_forward_method(self.__dict__["_forward_module"], name)
        self.__dict__["_forward_methods"][name] = self._bind(name)

    def train(self, mode: bool = True) -> "FabricModule":
        """Set training mode, of the user's module too."""
        self.__dict__["_forward_module"].train(mode)
        self.__dict__["_original_module"].train(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the user's module's state dict, under its own names."""
        return self.__dict__["_original_module"].state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict of the user's module."""
        return self.__dict__["_original_module"].load_state_dict(state_dict=state_dict, strict=strict, assign=assign)

    def _bind(self, name: str) -> Callable[..., Any]:
        strategy: Strategy = self.__dict__["_strategy"]
        precision = strategy.precision
        target = strategy.method_of(self.__dict__["_forward_module"], name)
        guarded = precision.scales_gradients or strategy.owns_backward
        if precision.plain and not guarded:
            return target

        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = precision.convert_input((args, kwargs))
            with precision.forward_context():
                output = target(*args, **kwargs)
            output = precision.convert_output(output)
            return map_tensors(output, watch) if guarded else output

        def watch(tensor: Tensor) -> Tensor:
            if tensor.requires_grad:
                tensor.register_hook(refuse)
            return tensor

        def refuse(_gradient: Tensor) -> None:
            if not strategy.is_in_backward:
                raise StateError("You are calling loss.backward() where the gradients must be scaled; call fabric.backward(loss) instead.")

        return call

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        if name in own.get("_forward_methods", ()):
            return own["_forward_methods"][name]
        if "_original_module" not in own:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        original = own["_original_module"]
        value = getattr(original, name)
        if own["_strategy"].guards_methods and inspect.ismethod(value) and value.__self__ is original:
            return guard(value, original)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OWN or "_original_module" not in self.__dict__:
            super().__setattr__(name, value)
        else:
            setattr(self.__dict__["_original_module"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_original_module"], name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "FabricModule":
        own = self.__dict__
        return FabricModule(copy.deepcopy(own["_forward_module"], memo), own["_strategy"], copy.deepcopy(own["_original_module"], memo))


def _delegate(name: str) -> Callable[..., Any]:
    def method(self: FabricModule, *args: Any, **kwargs: Any) -> Any:
        original = self.__dict__["_original_module"]
        result = getattr(original, name)(*args, **kwargs)
        return self if result is original else result

    method.__name__, method.__qualname__ = name, f"FabricModule.{name}"
    method.__doc__ = f"Call `{name}` of the user's module."
    return method


for _name in DELEGATED:
    setattr(FabricModule, _name, _delegate(_name))


class FabricOptimizer:
    """An optimizer whose step goes through the strategy; also an instance of the wrapped optimizer's class.

    Args:
        optimizer: The user's optimizer.
        strategy: The strategy that steps it.
        callbacks: Objects whose `on_after_optimizer_step(strategy, optimizer)` is called after each step.
    """

    _optimizer: Optimizer
    _strategy: Strategy
    _after_step: list[Callable[..., Any]]

    def __new__(cls, optimizer: Optimizer, strategy: Strategy, callbacks: Iterable[Any] = ()) -> "FabricOptimizer":
        wrapped = type(optimizer)
        bases = (cls,) if cls is not FabricOptimizer else (FabricOptimizer, wrapped)
        return object.__new__(type(f"Fabric{wrapped.__name__}", bases, {"__module__": __name__}))

    def __init__(self, optimizer: Optimizer, strategy: Strategy, callbacks: Iterable[Any] = ()) -> None:
        own = self.__dict__
        # Everything the optimizer can do, bound to it: its class's methods on this object would act on a second, empty state.
        own.update({name: value for name, value in inspect.getmembers(optimizer, inspect.ismethod) if not hasattr(FabricOptimizer, name)})
        own["_optimizer"] = optimizer
        own["_strategy"] = strategy
        own["_after_step"] = [hook for c in callbacks if callable(hook := getattr(c, "on_after_optimizer_step", None))]

    @property
    def optimizer(self) -> Optimizer:
        """The user's optimizer."""
        return self._optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's parameter groups."""
        return self._optimizer.param_groups

    @param_groups.setter
    def param_groups(self, value: list[dict[str, Any]]) -> None:
        self._optimizer.param_groups = value

    @property
    def state(self) -> Any:
        """The wrapped optimizer's state."""
        return self._optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:
        """The wrapped optimizer's defaults."""
        return self._optimizer.defaults

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step through the strategy; under a gradient scaler the step may be skipped (`last_step_skipped`)."""
        optimizer = self._optimizer
        strategy = self._strategy
        result = strategy.optimizer_step(optimizer) if closure is None else strategy.optimizer_step(optimizer, closure=closure)
        for hook in self._after_step:
            hook(strategy=strategy, optimizer=optimizer)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state dict, as the strategy keeps it."""
        return self._strategy.get_optimizer_state(self._optimizer)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state dict into the wrapped optimizer."""
        self._optimizer.load_state_dict(dict(state_dict))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_optimizer" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.__dict__["_optimizer"], name)

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer, "strategy": self._strategy}

    def __deepcopy__(self, memo: dict[int, Any]) -> "FabricOptimizer":
        copied = FabricOptimizer(copy.deepcopy(self._optimizer, memo), self._strategy)  # the strategy owns groups and threads
        copied.__dict__["_after_step"] = self._after_step
        return copied

    def __reduce__(self) -> Any:
        return (FabricOptimizer, (self._optimizer, self._strategy))

    def __repr__(self) -> str:
        return f"Fabric{self._optimizer!r}"


def unwrap(obj: Any) -> Any:
    """Return the user's module, optimizer or loader inside a wrapper, also under `torch.compile`; anything else unchanged."""
    inner = take_apart(obj)[0] if isinstance(obj, nn.Module) else obj
    if isinstance(inner, FabricModule):
        return take_apart(inner.module)[0]
    if isinstance(inner, FabricOptimizer):
        return inner.optimizer
    return inner


def is_wrapped(obj: object) -> bool:
    """Return whether `obj` was set up by Fabric: a module (also under `torch.compile`), an optimizer or a loader.

    Example:
        >>> is_wrapped(nn.Linear(2, 1))
        False
    """
    inner = take_apart(obj)[0] if isinstance(obj, nn.Module) else obj
    return isinstance(inner, (FabricModule, FabricOptimizer, FabricDataLoader))


def devices_of(module: nn.Module) -> set[torch.device]:
    """Return the devices of the module's parameters."""
    return {parameter.device for parameter in module.parameters()}
