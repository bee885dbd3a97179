"""`SingleDeviceStrategy`: one process, one device; every collective is the identity."""

from typing import TYPE_CHECKING, Any

import torch

from leyden.core.errors import ConfigTypeError
from leyden.fabric import collectives
from leyden.fabric.precision.precision import Precision
from leyden.fabric.strategies.strategy import Strategy

if TYPE_CHECKING:
    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.checkpoint.plugin import CheckpointIO


class SingleDeviceStrategy(Strategy):
    """Runs everything on one device.

    Args:
        device: Where to, as `torch.device` takes it.
        accelerator: The kind of device; `None` lets the plan fill it in.
        checkpoint_io: A plug-in that stores checkpoints; `None` is fabric's own formats.
        precision: How numbers are kept; `None` lets the plan fill it in.

    Example:
        >>> SingleDeviceStrategy("cpu").root_device
        device(type='cpu')
    """

    def __init__(
        self,
        device: str | int | torch.device = "cpu",
        accelerator: "Accelerator | None" = None,
        checkpoint_io: "CheckpointIO | None" = None,
        precision: Precision | None = None,
    ) -> None:
        super().__init__(accelerator=accelerator, checkpoint_io=checkpoint_io, precision=precision)
        if not isinstance(device, (str, int, torch.device)) or isinstance(device, bool):
            raise ConfigTypeError(f'SingleDeviceStrategy(device={device!r}): expected a device, such as "cpu" or torch.device("cuda", 0).')
        self._device = device if isinstance(device, torch.device) else torch.device(device)

    @property
    def root_device(self) -> torch.device:
        return self._device

    @root_device.setter
    def root_device(self, device: torch.device) -> None:
        self._device = device

    def all_gather(self, tensor: Any, group: Any = None, sync_grads: bool = False) -> Any:
        self._check_axis(group)
        return collectives.of_one(tensor, device=self.root_device)

    def all_reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        self._check_axis(group)
        return collectives.of_one(tensor, reduce_op, device=self.root_device)

    def _check_axis(self, group: Any) -> None:
        if isinstance(group, str):
            self.mesh.size(group)  # a name that no mesh has would be an error on several ranks

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj

    def barrier(self, name: str | None = None) -> None:
        return None
