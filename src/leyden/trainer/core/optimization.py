"""What `LightningModule` offers around optimizers: finding them, backward by hand, toggling, clipping."""

from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, listed

CLIP_ALGORITHMS = ("norm", "value")


def optimizers_of(module: Any, *, wrapped: bool) -> Any:
    """Return the module's optimizers: one itself, several as a list.

    Raises:
        StateError: There is no trainer and no Fabric.
    """
    found = module.fabric_optimizers if module.fabric is not None else module.trainer.run.optimizers
    if not wrapped:
        found = [getattr(item, "optimizer", item) for item in found]
    return found[0] if len(found) == 1 else list(found)


def schedulers_of(module: Any) -> Any:
    """Return the schedulers: `None` for none, one itself, several as a list."""
    found = [config.scheduler for config in module.trainer.lr_scheduler_configs]
    return found[0] if len(found) == 1 else (found or None)


@contextmanager
def toggled(module: nn.Module, optimizer: Optimizer) -> Any:
    """Within the block only `optimizer`'s parameters require gradients."""
    toggle(module, optimizer)
    try:
        yield
    finally:
        untoggle(module, optimizer)


def toggle(module: Any, optimizer: Any) -> None:
    """Let only this optimizer's parameters require gradients, and remember what the others did."""
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    state = {}
    for other in module.trainer.optimizers:
        for group in other.param_groups:
            for parameter in group["params"]:
                if id(parameter) in own or parameter in state:
                    continue
                state[parameter] = parameter.requires_grad
                parameter.requires_grad = False
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state.setdefault(parameter, parameter.requires_grad)
    module.__dict__["_toggled"] = state


def untoggle(module: Any, optimizer: Any) -> None:
    """Put back what `toggle` changed."""
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for parameter, requires_grad in module.__dict__.pop("_toggled", {}).items():
        if id(parameter) not in own:
            parameter.requires_grad = requires_grad


def check_clip(value: Any, algorithm: Any) -> None:
    """Refuse clip settings that cannot be right.

    Raises:
        ConfigTypeError: The value is no number.
        ConfigError: The algorithm is unknown.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ConfigTypeError(f"`gradient_clip_val` should be an int or a float, not {value!r}.")
    if algorithm is not None and str(algorithm).lower() not in CLIP_ALGORITHMS:
        raise ConfigError(f"`gradient_clip_algorithm` {algorithm} is invalid. Accepted are {listed(CLIP_ALGORITHMS)}.")


def clip_values(trainer: Any, value: Any, algorithm: Any) -> tuple[Any, str]:
    """Return what a call of `clip_gradients` clips by: its arguments, which must not contradict Trainer's.

    Raises:
        ConfigError: They do.
    """
    for name, given, set_value in (
        ("gradient_clip_val", value, trainer.gradient_clip_val),
        ("gradient_clip_algorithm", algorithm, trainer.gradient_clip_algorithm),
    ):
        if given is not None and set_value is not None and given != set_value:
            raise ConfigError(
                f"You have set `Trainer({name}={set_value!r})` and have passed `clip_gradients({name}={given!r})`. "
                "Please use only one of them."
            )
    value = trainer.gradient_clip_val if value is None else value
    algorithm = trainer.gradient_clip_algorithm if algorithm is None else algorithm
    check_clip(value, algorithm)
    return value, str(algorithm or "norm").lower()


def clip(module: Any, optimizer: Any, value: Any, algorithm: Any) -> None:
    """Clip the gradients of an optimizer's parameters; without a value nothing happens."""
    trainer = module.trainer
    value, algorithm = clip_values(trainer, value, algorithm)
    if not value:
        return
    inner = getattr(optimizer, "optimizer", optimizer)
    strategy, wrapped = trainer.strategy, trainer.model
    if trainer.run.clips_at_step and algorithm == "norm":
        return  # the strategy does
    if algorithm == "value":
        strategy.clip_gradients_value(wrapped, inner, clip_val=value)
    else:
        strategy.clip_gradients_norm(wrapped, inner, max_norm=value, norm_type=2.0, error_if_nonfinite=False)


def manual_backward(module: Any, loss: Tensor, *args: Any, **kwargs: Any) -> None:
    """Compute gradients in manual optimisation, with the hooks around it.

    Raises:
        ConfigError: The module optimises automatically.
    """
    if module.fabric is not None:
        module.fabric.backward(loss, *args, **kwargs)
        return
    if module.automatic_optimization:
        raise ConfigError(
            "You called `self.manual_backward(loss)` while `automatic_optimization` is True. Set `self.automatic_optimization = False` "
            "in `__init__` to step by hand, or drop the call."
        )
    module.trainer.run.manual_backward(loss, *args, **kwargs)


def run_backward(module: Any, loss: Tensor, *args: Any, **kwargs: Any) -> None:
    """Do what `LightningModule.backward` does: through the strategy, where one is there."""
    trainer = module.__dict__.get("_trainer")
    if trainer is None:
        loss.backward(*args, **kwargs)
        return
    trainer.strategy.backward(loss, trainer.model, *args, **kwargs)


def refuse_unattached(module: Any) -> Any:
    """Return the error for a module that nobody runs."""
    return StateError(f"{type(module).__name__} is not attached to a `Trainer`. Pass it to trainer.fit(model), or use fabric.")
