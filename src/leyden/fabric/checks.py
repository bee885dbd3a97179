"""What the facade refuses, and what it says: arguments of the wrong type, things set up twice, calls at the wrong moment."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, closest, listed
from leyden.fabric.loading.loader import FabricDataLoader
from leyden.fabric.wrappers import FabricOptimizer, is_wrapped


def check_launchable(function: object, *, start_method: str) -> None:
    """Refuse a function that `launch` cannot call."""
    if function is None:
        if start_method != "popen":
            raise ConfigTypeError(f"`launch()` with start_method={start_method!r} needs to be called with a function: `.launch(function)`.")
        return
    if not callable(function):
        raise ConfigTypeError(f"`launch({function!r})` needs a callable, such as `fabric.launch(train)`, where `def train(fabric): ...`.")
    try:
        takes_argument = bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin without a signature
        takes_argument = True
    if not takes_argument:
        raise ConfigTypeError(
            f"`launch({getattr(function, '__name__', function)})`: the function needs to take at least one argument, the Fabric object."
        )


def check_loggers(loggers: Iterable[object]) -> None:
    """Refuse what is no logger, before it is asked to log."""
    for logger in loggers:
        if isinstance(logger, type) or not callable(getattr(logger, "log_metrics", None)):
            raise ConfigTypeError(f"Fabric(loggers={logger!r}): expected a logger object, such as CSVLogger('logs'), or a list of them.")


def check_module(module: object) -> None:
    """Refuse what is no module, or was set up before."""
    if not isinstance(module, nn.Module):
        raise ConfigTypeError(f"`setup` takes a torch.nn.Module first, not {type(module).__name__}.")
    if is_wrapped(module):
        raise ConfigError("A model should be passed only once to the `setup` method.")


def check_optimizers(optimizers: Iterable[object]) -> None:
    """Refuse what is no optimizer, or was set up before."""
    for optimizer in optimizers:
        if isinstance(optimizer, FabricOptimizer):
            raise ConfigError("An optimizer should be passed only once to the `setup` method.")
        if not isinstance(optimizer, Optimizer):
            raise ConfigTypeError(
                f"`setup` takes torch optimizers after the module, not {type(optimizer).__name__}. Pass a scheduler as scheduler=…."
            )


def refuse_meta(module: nn.Module, optimizers: tuple[Optimizer, ...]) -> None:
    """Refuse the joint set-up of meta parameters: an optimizer over them would step nothing."""
    if optimizers and any(parameter.is_meta for parameter in module.parameters()):
        raise StateError(
            "The optimizer has references to the model's meta-device parameters. Materialising them is done by "
            "`setup_module`, so do it in two steps: "
            "model = fabric.setup_module(model); optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters()))"
        )


def check_scheduler(scheduler: object, optimizers: tuple[Optimizer, ...]) -> None:
    """Refuse a scheduler without an optimizer: it would be dropped without a word."""
    if scheduler is not None and not optimizers:
        raise ConfigError("`setup(module, scheduler=…)` needs the scheduler's optimizer: `setup(module, optimizer, scheduler=scheduler)`.")


def check_loader(loader: object) -> None:
    """Refuse what is no loader, or was set up before."""
    if isinstance(loader, FabricDataLoader):
        raise ConfigError("A dataloader should be passed only once to the `setup_dataloaders` method.")
    is_stateful = all(callable(getattr(loader, name, None)) for name in ("__iter__", "state_dict", "load_state_dict"))
    if not isinstance(loader, DataLoader) and not is_stateful:
        raise ConfigTypeError(
            f"Only PyTorch DataLoader are currently supported in `setup_dataloaders`, and loaders with state_dict/load_state_dict, "
            f"not {type(loader).__name__}."
        )


def check_state_and_filter(state: object, filter: object) -> None:
    """Refuse a state that is no dictionary, and filters that do not fit it."""
    if not isinstance(state, Mapping):
        raise ConfigTypeError(f"fabric.save(state=…) should be a dictionary of names to objects, not {type(state).__name__}.")
    if filter is None:
        return
    if not isinstance(filter, Mapping):
        raise ConfigTypeError(f"fabric.save(filter=…) should be a dictionary, one function per key, not {type(filter).__name__}.")
    for key, function in filter.items():
        if key not in state:
            raise ConfigError(f"filter has the key {key!r}, which is not in state.{closest(str(key), state)} Keys: {listed(state)}.")
        if not callable(function):
            raise ConfigTypeError(f"filter[{key!r}] should be a function (name, value) -> bool, not {type(function).__name__}.")


def accepted(hook: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords that a hook takes."""
    try:
        parameters = inspect.signature(hook).parameters
    except (TypeError, ValueError):  # signature unreadable: all are passed
        return kwargs
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return kwargs
    by_name = {name for name, parameter in parameters.items() if parameter.kind is not parameter.POSITIONAL_ONLY}
    return {name: value for name, value in kwargs.items() if name in by_name}


def non_finite(module: nn.Module, norm_type: object) -> str:
    """Say which gradients are not finite."""
    bad = [name for name, parameter in module.named_parameters() if parameter.grad is not None and not _is_finite(parameter.grad)]
    return (
        f"The gradients' norm (type {norm_type}) is not finite, so they were not clipped. Gradients with NaN or inf: "
        f"{', '.join(bad[:5]) or 'none on this rank'}{' …' if len(bad) > 5 else ''}. Pass error_if_nonfinite=False to go on all the same."
    )


def _is_finite(gradient: Tensor) -> bool:
    local: Any = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    return bool(torch.isfinite(local).all())
