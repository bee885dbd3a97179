"""Kinds of devices, at their documented path; they live in `leyden.fabric.accelerators`."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.accelerators import Accelerator as Accelerator
    from leyden.fabric.accelerators import CPUAccelerator as CPUAccelerator
    from leyden.fabric.accelerators import CUDAAccelerator as CUDAAccelerator
    from leyden.fabric.accelerators import MPSAccelerator as MPSAccelerator
    from leyden.fabric.accelerators import XPUAccelerator as XPUAccelerator
    from leyden.fabric.accelerators import find_usable_cuda_devices as find_usable_cuda_devices
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Accelerator": "leyden.fabric.accelerators",
            "CPUAccelerator": "leyden.fabric.accelerators",
            "CUDAAccelerator": "leyden.fabric.accelerators",
            "MPSAccelerator": "leyden.fabric.accelerators",
            "XPUAccelerator": "leyden.fabric.accelerators",
            "find_usable_cuda_devices": "leyden.fabric.accelerators",
        },
    )
