"""`FSDPStrategy`: weights, gradients and optimizer state sharded over ranks by torch's `fully_shard` (FSDP2).

Zhao et al., *PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel*, 2023, https://arxiv.org/abs/2304.11277.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.mesh import Mesh
from leyden.fabric.precision.precision import Precision
from leyden.fabric.precision.sharded import FSDPPrecision
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.strategies import fsdp_options
from leyden.fabric.strategies.activation_checkpointing import checkpoint_activations
from leyden.fabric.strategies.parallel import DEFAULT_TIMEOUT
from leyden.fabric.strategies.sharded import ShardedStrategy
from leyden.fabric.strategies.sharding import (
    Repointing,
    broadcast_from_rank_zero,
    is_sharded,
    merge_units,
    own_modules,
    refuse_old_fsdp,
    without_gradient_sync,
)
from leyden.fabric.strategies.strategy import PrecisionKind
from leyden.fabric.strategies.wrapping import units

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.environments.environment import ClusterEnvironment


class FSDPStrategy(ShardedStrategy):
    """Shards parameters, gradients and optimizer state; a unit's parameters are gathered only while it computes.

    Args:
        accelerator: The kind of device; `None` lets the plan fill it in.
        parallel_devices: The devices of this node; `None` lets the plan fill them in.
        cluster_environment: Who started the processes; `None` lets the plan detect it.
        precision: How numbers are kept; `None` lets the plan fill it in.
        process_group_backend: The `torch.distributed` backend; `None` takes the accelerator's.
        timeout: After which a collective that not all ranks reach is an error.
        cpu_offload: `True` or a policy: shards wait in CPU memory.
        mixed_precision: A policy in place of the precision's.
        auto_wrap_policy: `"auto"` (repeated blocks, then the root), `None` (root only), classes, a function, a torch policy.
        activation_checkpointing: Classes whose activations are recomputed.
        activation_checkpointing_policy: The same as a policy, like `auto_wrap_policy`.
        sharding_strategy: `"FULL_SHARD"` (units are freed after forward, the root after backward), `"SHARD_GRAD_OP"` (all after
            backward), `"HYBRID_SHARD"` or `"_HYBRID_SHARD_ZERO2"` (the same two, replicated over nodes).
        state_dict_type: `"sharded"` (a directory, every rank writes) or `"full"` (a single file).
        device_mesh: `(replicate, shard)` or a two-dimensional `DeviceMesh`.
        **kwargs: `reshard_after_forward`, FSDP2's own word: `True` frees the root after forward too, a number of ranks frees down
            to that many. The old FSDP's other keywords; what FSDP2 cannot honour is refused.

    Raises:
        ConfigError: Arguments that contradict each other, or a keyword nobody knows.

    Example:
        >>> FSDPStrategy(sharding_strategy="SHARD_GRAD_OP").state_layout
        'sharded'
    """

    precision_kind: ClassVar[PrecisionKind] = "fsdp"

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        accelerator: "Accelerator | None" = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: "ClusterEnvironment | None" = None,
        precision: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        cpu_offload: Any = None,
        mixed_precision: Any = None,
        auto_wrap_policy: Any = "auto",
        activation_checkpointing: Any = None,
        activation_checkpointing_policy: Any = None,
        sharding_strategy: Any = "FULL_SHARD",
        state_dict_type: str = "sharded",
        device_mesh: "tuple[int, int] | DeviceMesh | None" = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            accelerator=accelerator,
            parallel_devices=parallel_devices,
            cluster_environment=cluster_environment,
            precision=precision,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        frees, hybrid = fsdp_options.sharding(sharding_strategy)
        if device_mesh is not None and not hybrid:
            raise ConfigError(
                f'device_mesh={device_mesh!r} divides ranks for hybrid sharding; pass sharding_strategy="HYBRID_SHARD" with it.'
            )
        ignored, init = fsdp_options.leftovers(kwargs)
        self.options = fsdp_options.ShardOptions(
            reshard_after_forward=fsdp_options.reshard_after_forward(kwargs, sharding_strategy, frees=frees),
            is_hybrid=hybrid,
            device_mesh=device_mesh,
            auto_wrap_policy=auto_wrap_policy,
            activation_checkpointing=fsdp_options.activation_policy(activation_checkpointing, activation_checkpointing_policy),
            offload=cpu_offload,
            mixed_precision=mixed_precision,
            ignored=ignored,
            param_init_fn=init,
        )
        self.state_dict_type = fsdp_options.state_dict_type(state_dict_type)

    @property
    def saves_one_file(self) -> bool:
        return self.state_dict_type == "full"

    def mesh_axes(self) -> dict[str, int]:
        if not self.options.is_hybrid:
            return {"dp_shard": self.world_size}
        given = self.options.device_mesh
        replicate, shard = given if isinstance(given, tuple) else (self.num_nodes, self.num_processes)
        if replicate * shard != self.world_size:
            raise ConfigError(f"device_mesh=({replicate}, {shard}) covers {replicate * shard} ranks, but this run has {self.world_size}.")
        return {"dp_replicate": replicate, "dp_shard": shard}

    def make_mesh(self) -> Mesh:
        given = self.options.device_mesh
        if given is not None and not isinstance(given, tuple):
            return Mesh.around(given, rank=self.global_rank)
        axes = self.mesh_axes()
        # Over one axis `fully_shard` shards; so an axis to replicate over is never the only one.
        return Mesh(axes, device_type=self.root_device.type, rank=self.global_rank, keep_all=axes.get("dp_replicate", 1) > 1)

    def prepare_module(self, module: nn.Module, optimizers: Sequence[Optimizer] = ()) -> nn.Module:
        refuse_old_fsdp(module)
        if self.options.activation_checkpointing is not None:
            checkpoint_activations(module, self.options.activation_checkpointing)
        return module

    def setup_module(self, module: nn.Module) -> nn.Module:
        from torch.distributed.fsdp import fully_shard  # a second of import

        if isinstance(self.precision, FSDPPrecision):
            self.precision.reduce_found_inf = self._max_over_ranks
        if is_sharded(module):
            return module
        policy = self.options.auto_wrap_policy
        chosen = merge_units(module, units(module, policy))
        names = {id(child): name for name, child in module.named_modules()}
        ignored, reshard = self._ignored_parameters(), self.options.reshard_after_forward
        keywords: dict[str, Any] = {
            "mesh": self._shard_mesh(),
            "mp_policy": fsdp_options.mixed_precision_policy(self.options.mixed_precision, self._default_policy()),
            "offload_policy": fsdp_options.offload_policy(self.options.offload, pin_memory=self.root_device.type == "cuda"),
            **({"ignored_params": ignored} if ignored else {}),
            # Without the word the root stays whole until backward, which would gather it again at once.
            **({} if reshard is None else {"reshard_after_forward": reshard}),
        }
        for unit in [*chosen, module]:
            own = [(_joined(names[id(unit)], name), child) for name, child in own_modules(unit, chosen)]
            self.fill(own, self.options.param_init_fn)
            broadcast_from_rank_zero(own, device=self.root_device)
            fully_shard(unit, **keywords)
        self.forget_built()
        return module

    def setup_module_and_optimizers(
        self, module: nn.Module, optimizers: list[Optimizer], scheduler: Any = None
    ) -> tuple[nn.Module, list[Optimizer], Any]:
        repointing = Repointing(module, optimizers)
        module = self.setup_module(module)
        repointing.apply(module)
        return module, optimizers, scheduler

    def method_of(self, module: nn.Module, name: str) -> Callable[..., Any]:
        run = super().method_of(module, name)
        root: Any = getattr(module, "_orig_mod", module)
        if self.options.reshard_after_forward is not None or not hasattr(root, "set_requires_gradient_sync"):
            return run

        def with_root_freed(*args: Any, **kwargs: Any) -> Any:
            output = run(*args, **kwargs)
            if not torch.is_grad_enabled():
                root.reshard()  # no backward will: whole weights would outlive the next step or load
            return output

        return with_root_freed

    def no_backward_sync(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager[Any]:
        inner = getattr(module, "_orig_mod", module)
        if not enabled:
            return nullcontext()
        if not hasattr(inner, "set_requires_gradient_sync"):
            raise ConfigTypeError("Blocking gradient synchronization is only possible with a module set up by this FSDPStrategy.")
        return without_gradient_sync(inner)

    def _default_policy(self) -> Any:
        from torch.distributed.fsdp import MixedPrecisionPolicy  # a second of import

        return self.precision.policy() if isinstance(self.precision, FSDPPrecision) else MixedPrecisionPolicy()

    def _shard_mesh(self) -> "DeviceMesh":
        """Return the mesh `fully_shard` takes: one axis, or (replicate, shard)."""
        return self.mesh.device_mesh

    def _ignored_parameters(self) -> set[nn.Parameter]:
        found: set[nn.Parameter] = set()
        for item in self.options.ignored:
            found.update(item.parameters() if isinstance(item, nn.Module) else [item])
        if self.world_size > 1 and any(parameter.requires_grad for parameter in found):
            rank_zero_warn(
                "FSDPStrategy: parameters named by ignored_states or ignored_modules require gradients, which nobody averages over ranks: "
                "they drift apart. Freeze them with requires_grad_(False), or average each .grad with fabric.all_reduce before the step."
            )
        return found

    def _max_over_ranks(self, tensor: Tensor) -> Tensor:
        local: Any = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        return self.all_reduce(local, reduce_op="max")


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name
