"""The precisions by name, and which of them goes with which kind of strategy.

| | plain (single, ddp) | fsdp | model_parallel | deepspeed |
|---|---|---|---|---|
| 32-true, 16-true, bf16-true | yes | FSDPPrecision | yes | DeepSpeedPrecision |
| 64-true | yes | no | no | no |
| bf16-mixed | yes | FSDPPrecision | yes | DeepSpeedPrecision |
| 16-mixed | yes | FSDPPrecision | no | DeepSpeedPrecision |
| float8 | yes | yes | yes | no |
| transformer-engine, bitsandbytes | yes | no | no | no |

Names registered by others are handed the context and go with every kind: their factory knows.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError, closest, listed
from leyden.fabric.precision.precision import Precision
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.registry import Entry, Registry

if TYPE_CHECKING:
    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.environments.environment import ClusterEnvironment

PrecisionKind = Literal["plain", "fsdp", "model_parallel", "deepspeed"]

PRECISION_REGISTRY = Registry("precision", "leyden.fabric.precision")
_aliases: dict[str, str] = {}
_DISCOURAGED = ("16", "bf16")  # short names whose meaning is a guess

_PACKAGE = "leyden.fabric.precision"
_SHARED = {"32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"}  # what fsdp and deepspeed have a class of their own for
_REFUSED: dict[PrecisionKind, dict[str, str]] = {  # name → what to use instead
    "plain": {},
    "fsdp": {"64-true": "32-true", "transformer-engine": "bf16-mixed", "transformer-engine-float16": "16-mixed"},
    "model_parallel": {
        "64-true": "32-true",
        "16-mixed": "bf16-mixed",
        "transformer-engine": "bf16-mixed",
        "transformer-engine-float16": "bf16-mixed",
    },
    "deepspeed": {
        "64-true": "32-true",
        "float8": "bf16-mixed",
        "transformer-engine": "bf16-mixed",
        "transformer-engine-float16": "16-mixed",
    },
}
_OWN = {"MixedPrecision", "HalfPrecision", "DoublePrecision", "BitsandbytesPrecision", "TransformerEnginePrecision"}
_REFUSED_CLASSES: dict[PrecisionKind, set[str]] = {  # by name: importing them all to compare would cost a second
    "plain": {"FSDPPrecision", "DeepSpeedPrecision"},
    "fsdp": {*_OWN, "DeepSpeedPrecision"},
    "model_parallel": {"DoublePrecision", "BitsandbytesPrecision", "TransformerEnginePrecision", "FSDPPrecision", "DeepSpeedPrecision"},
    "deepspeed": {*_OWN, "Float8Precision", "FSDPPrecision"},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionContext:
    """What a factory may look at: the plan so far.

    Args:
        precision: The full name that was asked for.
        kind: The kind of strategy.
        accelerator: The kind of device.
        devices: The devices of this node.
        environment: Who started the processes.
        num_nodes: How many nodes there are.
    """

    precision: str
    kind: PrecisionKind
    accelerator: "Accelerator"
    devices: list[torch.device]
    environment: "ClusterEnvironment"
    num_nodes: int

    @property
    def device(self) -> torch.device:
        """The first device of this node: what its type is, matters."""
        return self.devices[0]


def register_precision(
    name: str, factory: Callable[[Any], Precision] | None = None, *, aliases: Iterable[str] = (), override: bool = False
) -> Any:
    """Add a precision by name; without `factory`, return a decorator.

    Args:
        name: The name for `Fabric(precision=…)`, in any case.
        factory: Called with a `PrecisionContext`, returns the `Precision`.
        aliases: Other names for it.
        override: Whether the names may be taken already.

    Raises:
        ConfigError: A name is taken.

    Example:
        ```python
        register_precision("bf16-lean", lambda plan: LeanPrecision(plan.device.type), aliases=["lean"])
        ```
    """
    taken = [alias for alias in aliases if not override and (alias.lower() in _aliases or alias in PRECISION_REGISTRY)]
    if taken:
        raise ConfigError(f"the precision {taken[0]!r} is registered already. Choose another alias, or pass override=True.")
    result = PRECISION_REGISTRY.register(name, factory, override=override)
    _aliases.update({alias.lower(): name.lower() for alias in aliases})
    return result


def remove_precision(name: str) -> None:
    """Take a precision out, with its aliases.

    Raises:
        ConfigError: There is no such name.
    """
    PRECISION_REGISTRY.remove(name)
    for alias in [alias for alias, full in _aliases.items() if full == name.lower()]:
        del _aliases[alias]


def precision_names() -> list[str]:
    """Return all names, aliases included."""
    PRECISION_REGISTRY.discover()
    return [*PRECISION_REGISTRY, *sorted(_aliases)]


def full_name(precision: str | int) -> str:
    """Return the full name that `precision` stands for; a short one whose meaning is a guess warns.

    Raises:
        ConfigTypeError: Neither a text nor a number.
        ConfigError: No such precision; the message lists all.

    Example:
        >>> full_name(32), full_name("BF16-mixed")
        ('32-true', 'bf16-mixed')
    """
    if isinstance(precision, bool) or not isinstance(precision, (str, int)):
        raise ConfigTypeError(f"precision={precision!r} should be one of {listed(precision_names())}; a Precision goes into plugins.")
    given = str(precision).strip().lower()
    name = _aliases.get(given, given)
    if PRECISION_REGISTRY.find(name) is None:
        name = _aliases.get(given, given)  # an entry point may have added it
    if name not in PRECISION_REGISTRY:
        names = precision_names()
        raise ConfigError(f"precision={precision!r} is not known.{closest(given, names)} Accepted are {listed(names)}.")
    if given in _DISCOURAGED:
        rank_zero_warn(f"precision={precision!r} is short for {name!r}, and discouraged: write precision={name!r}.")
    return name


def create_precision(context: PrecisionContext) -> Precision:
    """Return the precision of `context.precision` for its kind of strategy.

    Raises:
        ConfigError: The two do not go together.
    """
    check_name(context.precision, context.kind)
    made = PRECISION_REGISTRY.entry(context.precision).load()(context)
    if not isinstance(made, Precision):
        raise ConfigTypeError(f"the factory of precision={context.precision!r} returned {made!r}; it should return a Precision.")
    return made


def check_name(name: str, kind: PrecisionKind) -> None:
    """Refuse a full name that does not go with a kind of strategy.

    Raises:
        ConfigError: The two do not go together.
    """
    instead = _REFUSED[kind].get(name)
    if instead is not None:
        raise UnsupportedError(f"precision={name!r} does not go with the {kind} strategy. Use precision={instead!r}, or another strategy.")


def check_precision(precision: Precision, kind: PrecisionKind) -> None:
    """Refuse a precision object that is known not to go with a kind of strategy.

    Raises:
        ConfigError: The two do not go together.
    """
    refused = {cls.__name__ for cls in type(precision).__mro__} & _REFUSED_CLASSES[kind]
    name = type(precision).__name__
    if kind == "model_parallel" and name == "MixedPrecision" and precision.precision == "16-mixed":
        refused = {name}
    if refused:
        hint = f'Leave the plug-in out and pass precision="{precision.precision}"' if precision.precision in _SHARED else "Use another one"
        raise UnsupportedError(f"{name} does not go with the {kind} strategy. {hint}, or take another strategy.")


# name → class in this package, and which arguments it is given; imported at the first use
_CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "32-true": ("precision:Precision", ()),
    "16-true": ("half:HalfPrecision", ("precision",)),
    "bf16-true": ("half:HalfPrecision", ("precision",)),
    "64-true": ("double:DoublePrecision", ()),
    "16-mixed": ("mixed:MixedPrecision", ("precision", "device")),
    "bf16-mixed": ("mixed:MixedPrecision", ("precision", "device")),
    "float8": ("float8:Float8Precision", ("device",)),
    "transformer-engine": ("transformer_engine:TransformerEnginePrecision", ("weights_dtype",)),
    "transformer-engine-float16": ("transformer_engine:TransformerEnginePrecision", ("weights_dtype",)),
}
_CLASSES_BY_KIND: dict[PrecisionKind, tuple[str, tuple[str, ...]]] = {  # for the shared names
    "fsdp": ("sharded:FSDPPrecision", ("precision", "device")),
    "deepspeed": ("deepspeed:DeepSpeedPrecision", ("precision",)),
}


def _built_in(context: PrecisionContext) -> Precision:
    name = context.precision
    target, takes = _CLASSES_BY_KIND.get(context.kind, _CLASSES[name]) if name in _SHARED else _CLASSES[name]
    values = {
        "precision": name,
        "device": context.device.type,
        "weights_dtype": torch.float16 if name.endswith("float16") else torch.bfloat16,
    }
    return _load(target, name)(**{argument: values[argument] for argument in takes})


def _load(target: str, name: str) -> Callable[..., Precision]:
    module = f"{_PACKAGE}.{target.partition(':')[0]}"
    try:
        return Entry(name=name, target=f"{_PACKAGE}.{target}").load()
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UnsupportedError(f"precision={name!r} is not part of this version of Leyden. Use precision='bf16-mixed'.") from error


for _name, _short in (("32-true", ["32"]), ("64-true", ["64"]), ("16-mixed", ["16"]), ("bf16-mixed", ["bf16"])):
    register_precision(_name, _built_in, aliases=_short)
for _name in ("16-true", "bf16-true", "float8", "transformer-engine", "transformer-engine-float16"):
    register_precision(_name, _built_in)
