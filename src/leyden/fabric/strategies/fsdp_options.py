"""Fully sharded data parallel's documented arguments, and what each means for FSDP2.

Everything is checked here, before a process starts. What FSDP2 cannot honour is refused, what it does by itself is
accepted with an info line, so that code written for the old FSDP moves over without a surprise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed
from leyden.core.log import get_logger

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

logger = get_logger(__name__)

StateDictType = Literal["full", "sharded"]
# Word → (reshard parameters after forward, replicate over nodes).
SHARDING = {
    "FULL_SHARD": (True, False),
    "SHARD_GRAD_OP": (False, False),
    "HYBRID_SHARD": (True, True),
    "_HYBRID_SHARD_ZERO2": (False, True),
}
# FSDP2 does these by itself, always; another value than the one named cannot be honoured.
AUTOMATIC = {"use_orig_params": True, "limit_all_gathers": True, "sync_module_states": True}
WITHOUT_EFFECT = frozenset({"forward_prefetch", "backward_prefetch", "device_id"})
TAKEN = frozenset({"ignored_states", "ignored_modules", "param_init_fn", "reshard_after_forward"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions:
    """How weights are sharded.

    Args:
        reshard_after_forward: What `fully_shard` is told about freeing gathered parameters after forward (less memory, one more
            gather); `None`: units are, the root is not.
        is_hybrid: Whether weights are replicated over nodes and sharded inside each.
        device_mesh: `(replicate, shard)` sizes or a `DeviceMesh` of the user's; `None` derives it.
        auto_wrap_policy: Which submodules are gathered as a unit (see `wrapping`).
        activation_checkpointing: A policy for recomputation, or `None`.
        offload: `None`, or FSDP2's offload policy.
        mixed_precision: `None`, or the user's policy in place of the precision's.
        ignored: Parameters or modules that stay whole.
        param_init_fn: Initialises a module that came from the meta device.
    """

    reshard_after_forward: bool | int | None
    is_hybrid: bool
    device_mesh: "tuple[int, int] | DeviceMesh | None"
    auto_wrap_policy: object
    activation_checkpointing: object
    offload: object
    mixed_precision: object
    ignored: tuple[Any, ...]
    param_init_fn: Callable[[nn.Module], None] | None


def sharding(word: object) -> tuple[bool, bool]:
    """Return (reshard after forward, hybrid) for the documented word or torch's enum.

    Raises:
        ConfigError: Another word, or `NO_SHARD`.
    """
    name = str(getattr(word, "name", word)).upper()
    if name == "NO_SHARD":
        raise ConfigError('sharding_strategy="NO_SHARD" keeps every parameter whole: use strategy="ddp".')
    if name not in SHARDING:
        raise ConfigError(f"sharding_strategy={word!r}: accepted are {listed(SHARDING)}.{closest(name, SHARDING)}")
    return SHARDING[name]


def reshard_after_forward(kwargs: Mapping[str, Any], word: object, *, frees: bool) -> bool | int | None:
    """Return what `fully_shard` is told, from FSDP2's keyword if it is there, else from the documented word.

    Args:
        kwargs: The keywords.
        word: The sharding strategy, for the error.
        frees: What it says.

    Raises:
        ConfigTypeError: No bool and no number of ranks.
        ConfigError: The word says that nothing is freed, and the keyword that it is.
    """
    given = kwargs.get("reshard_after_forward")
    if given is None:
        return None if frees else False
    if not isinstance(given, int) or given < 0:
        raise ConfigTypeError(f"reshard_after_forward={given!r}: expected True, False, or the number of ranks to free down to.")
    if given and not frees:
        raise ConfigError(
            f"sharding_strategy={word!r} keeps parameters whole until backward, and reshard_after_forward={given!r} frees them. "
            'Pass sharding_strategy="FULL_SHARD" (or "HYBRID_SHARD"), or drop reshard_after_forward.'
        )
    return given


def state_dict_type(word: object) -> StateDictType:
    """Return the checked word.

    Raises:
        ConfigError: Neither `"full"` nor `"sharded"`.
    """
    if word == "full":
        return "full"
    if word == "sharded":
        return "sharded"
    raise ConfigError(f"state_dict_type={word!r}: accepted are 'full', 'sharded'.{closest(str(word), ['full', 'sharded'])}")


def activation_policy(classes: object, policy: object) -> object:
    """Return the one policy for recomputation that was given.

    Raises:
        ConfigError: Both were given.
    """
    if classes is not None and policy is not None:
        raise ConfigError("You cannot set both `activation_checkpointing` and `activation_checkpointing_policy`. Use the latter.")
    return classes if policy is None else policy


def leftovers(kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Callable[[nn.Module], None] | None]:
    """Check the old FSDP's other keywords; return (what stays whole, the initialiser for meta modules).

    Raises:
        ConfigError: A keyword nobody knows, or a value that FSDP2 cannot honour.
        ConfigTypeError: `param_init_fn` is no function.
    """
    known = {*AUTOMATIC, *WITHOUT_EFFECT, *TAKEN}
    for name, value in kwargs.items():
        if name not in known:
            raise ConfigError(
                f"FSDPStrategy({name}=…): unknown keyword.{closest(name, known)} "
                f"Accepted besides the documented ones: {listed(sorted(known))}."
            )
        if name in AUTOMATIC and bool(value) is not AUTOMATIC[name]:
            raise ConfigError(f"FSDPStrategy({name}={value!r}): FSDP2 always works as with {name}={AUTOMATIC[name]}. Drop the argument.")
        if name in WITHOUT_EFFECT and value not in (None, False):
            logger.info("FSDPStrategy(%s=%r) has no effect: FSDP2 prefetches and places modules by itself.", name, value)
    init = kwargs.get("param_init_fn")
    if init is not None and not callable(init):
        raise ConfigTypeError(f"FSDPStrategy(param_init_fn={init!r}): expected a function that initialises a module.")
    return (*_ignored(kwargs, "ignored_states"), *_ignored(kwargs, "ignored_modules")), init


def _ignored(kwargs: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    return tuple(kwargs.get(name) or ())


def offload_policy(cpu_offload: object, *, pin_memory: bool) -> Any:
    """Return FSDP2's offload policy for the documented argument (`None`, a bool, or either of torch's objects).

    Raises:
        ConfigTypeError: Something else.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy  # a second of import

    if cpu_offload in (None, False):
        return OffloadPolicy()
    if isinstance(cpu_offload, OffloadPolicy):
        return cpu_offload
    wanted = getattr(cpu_offload, "offload_params", cpu_offload)  # the old FSDP's CPUOffload dataclass
    if not isinstance(wanted, bool):
        raise ConfigTypeError(f"cpu_offload={cpu_offload!r}: expected None, True, False, CPUOffload(…) or CPUOffloadPolicy(…).")
    return CPUOffloadPolicy(pin_memory=pin_memory) if wanted else OffloadPolicy()


def mixed_precision_policy(given: object, default: Any) -> Any:
    """Return FSDP2's policy for the documented argument: its own class, the old dataclass, or `None` for `default`.

    Raises:
        ConfigTypeError: Something else.
    """
    from torch.distributed.fsdp import MixedPrecision, MixedPrecisionPolicy  # a second of import

    if given is None:
        return default
    if isinstance(given, MixedPrecisionPolicy):
        return given
    if isinstance(given, MixedPrecision):
        return MixedPrecisionPolicy(
            param_dtype=given.param_dtype, reduce_dtype=given.reduce_dtype, cast_forward_inputs=given.cast_forward_inputs
        )
    raise ConfigTypeError(f"mixed_precision={given!r}: expected MixedPrecisionPolicy or MixedPrecision of torch.distributed.fsdp.")
