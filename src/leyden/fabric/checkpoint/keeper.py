"""`Keeper`: what a checkpoint asks of the strategy whose state it holds. Types point down: a checkpoint knows no strategy."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from leyden.fabric.mesh import Mesh
from leyden.fabric.precision.precision import Precision


class Keeper(Protocol):
    """The part of `Strategy` that saves and loads stand on."""

    state_layout: ClassVar[Literal["replicated", "sharded", "foreign"]]

    @property
    def global_rank(self) -> int:
        """This process's rank."""
        ...

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        ...

    @property
    def is_global_zero(self) -> bool:
        """Whether this is rank 0."""
        ...

    @property
    def root_device(self) -> torch.device:
        """This process's device."""
        ...

    @property
    def saving_group(self) -> Any:
        """The process group of asynchronous saves."""
        ...

    @property
    def mesh(self) -> Mesh:
        """The axes over which ranks are divided."""
        ...

    @property
    def precision(self) -> Precision:
        """How numbers are kept."""
        ...

    @property
    def checkpoint_io(self) -> Any:
        """A `CheckpointIO` plug-in, or `None`; untyped because plug-ins are made of the modules that use this one."""
        ...

    def get_module_state_dict(self, module: nn.Module) -> dict[str, Any]:
        """Return the plain module's state dict."""
        ...

    def load_module_state_dict(self, module: nn.Module, state_dict: Mapping[str, Any], strict: bool = True) -> None:  # noqa: FBT001, FBT002 - the strategy's signature
        """Load a state dict."""
        ...

    def get_optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state dict."""
        ...
