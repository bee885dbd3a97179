"""`configure_optimizers` out of a configuration, for modules that leave their optimizer to the command line."""

from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import Namespace

from leyden.core.errors import ConfigError, listed
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.cli.instantiate import instantiate_class
from leyden.trainer.cli.parser import AUTOMATIC, ClassPathAdder
from leyden.trainer.core.module import LightningModule


class ConfiguredOptimizers:
    """What `configure_optimizers` of a module becomes: builds optimizer and scheduler when it is called.

    Only then: `configure_model` may not have made the parameters yet when the configuration is read.

    Args:
        module: The module.
        finish: `LightningCLI.configure_optimizers`: module, optimizer, scheduler → what the trainer gets.
        optimizer: The optimizer's configuration.
        lr_scheduler: The scheduler's, if there is one.
    """

    def __init__(
        self, module: LightningModule, finish: Callable[..., Any], optimizer: dict[str, Any], lr_scheduler: dict[str, Any] | None
    ) -> None:
        self.module = module
        self.finish = finish
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler

    def __call__(self) -> Any:
        optimizer = instantiate_class((self.module.parameters(),), self.optimizer)
        scheduler = instantiate_class((optimizer,), self.lr_scheduler) if self.lr_scheduler else None
        return self.finish(self.module, optimizer=optimizer, lr_scheduler=scheduler)


def automatic(makers: Mapping[str, tuple[Any, str]]) -> list[str]:
    """Return the keys of what is linked to no argument of the module."""
    return [key for key, (_, link_to) in makers.items() if link_to == AUTOMATIC]


def check_at_most_one(optimizers: list[str], lr_schedulers: list[str]) -> None:
    """Refuse several automatic optimizers or schedulers.

    Raises:
        ConfigError: Nobody could say what belongs to what.
    """
    if len(optimizers) > 1 or len(lr_schedulers) > 1:
        raise ConfigError(
            "LightningCLI configures at most one optimizer and one lr_scheduler with link_to='AUTOMATIC', but found "
            f"{listed(optimizers + lr_schedulers)}. In this case the user is expected to link the argument groups "
            '(add_optimizer_args(..., link_to="model.optimizer_init")) and implement `configure_optimizers` with `instantiate_class`.'
        )


def init_of(maker: Any, config: Any) -> dict[str, Any] | None:
    """Return `class_path` and `init_args` of what was configured; `None` where the user chose none."""
    if isinstance(maker, tuple):
        values = config.as_dict() if isinstance(config, Namespace) else config
        return values or None
    return ClassPathAdder(maker)(config or {})


def take_over(module: Any, finish: Callable[..., Any], optimizer: dict[str, Any], lr_scheduler: dict[str, Any] | None, cli: str) -> None:
    """Let the configuration decide what `configure_optimizers` of a module returns."""
    if type(module).configure_optimizers is not LightningModule.configure_optimizers:
        rank_zero_warn(
            f"`{type(module).__name__}.configure_optimizers` will be overridden by `{cli}.configure_optimizers`: the command line or a "
            "configuration file chose an optimizer. Leave `optimizer` out there, or pass auto_configure_optimizers=False.",
            stacklevel=5,
        )
    module.configure_optimizers = ConfiguredOptimizers(module, finish, optimizer, lr_scheduler)
