"""From the arguments of `Fabric` to a `Plan`: what runs where, with which strategy and precision, or an error that says why not.

`resolve` is a function of the arguments, of the environment and of a probe of the machine; it looks at nothing else and
touches no device, so each rule can be tried for any machine. One small function holds one rule, in the order of use:

variables of the environment → plug-ins → strategy object → who started us → accelerator → nodes, devices → strategy →
precision → all of it written into the strategy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.accelerators.accelerator import Accelerator
from leyden.fabric.accelerators.device_list import normalise
from leyden.fabric.accelerators.probe import BUILT_IN, ONE_BY_DEFAULT, Probe, accelerator_for, probe_machine
from leyden.fabric.checkpoint.checkpoint_io import CheckpointIO
from leyden.fabric.environments.detect import detect_environment
from leyden.fabric.environments.environment import ClusterEnvironment
from leyden.fabric.precision.precision import Precision
from leyden.fabric.precision.registry import PrecisionContext, check_name, check_precision, create_precision, full_name
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.fabric.strategies.choice import automatic_strategy, check_start, check_strategy, named_strategy
from leyden.fabric.strategies.parallel import ParallelStrategy
from leyden.fabric.strategies.single import SingleDeviceStrategy
from leyden.fabric.strategies.strategy import Strategy

VARIABLES = {  # argument → the setting that replaces it
    "accelerator": "LEYDEN_FABRIC_ACCELERATOR",
    "strategy": "LEYDEN_FABRIC_STRATEGY",
    "devices": "LEYDEN_FABRIC_DEVICES",
    "num_nodes": "LEYDEN_FABRIC_NUM_NODES",
    "precision": "LEYDEN_FABRIC_PRECISION",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RawArguments:
    """The arguments of `Fabric` (or `Trainer`) as the user gave them, with the documented defaults."""

    accelerator: Any = "auto"
    strategy: Any = "auto"
    devices: Any = "auto"
    num_nodes: Any = 1
    precision: Any = None
    plugins: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What runs where: the strategy is configured, nothing has been started, no device was touched.

    Args:
        accelerator: The kind of device.
        devices: The devices of this node, in local-rank order.
        environment: Who started the processes.
        strategy: With accelerator, precision, environment, nodes and devices set.
        precision: How numbers are kept.
        checkpoint_io: A plug-in that stores checkpoints; `None` is fabric's own formats.
        num_nodes: How many nodes there are.
    """

    accelerator: Accelerator
    devices: list[torch.device]
    environment: ClusterEnvironment
    strategy: Strategy
    precision: Precision
    checkpoint_io: CheckpointIO | None
    num_nodes: int

    @property
    def num_ranks(self) -> int:
        """The number of processes over all nodes."""
        return len(self.devices) * self.num_nodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugins:
    """The plug-ins by kind."""

    precision: Precision | None = None
    checkpoint_io: CheckpointIO | None = None
    environment: ClusterEnvironment | None = None


def resolve(raw: RawArguments, environ: Mapping[str, str] | None = None, probe: Probe | None = None) -> Plan:
    """Return the plan for these arguments.

    Args:
        raw: The arguments as given.
        environ: The environment; this process's if absent.
        probe: The machine; this one if absent.

    Raises:
        ConfigError: An argument cannot be right, two contradict each other, or one contradicts the launcher.
        ConfigTypeError: An argument is of the wrong type.
        UnavailableError: This machine lacks the accelerator.
        StateError: Right arguments, but too late in this process to fork.

    Example:
        >>> plan = resolve(RawArguments(accelerator="cpu"), {}, Probe(device_counts={}))
        >>> type(plan.strategy).__name__, plan.devices
        ('SingleDeviceStrategy', [device(type='cpu')])
    """
    if environ is None or environ is settings.environment():
        environ = settings.environment()
        settings.report_unknown(environ)  # a misspelled LEYDEN_FABRIC_… would have no effect
    probe = probe or probe_machine()
    raw = with_variables(raw, environ)
    plugins = sort_plugins(raw.plugins)
    strategy = named_strategy(raw.strategy)
    if strategy is not None:
        check_given_once(strategy, raw, plugins)
    environment = plugins.environment or (strategy.cluster_environment if strategy else None) or detect_environment(environ)
    accelerator = choose_accelerator(raw, strategy, probe)
    num_nodes = choose_num_nodes(raw.num_nodes, environment)
    devices = choose_devices(raw, strategy, accelerator, environment, probe)
    environment.validate_settings(len(devices), num_nodes)
    strategy = strategy or automatic_strategy(len(devices) * num_nodes, environment, probe)
    check_strategy(strategy, accelerator, devices, num_nodes)
    check_start(strategy, accelerator, devices, environment, probe)
    context = PrecisionContext(
        precision="32-true",
        kind=strategy.precision_kind,
        accelerator=accelerator,
        devices=devices,
        environment=environment,
        num_nodes=num_nodes,
    )
    plan = Plan(
        accelerator=accelerator,
        devices=devices,
        environment=environment,
        strategy=strategy,
        precision=choose_precision(raw.precision, plugins.precision or strategy.precision_given, context),
        checkpoint_io=plugins.checkpoint_io or strategy.checkpoint_io,
        num_nodes=num_nodes,
    )
    configure(plan)
    return plan


# -- what was given ----------------------------------------------------------------------------------------------


def with_variables(raw: RawArguments, environ: Mapping[str, str]) -> RawArguments:
    """Return the arguments with those replaced that a variable gives.

    Raises:
        ConfigError: Under `leyden fabric run`, an explicit argument says something else.
    """
    from_cli = settings.get("LEYDEN_FABRIC_CLI_USED", environ)
    defaults = {field.name: field.default for field in fields(RawArguments)}
    replaced: dict[str, Any] = {}
    for name, setting in VARIABLES.items():
        value = settings.get(setting, environ)
        if value is None:
            continue
        given = getattr(raw, name)
        replaced[name] = value
        if given is None or given is defaults[name] or given == defaults[name] or _as_text(given) == _as_text(value):
            continue
        if from_cli:
            raise ConfigError(
                f"the code has {name}={given!r}, which conflicts with --{name.replace('_', '-')}={value} on the command line. "
                "Remove one of the two."
            )
        variable = settings.source(setting, environ)
        rank_zero_warn(f"{name}={given!r} is replaced by the environment variable {variable}={value!r}. Unset it to use the argument.")
    return replace(raw, **replaced)


def sort_plugins(plugins: Any) -> Plugins:
    """Return the plug-ins by kind.

    Raises:
        ConfigTypeError: One is of no known kind.
        ConfigError: Two are of one kind.
    """
    given = [] if plugins is None else list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
    kinds: dict[str, type] = {"precision": Precision, "checkpoint_io": CheckpointIO, "environment": ClusterEnvironment}
    found: dict[str, Any] = {}
    for plugin in given:
        kind = next((name for name, cls in kinds.items() if isinstance(plugin, cls)), None)
        if kind is None:
            raise ConfigTypeError(f"plugins has {plugin!r}. Accepted are objects of {', '.join(cls.__name__ for cls in kinds.values())}.")
        if kind in found:
            raise ConfigError(f"plugins has two of {kinds[kind].__name__}: {found[kind]!r} and {plugin!r}. Pass one of each kind at most.")
        found[kind] = plugin
    return Plugins(**found)


def check_given_once(strategy: Strategy, raw: RawArguments, plugins: Plugins) -> None:
    """Refuse what both the strategy object and another argument give.

    Raises:
        ConfigError: Something is given twice.
    """
    devices = strategy.parallel_devices if isinstance(strategy, ParallelStrategy) else None
    precision = plugins.precision if plugins.precision is not None else raw.precision
    twice = {
        "accelerator": (strategy.accelerator, None if _is_auto(raw.accelerator) else raw.accelerator, "accelerator"),
        "precision": (strategy.precision_given, precision, "plugins" if plugins.precision is not None else "precision"),
        "checkpoint_io": (strategy.checkpoint_io, plugins.checkpoint_io, "plugins"),
        "cluster_environment": (strategy.cluster_environment, plugins.environment, "plugins"),
        "parallel_devices": (devices, None if _is_auto(raw.devices) else raw.devices, "devices"),
    }
    for name, (own, other, argument) in twice.items():
        if own is not None and other is not None:
            raise ConfigError(f"{name} set through both strategy class and {argument}, choose one.")


# -- where it runs -----------------------------------------------------------------------------------------------


def own_devices(strategy: object) -> list[torch.device]:
    """Return the devices that a strategy object of the user brings along; a named strategy brings none."""
    if isinstance(strategy, ParallelStrategy):
        return list(strategy.parallel_devices or [])
    return [strategy.root_device] if isinstance(strategy, SingleDeviceStrategy) else []


def choose_accelerator(raw: RawArguments, strategy: Strategy | None, probe: Probe) -> Accelerator:
    """Return the accelerator that was given, that the strategy's devices imply, or that is found.

    Raises:
        ConfigTypeError: Neither a name nor an accelerator.
        UnavailableError: This machine lacks it.
        ConfigError: An unknown name, or another kind than the strategy's devices.
    """
    own = own_devices(raw.strategy)
    given = raw.accelerator
    if strategy is not None and strategy.accelerator is not None:
        given = strategy.accelerator
    elif own and (given is None or _is_auto(given)):
        given = own[0].type
    found = accelerator_for(given, probe)
    if own and found.name in BUILT_IN and found.name != own[0].type:
        raise ConfigError(f"accelerator={found.name!r}, but the strategy runs on {own[0]}. Leave accelerator out, or change the device.")
    return found


def choose_num_nodes(num_nodes: Any, environment: ClusterEnvironment) -> int:
    """Return the number of nodes; the default of one follows the launcher.

    Raises:
        ConfigTypeError: Not an integer.
        ConfigError: Less than one.
    """
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, int):
        raise ConfigTypeError(f"num_nodes={num_nodes!r} should be an int > 0.")
    if num_nodes < 1:
        raise ConfigError(f"num_nodes={num_nodes} should be an int > 0. Write num_nodes=1 for one machine.")
    if num_nodes == 1 and environment.creates_processes_externally:
        return environment.num_nodes_hint() or 1
    return num_nodes


def choose_devices(
    raw: RawArguments, strategy: Strategy | None, accelerator: Accelerator, environment: ClusterEnvironment, probe: Probe
) -> list[torch.device]:
    """Return the devices of this node, in local-rank order.

    Raises:
        ConfigTypeError: A type that is never accepted.
        ConfigError: Devices that are not there, or other ones than the strategy brings along.
    """
    own, wanted = own_devices(raw.strategy), raw.devices
    if own:
        if not _is_auto(wanted) and _how_many(wanted) != len(own):
            raise ConfigError(f"devices={wanted!r}, but the strategy runs on {own[0]} alone. Leave devices out, or change the strategy.")
        return own
    if _is_auto(wanted):
        wanted = _automatic_devices(strategy, accelerator, environment, probe)
    visible = probe.count_of(accelerator)
    if environment.creates_processes_externally and visible == 1 and accelerator.name not in ONE_BY_DEFAULT and _how_many(wanted) > 1:
        # The launcher shows each rank a device of its own, which the rank calls 0.
        return accelerator.get_parallel_devices(accelerator.parse_among(1, visible)) * _how_many(wanted)
    return accelerator.get_parallel_devices(accelerator.parse_among(wanted, visible))


def _automatic_devices(strategy: Strategy | None, accelerator: Accelerator, environment: ClusterEnvironment, probe: Probe) -> int | str:
    """Return what `devices="auto"` means: what the launcher started, one in a notebook, else all there are."""
    hint = environment.num_devices_hint() if environment.creates_processes_externally else None
    if hint is not None:
        return hint
    if strategy is not None and not isinstance(strategy, ParallelStrategy):
        return 1
    present = probe.count_of(accelerator)
    if probe.interactive and present > 1 and accelerator.name not in ONE_BY_DEFAULT:
        rank_zero_info(
            "in a notebook, devices='auto' takes one of the %d %s devices. Pass devices=%d for all.", present, accelerator.name, present
        )
        return 1
    return "auto"


def _how_many(devices: Any) -> int:
    """Return how many devices were asked for by number or by id; 1 for `auto` and all."""
    parsed = normalise(devices)
    if isinstance(parsed, list):
        return len(parsed)
    return parsed if isinstance(parsed, int) and parsed > 0 else 1


# -- how it runs -------------------------------------------------------------------------------------------------


def choose_precision(name: Any, given: Precision | None, context: PrecisionContext) -> Precision:
    """Return the precision object that was given, or the one that is named.

    Raises:
        ConfigError: Both were given, the name is unknown, or it does not go with the strategy.
    """
    if given is not None:
        if name is not None:
            raise ConfigError(f"precision={name!r} and the plug-in {given!r} were both given, choose one.")
        check_precision(given, context.kind)
        return given
    full = full_name("32-true" if name is None else name)
    check_name(full, context.kind)
    if full == "16-mixed" and context.accelerator.name == "cpu":
        rank_zero_warn('precision="16-mixed" is not supported on the CPU; "bf16-mixed" is used instead. Write precision="bf16-mixed".')
        full = "bf16-mixed"
    return create_precision(replace(context, precision=full))


def configure(plan: Plan) -> None:
    """Write the plan into its strategy."""
    strategy = plan.strategy
    strategy.accelerator = plan.accelerator
    strategy.precision = plan.precision
    strategy.checkpoint_io = plan.checkpoint_io
    strategy.cluster_environment = plan.environment
    strategy.num_nodes = plan.num_nodes
    if isinstance(strategy, ParallelStrategy):
        strategy.parallel_devices = plan.devices
    elif isinstance(strategy, SingleDeviceStrategy):
        strategy.root_device = plan.devices[0]


def _is_auto(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() == "auto"


def _as_text(value: object) -> str:
    """Return an argument as the command line would have it, to compare the two."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value).strip().lower()
