"""Turning a module into shards, unit by unit: what FSDP and model parallel share.

Peak memory is one unit: it is materialised (from the meta device) or broadcast from rank 0, sharded, and only then comes the
next. Initial weights depend on the run's seed and the module's name, never on the number of ranks.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.core.log import get_logger
from leyden.fabric import rng
from leyden.fabric.collectives import broadcast_into
from leyden.fabric.names import class_name

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

logger = get_logger(__name__)


def is_sharded(module: nn.Module) -> bool:
    """Return whether the module, or one inside it, went through `fully_shard`."""
    return any(hasattr(child, "set_requires_gradient_sync") for child in module.modules())


def free_whole_weights(module: nn.Module) -> None:
    """Leave the shards alone of what `fully_shard` has gathered in a module."""
    for child in module.modules():
        if hasattr(child, "set_requires_gradient_sync"):
            sharded: Any = child
            sharded.reshard()


def refuse_old_fsdp(module: nn.Module) -> None:
    """Refuse modules wrapped by torch's old FSDP.

    Raises:
        ConfigTypeError: There is one.
    """
    for name, child in module.named_modules():
        if type(child).__name__ == "FullyShardedDataParallel":
            raise ConfigTypeError(
                f"{name or 'the module'} is wrapped in torch's old FullyShardedDataParallel, which does not mix with FSDP2. "
                "Pass the plain module; the strategy shards it."
            )


def merge_units(module: nn.Module, units: list[nn.Module]) -> list[nn.Module]:
    """Return the units such that a parameter shared by several belongs to one: the root takes what units share.

    A unit whose parameters are also used outside it is dissolved into the root, which gathers them once for all.
    """
    owners: dict[int, set[int]] = defaultdict(set)
    for name, child in module.named_modules(remove_duplicate=False):
        for parameter in child.parameters(recurse=False):
            owners[id(parameter)].add(_owner(module, name, units))
    shared = {owner for users in owners.values() if len(users) > 1 for owner in users}
    if shared:
        names = [name for name, child in module.named_modules() if id(child) in shared]
        if names:
            logger.info("Parameters are shared across %s: they are sharded with the root module.", ", ".join(names))
    return [unit for unit in units if id(unit) not in shared]


def _owner(module: nn.Module, name: str, units: list[nn.Module]) -> int:
    """Return the id of the innermost unit around the submodule `name`; 0 for the root."""
    ids = {id(unit) for unit in units}
    path = name.split(".") if name else []
    for end in range(len(path), 0, -1):
        child = module.get_submodule(".".join(path[:end]))
        if id(child) in ids:
            return id(child)
    return 0


def own_modules(unit: nn.Module, units: Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Return the modules of a unit that belong to no unit inside it, with their names below the unit."""
    others = {id(other) for other in units if other is not unit}
    found: list[tuple[str, nn.Module]] = []

    def visit(child: nn.Module, name: str) -> None:
        found.append((name, child))
        for key, grandchild in child.named_children():
            if id(grandchild) not in others:
                visit(grandchild, f"{name}.{key}" if name else key)

    visit(unit, "")
    return found


def materialise(
    modules: Iterable[tuple[str, nn.Module]],
    *,
    device: torch.device,
    seed: int,
    init: Callable[[nn.Module], None] | None,
    may_stay_empty: bool,
) -> None:
    """Give meta parameters and buffers of these modules memory and initial values.

    Args:
        modules: Full name → module, without modules inside that are not meant.
        device: Where to.
        seed: The run's seed; each module draws from `fold(seed, name)`.
        init: The user's initialiser instead of `reset_parameters`.
        may_stay_empty: Whether a module without an initialiser may keep what memory held, because a load will fill it.

    Raises:
        ConfigError: A module has parameters but no `reset_parameters`.
    """
    for name, module in modules:
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if not any(tensor.is_meta for tensor in own):
            continue
        reset: Any = init if init is not None else getattr(module, "reset_parameters", None)
        if reset is None and not may_stay_empty:
            raise ConfigError(
                f"{name or 'the root module'} ({class_name(module)}) has parameters on the meta device but no reset_parameters() that "
                "could give them values. Add one, build the model inside fabric.init_module(), or pass param_init_fn=… to the strategy."
            )
        with _whole_tensors(module, device), rng.isolate_rng(), torch.no_grad():
            torch.manual_seed(rng.fold(seed, name))
            if reset is not None:
                reset(module) if init is not None else reset()


@contextmanager
def _whole_tensors(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Give a module's own meta tensors memory inside; those that are shards are whole there, and cut again at the end.

    So an initialiser draws the same numbers for every mesh.
    """
    cuts: dict[str, Any] = {}
    for key, parameter in list(module._parameters.items()):
        if parameter is not None and parameter.is_meta and hasattr(parameter, "placements"):
            cuts[key] = parameter
            module._parameters[key] = nn.Parameter(
                torch.empty(parameter.shape, dtype=parameter.dtype, device="meta"), parameter.requires_grad
            )
    module.to_empty(device=device, recurse=False)
    yield
    if cuts:
        from torch.distributed.tensor import distribute_tensor  # a second of import

        for key, cut in cuts.items():
            whole: Any = module._parameters[key]
            shard = distribute_tensor(whole.data, cut.device_mesh, cut.placements, src_data_rank=None)  # every rank drew the same
            module._parameters[key] = nn.Parameter(shard, whole.requires_grad)


def broadcast_from_rank_zero(
    modules: Iterable[tuple[str, nn.Module]], *, device: torch.device, group: "ProcessGroup | None" = None
) -> None:
    """Give every rank rank 0's parameters and buffers of these modules, moved to `device`; small ones travel together."""
    moved: dict[int, tuple[Tensor, Tensor]] = {}  # once each, so that what is tied stays tied; the first keeps its id taken

    def move(tensor: Tensor) -> Tensor:
        if id(tensor) not in moved:
            moved[id(tensor)] = (tensor, tensor.data.to(device).contiguous())
        return moved[id(tensor)][1]

    for _, module in modules:
        for parameter in module._parameters.values():
            if parameter is not None and not hasattr(parameter, "full_tensor"):
                parameter.data = move(parameter)
        for key, buffer in module._buffers.items():
            if buffer is not None and not hasattr(buffer, "full_tensor"):
                module._buffers[key] = move(buffer)
    broadcast_into([target for _, target in moved.values()], group=group)


def plain_name(name: str) -> str:
    """Return a parameter's name without what wrappers of torch put into it."""
    return name.replace("_orig_mod.", "").replace("_checkpoint_wrapped_module.", "")


class Repointing:
    """Re-points optimizers at the parameters that took the place of those they were built with.

    Args:
        module: The module before it is sharded.
        optimizers: Optimizers over its parameters, which have not stepped.

    Raises:
        StateError: An optimizer has state already.
    """

    def __init__(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        for optimizer in optimizers:
            if optimizer.state:
                raise StateError(
                    f"{type(optimizer).__name__} has stepped before it was set up; its state belongs to parameters that sharding replaces. "
                    "Call fabric.setup first, then load the state with fabric.load."
                )
        self._optimizers = optimizers
        self._names = {id(parameter): plain_name(name) for name, parameter in module.named_parameters(remove_duplicate=False)}

    def apply(self, module: nn.Module) -> None:
        """Exchange the parameters in place; order and options of groups stay."""
        new = {plain_name(name): parameter for name, parameter in module.named_parameters(remove_duplicate=False)}
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["params"] = [new[self._names[id(p)]] if id(p) in self._names else p for p in group["params"]]


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float, norm_type: float, *, error_if_nonfinite: bool) -> Tensor:
    """Clip by the norm over all shards of all parameters; whole and sharded ones, on any mesh, may be mixed.

    Returns:
        The total norm before clipping, a plain tensor, the same on all ranks.

    Raises:
        RuntimeError: The norm is not finite and `error_if_nonfinite`.
    """
    by_mesh: dict[Any, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            by_mesh[getattr(parameter.grad, "device_mesh", None)].append(parameter)
    if not by_mesh:
        return torch.tensor(0.0)
    norms = [_plain(nn.utils.get_total_norm([p.grad for p in group if p.grad is not None], norm_type)) for group in by_mesh.values()]
    total = torch.linalg.vector_norm(torch.stack(norms), norm_type) if len(norms) > 1 else norms[0]
    if error_if_nonfinite and not torch.isfinite(total):
        raise RuntimeError(f"The total norm of order {norm_type} for gradients is non-finite, so it cannot be clipped.")
    for group in by_mesh.values():
        nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return total


def _plain(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def clip_grad_value(parameters: Iterable[nn.Parameter], clip_val: float) -> None:
    """Clip each gradient element, shard by shard: no communication is needed."""
    for parameter in parameters:
        gradient: Any = parameter.grad
        if gradient is not None:
            local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
            local.clamp_(-clip_val, clip_val)


@contextmanager
def without_gradient_sync(module: Any) -> Iterator[None]:
    """Accumulate gradients on each rank inside; synchronisation comes back also after exceptions."""
    module.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        module.set_requires_gradient_sync(True)
