"""Which strategy a name means, and where it cannot run: rules as functions of what was asked for and of the machine."""

from typing import TYPE_CHECKING, Any

import torch

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, closest, listed
from leyden.fabric.strategies.parallel import ParallelStrategy
from leyden.fabric.strategies.registry import STRATEGY_REGISTRY
from leyden.fabric.strategies.strategy import Strategy

if TYPE_CHECKING:
    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.accelerators.probe import Probe
    from leyden.fabric.environments.environment import ClusterEnvironment

REFUSED_STRATEGIES = {  # names of other days, by their beginning → what to write now
    "dp": "ddp",
    "xla": "ddp or fsdp on another accelerator; TPUs are not supported",
    "tpu": "ddp or fsdp on another accelerator; TPUs are not supported",
    "fsdp_native": "fsdp",
    "ddp_sharded": "fsdp",
    "horovod": "ddp",
    "colossalai": "fsdp or deepspeed",
}
EXACT_ONLY = ("dp",)  # others may be followed by more


def named_strategy(strategy: Any) -> Strategy | None:
    """Return the strategy object that was given or named, or `None` for `auto`.

    Raises:
        ConfigTypeError: Neither a name nor a strategy.
        ConfigError: An unknown name, one of other days, or one that needs arguments.
    """
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str):
        raise ConfigTypeError(f'strategy={strategy!r} should be a name, such as "ddp" or "fsdp", or a Strategy.')
    name = strategy.lower()
    if name == "auto":
        return None
    refused = next((old for old in REFUSED_STRATEGIES if name == old or (old not in EXACT_ONLY and name.startswith(old))), None)
    if refused is not None and STRATEGY_REGISTRY.find(name) is None:
        raise ConfigError(f"strategy={strategy!r} is not supported any more. Use {REFUSED_STRATEGIES[refused]}.")
    if name == "model_parallel":
        raise ConfigError(
            'strategy="model_parallel" does not say how to divide the model. Pass '
            "strategy=ModelParallelStrategy(parallelize_fn=my_function), where my_function(module, device_mesh) returns the module."
        )
    if STRATEGY_REGISTRY.find(name) is None:
        names = ["auto", *STRATEGY_REGISTRY]
        raise ConfigError(f"strategy={strategy!r} is not known.{closest(name, names)} Accepted are {listed(names)}.")
    return STRATEGY_REGISTRY.get(name)


def automatic_strategy(num_ranks: int, environment: "ClusterEnvironment", probe: "Probe") -> Strategy:
    """Return what `strategy="auto"` means: the plainest that fits."""
    if num_ranks == 1:
        return STRATEGY_REGISTRY.get("single_device")
    starts_here = not environment.creates_processes_externally
    return STRATEGY_REGISTRY.get("ddp_notebook" if probe.interactive and starts_here else "ddp")


def check_strategy(strategy: Strategy, accelerator: "Accelerator", devices: list[torch.device], num_nodes: int) -> None:
    """Refuse a strategy for one device on several, and a parallel one where there is one device.

    Raises:
        ConfigError: The strategy does not run on these devices.
    """
    name = type(strategy).__name__
    if isinstance(strategy, ParallelStrategy):
        if accelerator.name == "mps":
            raise ConfigError(
                f'{name} does not run on accelerator="mps", which has one device. Leave strategy out, or use accelerator="cpu".'
            )
    elif len(devices) * num_nodes > 1:
        raise ConfigError(
            f"{name} runs on one device, but devices={len(devices)} * num_nodes={num_nodes} were asked for. "
            'Use strategy="ddp" for several, or devices=1.'
        )


def check_start(
    strategy: Strategy, accelerator: "Accelerator", devices: list[torch.device], environment: "ClusterEnvironment", probe: "Probe"
) -> None:
    """Refuse ways of starting the ranks that cannot work here.

    Raises:
        ConfigError: No fork on this platform, or a script to start again in a notebook.
        StateError: CUDA was used already, and would not survive a fork.
    """
    if not isinstance(strategy, ParallelStrategy) or environment.creates_processes_externally:
        return
    method = strategy.start_method
    if method in ("fork", "forkserver") and not probe.fork_available:
        raise ConfigError(f'start_method="{method}", but this platform cannot fork. Use strategy="ddp_spawn".')
    if method == "fork" and accelerator.name == "cuda" and probe.cuda_initialised:
        raise StateError(
            "ranks are to be forked, but CUDA was used in this process before, and does not survive a fork. "
            "Remove torch.cuda calls from before fabric.launch(), and restart the kernel."
        )
    if method != "fork" and probe.interactive and len(devices) > 1:
        raise ConfigError(
            f'{type(strategy).__name__} starts its ranks by "{method}", which a notebook or REPL cannot do: there is no script to start '
            'again. Use strategy="ddp_notebook".'
        )
