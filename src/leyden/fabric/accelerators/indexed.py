"""`IndexedAccelerator`: devices with ids 0, 1, … behind a `torch.<type>` module, as CUDA, XPU and vendors' plug-ins have.

```python
class NPUAccelerator(IndexedAccelerator):      # a vendor's plug-in, complete
    device_type = "npu"
    collective_backend = "hccl"

ACCELERATOR_REGISTRY.register("npu", NPUAccelerator, description="Ascend NPU")
```
"""

from abc import ABC
from types import ModuleType
from typing import Any, ClassVar, cast

import torch

from leyden.core.errors import ConfigTypeError
from leyden.fabric.accelerators.accelerator import Accelerator, check_device_type
from leyden.fabric.accelerators.device_list import device_ids

_STATS = {  # what torch's allocators call it → what we call it
    "allocated_bytes.all.current": "allocated_bytes",
    "allocated_bytes.all.peak": "peak_allocated_bytes",
    "reserved_bytes.all.current": "reserved_bytes",
    "num_alloc_retries": "allocation_retries",
    "num_ooms": "out_of_memory_errors",
}


class IndexedAccelerator(Accelerator, ABC):
    """Devices with ids, driven through `torch.get_device_module(device_type)`.

    `device_type` is torch's name of the device, also the registered one; `collective_backend` the `torch.distributed`
    backend for its tensors.
    """

    device_type: ClassVar[str]
    collective_backend: ClassVar[str]

    @property
    def name(self) -> str:
        """Torch's name of the device type."""
        return self.device_type

    def setup_device(self, device: torch.device) -> None:
        """Make `device` current; without an index, the current one stays.

        Raises:
            ConfigError: It is of another type.
        """
        check_device_type(device, self.device_type)
        if device.index is not None:
            self._module().set_device(device)

    def teardown(self) -> None:
        """Give cached memory back to the device."""
        module = self._module()
        if not hasattr(module, "is_initialized") or module.is_initialized():
            module.empty_cache()

    @classmethod
    def parse_devices(cls, devices: object) -> list[int]:
        """Return the ids among the devices of this machine.

        Raises:
            ConfigTypeError: A type that is never accepted.
            ConfigError: An id twice, absent, or more devices than there are.
        """
        return cls.parse_among(devices, cls.auto_device_count())

    @classmethod
    def parse_among(cls, devices: object, available: int) -> list[int]:
        """Return the ids among `available` devices."""
        return device_ids(devices, available, cls.device_type)

    @classmethod
    def get_parallel_devices(cls, devices: object) -> list[torch.device]:
        """Return the device of each id."""
        if not isinstance(devices, (list, tuple)):
            raise ConfigTypeError(f"get_parallel_devices takes what parse_devices returned, a list of ids, not {devices!r}.")
        return [torch.device(cls.device_type, index) for index in devices]

    @classmethod
    def auto_device_count(cls) -> int:
        """Return how many devices this process sees."""
        module = cls._module_or_none()
        return int(module.device_count()) if module is not None and module.is_available() else 0

    @classmethod
    def is_available(cls) -> bool:
        """Return whether this process sees one."""
        return cls.auto_device_count() > 0

    @classmethod
    def backend(cls) -> str:
        """Return gloo for tensors on the CPU, the device's own backend for the others."""
        return f"cpu:gloo,{cls.device_type}:{cls.collective_backend}"

    def device_stats(self, device: torch.device) -> dict[str, float]:
        """Return what the memory allocator of `device` counts."""
        found: dict[str, Any] = self._module().memory_stats(device)
        return {ours: float(found[theirs]) for theirs, ours in _STATS.items() if theirs in found}

    @classmethod
    def _module(cls) -> Any:
        return torch.get_device_module(cls.device_type)

    @classmethod
    def _module_or_none(cls) -> Any:
        return cast("ModuleType | None", getattr(torch, cls.device_type, None))  # a vendor's module is there once its package is imported
