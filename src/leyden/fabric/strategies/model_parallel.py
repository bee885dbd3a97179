"""`ModelParallelStrategy`: the user's function parallelises the module over a mesh of data-parallel and tensor-parallel ranks.

The function is called once, after launch, with the module and the mesh; what it does is up to it: `parallelize_module`,
`fully_shard`, or both. Megatron-LM, Shoeybi et al., 2019, https://arxiv.org/abs/1909.08053.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, UnavailableError
from leyden.core.log import get_logger
from leyden.fabric.mesh import Mesh, MeshSpec
from leyden.fabric.strategies.parallel import DEFAULT_TIMEOUT
from leyden.fabric.strategies.sharded import ShardedStrategy
from leyden.fabric.strategies.sharding import Repointing, broadcast_from_rank_zero, is_sharded, refuse_old_fsdp, without_gradient_sync
from leyden.fabric.strategies.strategy import PrecisionKind, entered

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

logger = get_logger(__name__)

DOCUMENTED_NAMES: dict[str, tuple[str, ...]] = {
    "dp": ("data_parallel",),
    "dp_replicate": ("data_parallel",),
    "dp_cp": ("data_parallel",),
    "tp": ("tensor_parallel",),
}


class ModelParallelStrategy(ShardedStrategy):
    """Parallelises by the user's function over a mesh `(data_parallel, tensor_parallel)`, or over a `MeshSpec`'s axes.

    Args:
        parallelize_fn: `(module, device_mesh) -> module`; called once, after launch. `None`: the module comes parallelised, as a
            `LightningModule`'s does from its `configure_model`.
        data_parallel_size: Ranks with different batches; `"auto"` is the number of nodes.
        tensor_parallel_size: Ranks that share one batch; `"auto"` is the number of devices per node.
        save_distributed_checkpoint: Whether `save` writes a directory (every rank its shards) instead of one file.
        process_group_backend: The `torch.distributed` backend; `None` takes the accelerator's.
        timeout: After which a collective that not all ranks reach is an error.
        mesh: Axes in place of the two sizes; the function then gets a `Mesh` with `mesh["tp"]`, `mesh["dp_shard"]`, …

    Raises:
        ConfigTypeError: `parallelize_fn` is no function.
        ConfigError: `mesh` together with sizes.

    Example:
        >>> ModelParallelStrategy(lambda module, mesh: module, tensor_parallel_size=2).state_layout
        'sharded'
    """

    precision_kind: ClassVar[PrecisionKind] = "model_parallel"

    def __init__(
        self,
        parallelize_fn: Callable[..., nn.Module] | None = None,
        data_parallel_size: int | Literal["auto"] = "auto",
        tensor_parallel_size: int | Literal["auto"] = "auto",
        save_distributed_checkpoint: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        *,
        mesh: MeshSpec | None = None,
    ) -> None:
        super().__init__(process_group_backend=process_group_backend, timeout=timeout)
        if parallelize_fn is not None and not callable(parallelize_fn):
            raise ConfigTypeError(f"parallelize_fn={parallelize_fn!r}: expected a function (module, device_mesh) -> module.")
        if mesh is not None and (data_parallel_size != "auto" or tensor_parallel_size != "auto"):
            raise ConfigError(f"mesh={mesh} and data_parallel_size/tensor_parallel_size both divide the ranks; pass one of them.")
        self._parallelize_fn = parallelize_fn
        self._sizes = (data_parallel_size, tensor_parallel_size)
        self._spec = mesh
        self._save_distributed_checkpoint = save_distributed_checkpoint

    @property
    def saves_one_file(self) -> bool:
        return not self._save_distributed_checkpoint

    @property
    def device_mesh(self) -> "DeviceMesh | Mesh":
        """What `parallelize_fn` gets.

        Raises:
            StateError: Before launch.
        """
        if self._group is None:
            raise StateError("Accessing the device mesh before processes have initialized is not allowed; call fabric.launch() first.")
        return self.mesh if self._spec is not None else self.mesh.device_mesh

    def mesh_axes(self) -> dict[str, int]:
        if self._spec is not None:
            sizes = self._spec.sizes(self.world_size)
            if sizes["tp"] > self.num_processes:
                logger.warning(
                    "tp=%d is larger than a node's %d devices: matrices are then split over the network.", sizes["tp"], self.num_processes
                )
            return sizes
        data, tensor = self._sizes
        data = self.num_nodes if isinstance(data, str) else data
        tensor = self.num_processes if isinstance(tensor, str) else tensor
        if data * tensor != self.world_size:
            raise UnavailableError(
                f"The sizes data_parallel_size={data} and tensor_parallel_size={tensor} multiplied should equal the world size "
                f"({self.world_size}). Change one of them, or `devices` and `num_nodes`."
            )
        return {"data_parallel": data, "tensor_parallel": tensor}

    def make_mesh(self) -> Mesh:
        has_documented_axes = self._spec is None
        return Mesh(
            self.mesh_axes(),
            device_type=self.root_device.type,
            rank=self.global_rank,
            aliases=DOCUMENTED_NAMES if has_documented_axes else None,
            keep_all=has_documented_axes,  # `parallelize_fn` asks for both by name, also where one has one rank
        )

    def prepare_module(self, module: nn.Module, optimizers: Sequence[Optimizer] = ()) -> nn.Module:
        refuse_old_fsdp(module)
        if self._parallelize_fn is None:
            self.fill(module.named_modules())
            self.forget_built()
            return module
        repointing = Repointing(module, optimizers)
        broadcast_from_rank_zero([(name, child) for name, child in module.named_modules() if not _has_meta(child)], device=self.root_device)
        parallel: Any = self._parallelize_fn(module, self.device_mesh)
        if not isinstance(parallel, nn.Module):
            raise ConfigTypeError(f"The `parallelize_fn` must return a `nn.Module` instance, but it returned {type(parallel).__name__}.")
        self.fill(parallel.named_modules())
        self.forget_built()
        repointing.apply(parallel)
        return parallel

    def no_backward_sync(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager[Any]:
        inner = getattr(module, "_orig_mod", module)
        if not enabled or not is_sharded(inner):
            return nullcontext()  # tensor parallel alone: the reduction is part of the forward's own graph
        return entered(*[without_gradient_sync(child) for child in inner.modules() if hasattr(child, "set_requires_gradient_sync")])


def _has_meta(module: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)])
