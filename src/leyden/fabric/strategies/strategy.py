"""`Strategy`: how one model is trained on the devices at hand. The one hierarchy that trainer and llm use too.

```
Strategy (abstract)
├── SingleDeviceStrategy
└── ParallelStrategy (abstract: process group, mesh, collectives)
    ├── DDPStrategy  DeepSpeedStrategy
    └── ShardedStrategy (abstract: weights in parts)
        └── FSDPStrategy  ModelParallelStrategy      the leaves are final
```

Callers branch on the class constants `state_layout`, `supports_no_sync` and `owns_backward`, never on types.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from leyden.core.errors import UnsupportedError
from leyden.fabric.loading.transfer import move_data_to_device
from leyden.fabric.mesh import Mesh
from leyden.fabric.names import class_name
from leyden.fabric.precision.precision import Precision
from leyden.fabric.precision.registry import PrecisionKind

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.checkpoint.plugin import CheckpointIO
    from leyden.fabric.environments.environment import ClusterEnvironment
    from leyden.fabric.launch.group import Closeable
    from leyden.fabric.launch.launcher import Launcher

StateLayout = Literal["replicated", "sharded", "foreign"]
StateFilter = Mapping[str, Callable[[str, Any], bool]]


class Strategy(ABC):  # noqa: SIZE003 - the documented protocol of a strategy
    """Places a module, runs its backward and its step, and knows how state is laid out over ranks.

    Args:
        accelerator: The kind of device; `None` lets the caller's plan fill it in.
        checkpoint_io: A plug-in that stores checkpoints; `None` is fabric's own formats.
        precision: How numbers are kept; `None` lets the caller's plan fill it in.
        cluster_environment: Who started the processes; `None` lets the plan detect it.
    """

    state_layout: ClassVar[StateLayout] = "replicated"
    supports_no_sync: ClassVar[bool] = False
    precision_kind: ClassVar[PrecisionKind] = "plain"  # which column of the table in precision/registry.py holds here
    owns_backward: ClassVar[bool] = False
    guards_methods: ClassVar[bool] = False  # an undeclared method that runs a submodule's forward is refused

    def __init__(
        self,
        *,
        accelerator: "Accelerator | None" = None,
        checkpoint_io: "CheckpointIO | None" = None,
        precision: Precision | None = None,
        cluster_environment: "ClusterEnvironment | None" = None,
    ) -> None:
        self.accelerator = accelerator
        self.checkpoint_io = checkpoint_io
        self.precision_given = precision
        self.precision: Precision = precision or Precision()
        self.cluster_environment = cluster_environment
        self.num_nodes = 1
        self.launcher: Launcher | None = None
        self.is_in_backward = False
        self._owned: list[Closeable] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "launcher": None, "_owned": []}  # its children are of this process

    # -- where this process stands -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def root_device(self) -> torch.device:
        """This process's device."""

    @property
    def global_rank(self) -> int:
        """This process's rank over all nodes."""
        return 0

    @property
    def local_rank(self) -> int:
        """This process's rank on its node."""
        return 0

    @property
    def node_rank(self) -> int:
        """The number of this node."""
        return 0

    @property
    def world_size(self) -> int:
        """The number of ranks over all nodes."""
        return 1

    @property
    def num_processes(self) -> int:
        """The number of ranks on this node."""
        return 1

    @property
    def is_global_zero(self) -> bool:
        """Whether this is rank 0."""
        return self.global_rank == 0

    @property
    def mesh(self) -> "Mesh":
        """The axes of this run, by name; one of size 1 where there is one device."""
        return Mesh({"dp_replicate": 1}, device_type=self.root_device.type)

    @property
    def saving_group(self) -> "ProcessGroup | None":
        """A second group for asynchronous saves, so that they never share training's; `None` where there is one process."""
        return None

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        """`num_replicas` and `rank` for samplers: **data-parallel** ranks only."""
        return {"num_replicas": 1, "rank": 0}

    # -- setting up ----------------------------------------------------------------------------------------------

    def make_launcher(self) -> "Launcher | None":
        """Return what starts the other ranks of this node; `None` where there are none, or where they exist already."""
        return None

    def own(self, other: "Closeable") -> None:
        """Close `other` when this strategy gives back its group and store."""
        self._owned.append(other)

    def setup_environment(self) -> None:
        """Make this process's device current; a parallel strategy also joins the process group. Idempotent."""
        if self.accelerator is not None:
            self.accelerator.setup_device(self.root_device)

    def module_init_context(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        """Return the context in which a module is built: on the device, in the dtype, without initialisers if `empty_init`."""
        return entered(self.root_device, _SkipInitialisation() if empty_init else nullcontext(), self.precision.module_init_context())

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Return the context in which tensors are born on the device in the precision's dtype."""
        return entered(self.root_device, self.precision.tensor_init_context())

    def module_to_device(self, module: nn.Module) -> None:
        """Move the module's parameters and buffers, in place.

        Raises:
            UnsupportedError: Some are on the meta device, where they have no values.
        """
        on_meta = (name for name, parameter in module.named_parameters() if parameter.is_meta)
        if self.root_device.type != "meta" and (name := next(on_meta, None)):
            raise UnsupportedError(
                f"{name!r} of {class_name(module)} is on the meta device and has no values, and {type(self).__name__} gives it none. "
                "Build the module inside fabric.init_module(), or use strategy='fsdp', which fills such modules shard by shard."
            )
        module.to(self.root_device)

    def batch_to_device(self, batch: Any, device: torch.device | None = None) -> Any:
        """Return the batch with every tensor on `device` (default: this process's)."""
        return move_data_to_device(batch, device or self.root_device)

    def prepare_module(self, module: nn.Module, optimizers: Sequence[Optimizer] = ()) -> nn.Module:
        """Do what comes before compilation and wrapping: parallelise by hand, checkpoint activations.

        `optimizers` are pointed at parameters that this replaces.
        """
        return module

    def setup_module(self, module: nn.Module) -> nn.Module:
        """Wrap or shard the module; the result is what forward goes through."""
        return module

    def setup_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Adapt the optimizer to this strategy."""
        return optimizer

    def setup_module_and_optimizers(
        self, module: nn.Module, optimizers: list[Optimizer], scheduler: Any = None
    ) -> tuple[nn.Module, list[Optimizer], Any]:
        """Set up a module with its optimizers: what strategies that shard need to do at once."""
        return self.setup_module(module), [self.setup_optimizer(optimizer) for optimizer in optimizers], scheduler

    def method_of(self, module: nn.Module, name: str) -> Callable[..., Any]:
        """Return what runs `name` (`"forward"` or a marked method) of a module that `setup_module` returned."""
        return module if name == "forward" else getattr(module, name)

    def mark_forward_method(self, module: nn.Module, name: str) -> None:
        """Let `module.name` be called through the strategy like `forward`. `module` is what `setup_module` returned."""
        return

    # -- the hot path --------------------------------------------------------------------------------------------

    def backward(self, tensor: Tensor, module: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        """Compute gradients of `tensor`, scaled where the precision scales."""
        precision = self.precision
        if precision.plain:
            tensor.backward(*args, **kwargs)
            return
        precision.pre_backward(tensor, module)
        self.is_in_backward = True
        try:
            precision.backward(tensor, module, *args, **kwargs)
        finally:
            self.is_in_backward = False
        precision.post_backward(tensor, module)

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step the optimizer as the precision does it."""
        if self.precision.plain:
            return optimizer.step(**kwargs)
        return self.precision.optimizer_step(optimizer, **kwargs)

    def no_backward_sync(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager[Any]:
        """Return a context without gradient reduction; forward and backward both belong inside."""
        return nullcontext()

    def clip_gradients_norm(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        max_norm: float,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = True,
    ) -> Tensor:
        """Clip by norm and return the total norm before clipping, over all shards and ranks."""
        self.precision.unscale_gradients(optimizer)
        parameters = list(self.precision.main_params(optimizer))
        return nn.utils.clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite=error_if_nonfinite)

    def clip_at_step(self, max_norm: float) -> bool:
        """Clip by norm at each step from now on, and return whether this strategy does so; call it before the module is set up."""
        return False

    def clip_gradients_value(self, module: nn.Module, optimizer: Optimizer, clip_val: float) -> None:
        """Clip every gradient element to [-clip_val, clip_val]."""
        self.precision.unscale_gradients(optimizer)
        nn.utils.clip_grad_value_(list(self.precision.main_params(optimizer)), clip_val)

    # -- collectives ---------------------------------------------------------------------------------------------

    @abstractmethod
    def all_gather(self, tensor: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Gather a tensor or a tree from all ranks: shape `(world_size, …)`; unchanged where there is one rank."""

    @abstractmethod
    def all_reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Reduce a tensor or a tree over all ranks, in place, and return it."""

    @abstractmethod
    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Return rank `src`'s object on every rank."""

    @abstractmethod
    def barrier(self, name: str | None = None) -> None:
        """Wait for all ranks; `name` appears in the stall report."""

    def rank_zero_first(self, local: bool = False) -> AbstractContextManager[Any]:
        """Return a context that rank 0 (of each node, if `local`) runs before the others, which wait without a time-out."""
        return nullcontext()

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Return whether all ranks (or any, with `all=False`) decided so."""
        return decision

    # -- state ---------------------------------------------------------------------------------------------------

    def get_module_state_dict(self, module: nn.Module) -> dict[str, Any]:
        """Return the plain module's state dict; values are `DTensor` where the layout is sharded."""
        return module.state_dict()

    def load_module_state_dict(self, module: nn.Module, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Load a state dict that `get_module_state_dict` returned."""
        module.load_state_dict(state_dict, strict=strict)

    def get_optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state dict."""
        return optimizer.state_dict()

    def save_checkpoint(
        self,
        path: str | Path,
        state: dict[str, Any],
        storage_options: Any = None,
        filter: StateFilter | None = None,
        *,
        blocking: bool = True,
        format: str = "auto",
    ) -> None:
        """Write `state` (unwrapped objects and values); every rank calls it.

        Raises:
            ConfigError: `storage_options` for a local path, without a checkpoint plug-in that takes them.
        """
        from leyden.fabric.checkpoint import saver

        saver.write(path, state, strategy=self, filter=filter, blocking=blocking, format=format, storage_options=storage_options)

    def load_checkpoint(
        self,
        path: str | Path,
        state: Any = None,
        strict: bool = True,
        weights_only: bool | None = None,
        *,
        restore_rng: Literal["auto"] | bool = "auto",
    ) -> dict[str, Any]:
        """Restore `state` in place and return the remainder; without `state`, everything on the CPU."""
        from leyden.fabric.checkpoint import saver

        return saver.read(path, state, strategy=self, strict=strict, weights_only=weights_only, restore_rng=restore_rng)

    def teardown(self) -> None:
        """Give back the device, the group if this strategy made it, and the children. Idempotent."""
        for other in reversed(self._owned):
            other.close()
        self._owned.clear()
        self.precision.teardown()
        if self.accelerator is not None:
            self.accelerator.teardown()
        if self.cluster_environment is not None:
            self.cluster_environment.teardown()
        if self.launcher is not None:
            self.launcher.close()


@contextmanager
def entered(*contexts: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter several contexts in order, and leave all of them in reverse, whichever raises."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


class _SkipInitialisation(TorchFunctionMode):
    """Makes the functions of `torch.nn.init` return their tensor untouched."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
